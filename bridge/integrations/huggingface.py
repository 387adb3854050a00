# pyright: reportMissingImports=false
"""Hugging Face Trainer: `Trainer(..., callbacks=[DecaylabCallback()])`.

Accelerate needs no callback: `dl.watch(model, optimizer)` after `accelerator.prepare(...)` finds the model and the
optimizer inside Accelerate's wrappers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bridge.sinks import needed
from bridge.watch import Watch, watch

_transformers = needed("transformers", "hf")


class DecaylabCallback(_transformers.TrainerCallback):
    """Watch a `transformers.Trainer`: run directory in output_dir/decaylab, scheduler and length as the Trainer's.

    Args:
        **settings: Of `dl.watch`: every, sinks, name, root ...
    """

    def __init__(self, **settings: Any) -> None:
        self.settings, self.watch = settings, None

    watch: Watch | None
    """The watch, from the beginning of training on."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **live: Any) -> None:
        """Begin to watch."""
        settings = {"root": Path(args.output_dir) / "decaylab", **self.settings}
        ahead = {"schedule": live.get("lr_scheduler"), "total_steps": state.max_steps, "start": state.global_step}
        self.watch = watch(live["model"], live["optimizer"], **{**ahead, **settings})

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Record the Trainer's losses."""
        if self.watch is not None and logs:
            named = {"loss": logs.get("loss"), "val_loss": logs.get("eval_loss")}
            known = {name: value for name, value in named.items() if isinstance(value, (int, float))}
            self.watch.log(step=max(state.global_step - 1, 0), **known)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Finish the run directory."""
        if self.watch is not None:
            self.watch.close()
