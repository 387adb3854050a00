"""decaylab audit: what acts on which parameter, tested rather than guessed."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from decaylab.output import print_json, print_lines, print_table
from theory.errors import InputError


@dataclass(frozen=True)
class Audit:
    """Audit an experiment, or anyone's model: what is decayed, how, what is scale-invariant, where it would settle."""

    target: Annotated[str, tyro.conf.Positional]
    """Name of an experiment, a run directory, or module:function; the function returns (model, optimizer) or (model,
    optimizer, loss_fn, batch), where loss_fn(model, batch) is a scalar loss."""
    set: tuple[str, ...] = ()
    """Fields of an experiment to change, such as optimizer.lr=1e-3."""
    scale: Literal["cpu", "gpu", "paper"] = "cpu"
    """Size of a published experiment."""
    data: str | None = None
    """Other data for an experiment, as in train."""
    seed: int = 0
    """Seed of an experiment."""
    runs: Path = Path("runs")
    """Folder of run directories, for an experiment that follows another run."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        """Audit and print.

        Returns:
            Exit code 0.

        Raises:
            InputError: If the target cannot be found or is not what it should be.
        """
        from bridge.describe import audit
        from bridge.runs import audit_run

        if ":" in self.target and not Path(self.target).exists():
            model, optimizer, loss_fn, batch = self._function()
            table = audit(model, optimizer, loss_fn=loss_fn, batch=batch)
            kinds = f"{type(model).__name__}, {type(optimizer).__name__}"
        else:
            config, root = self._config()
            table = audit_run(config, root)
            parts = [config.model, config.optimizer, *([config.others] if config.others else [])]
            kinds = ", ".join(type(part).__name__.removesuffix("Config") for part in parts)
        if self.json:
            print_json(table)
            return 0
        print_table(table, title=f"{self.target}: {kinds}", number=".3g")
        print_lines(
            [
                "radial = |<g,w>|/(|g||w|), loss_change, gradient_change at twice the scale: 0 if the loss ignores it.",
                "equilibrium_norm and equilibrium_angle (rad/step) hold at the present rates, for noise alone.",
            ]
        )
        return 0

    def _config(self) -> tuple[Any, Path]:
        """The configuration, and where the runs are that it may follow."""
        from empirics.elsewhere import on_data
        from empirics.experiments import experiment
        from empirics.overrides import override
        from empirics.records import Record

        record = Record(Path(self.target))
        if record.status != "new":
            return override(record.config, self.set), record.path.parent
        config = on_data(experiment(self.target, seed=self.seed, scale=self.scale), self.data)
        return override(config, self.set), self.runs

    def _function(self) -> tuple[Any, ...]:
        module, _, name = self.target.partition(":")
        sys.path.insert(0, str(Path.cwd()))
        try:
            function = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise InputError(f"target = {self.target!r} cannot be found: {error}.") from None
        made = function()
        if not isinstance(made, tuple) or len(made) not in (2, 4):
            raise InputError(
                f"target = {self.target!r} returned {type(made).__name__}: it must return (model, optimizer) or "
                "(model, optimizer, loss_fn, batch)."
            )
        model, optimizer, *rest = made
        return (model, optimizer, *(rest or (None, None)))
