# pyright: reportMissingImports=false
"""Lightning: `Trainer(..., callbacks=[DecaylabCallback()])`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from bridge.sinks import needed
from bridge.watch import Watch, watch
from theory.errors import InputError


def _callback() -> Any:
    try:
        return needed("lightning.pytorch", "lightning").Callback
    except InputError:
        return needed("pytorch_lightning", "lightning").Callback


class DecaylabCallback(_callback()):
    """Watch the optimizers of a Lightning `Trainer`, one watch each; a scheduler that steps every step is announced.

    Args:
        **settings: Of `dl.watch`: every, sinks, name, root ...
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.settings = settings
        self.watches: list[Watch] = []

    @property
    def watch(self) -> Watch | None:
        """The watch of the first optimizer, from the beginning of training on."""
        return self.watches[0] if self.watches else None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to watch."""
        optimizers = trainer.optimizers
        total = trainer.estimated_stepping_batches
        known = len(optimizers) == 1 and math.isfinite(total) and total > 0
        start = trainer.global_step // max(len(optimizers), 1)
        schedulers = {id(c.scheduler.optimizer): c for c in trainer.lr_scheduler_configs}
        for optimizer in optimizers:
            config = schedulers.get(id(optimizer))
            every_step = config is not None and config.interval == "step" and config.frequency == 1
            ahead: dict[str, Any] = {"start": start}
            if known and (config is None or every_step):
                ahead |= {"total_steps": int(total), "schedule": config.scheduler if config else None}
            self.watches.append(watch(pl_module, optimizer, **{**ahead, **self.settings}))

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Record the loss."""
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        if loss is not None:
            for each in self.watches:
                each.log(loss=loss)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Finish the run directories."""
        for each in self.watches:
            each.close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Finish them as runs that ended early."""
        for each in self.watches:
            each.close(why=f"{type(exception).__name__}: {exception}")
