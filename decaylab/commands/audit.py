"""decaylab audit: what acts on which parameter, tested rather than guessed."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from decaylab.output import print_json, print_lines, print_table
from theory.errors import InputError


@dataclass(frozen=True)
class Audit:
    """Audit an experiment, or anyone's model: what is decayed, how, what is scale-invariant, where it would settle."""

    target: Annotated[str, tyro.conf.Positional]
    """Name of an experiment, or module:function; the function returns (model, optimizer) or (model, optimizer, loss_fn,
    batch), where loss_fn(model, batch) is a scalar loss."""
    seed: int = 0
    """Seed of an experiment."""
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

        model, optimizer, spec, loss_fn, batch = self._function() if ":" in self.target else self._experiment()
        table = audit(model, optimizer, spec=spec, loss_fn=loss_fn, batch=batch)
        if self.json:
            print_json(table)
            return 0
        print_table(table, title=f"{self.target}: {type(model).__name__}, {type(optimizer).__name__}", number=".3g")
        print_lines(
            [
                "radial = |<g,w>|/(|g||w|), loss_change, gradient_change at twice the scale: 0 if the loss ignores it.",
                "equilibrium_norm and equilibrium_angle (rad/step) hold at the present rates, for noise alone.",
            ]
        )
        return 0

    def _experiment(self) -> tuple[Any, ...]:
        from bridge.runs import batch_loss
        from empirics.experiments import experiment
        from empirics.optimizers import build_optimizer

        config = experiment(self.target, seed=self.seed)
        model = config.model.build(config.seed)
        optimizer = build_optimizer(config.optimizer, model, decayed=config.decay)
        return model, optimizer, config.optimizer, batch_loss, config.data.open().batch(0, config.batch_size)

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
        return (model, optimizer, None, *(rest or (None, None)))
