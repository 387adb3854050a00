"""A run's training, gone on with in memory from one of its checkpoints: for replays and for probes that watch steps."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from empirics import checkpoint
from empirics.config import TrainConfig
from empirics.data import Images
from empirics.extras import Extras, optimizer_of
from empirics.origins import load_weights

if TYPE_CHECKING:
    from empirics.train import Step


@dataclass(frozen=True)
class Continued:
    """A training that nothing records."""

    model: nn.Module
    """The network, on its device."""
    optimizer: Optimizer
    """Its optimizer."""
    start: int
    """The next step."""
    steps: int
    """Steps of the run in all: there are no learning rates after them."""
    step: Step
    """Takes a step; see `empirics.train.stepper`."""


def continued(
    config: TrainConfig,
    data: Any,
    *,
    folder: Path | None = None,
    begin: int = 0,
    device: torch.device | None = None,
    double: bool = False,
) -> Continued:
    """Set a training up as it was at the newest usable checkpoint at or before a step; without one, at step 0.

    Torch's random number generators are those of the checkpoint afterwards, or seeded as a new run's.

    Args:
        config: The run.
        data: Its opened data.
        folder: The run directory; None for a run that was never begun.
        begin: Latest start.
        device: Where; the CPU if omitted.
        double: Whether weights, state and inputs are float64.

    Returns:
        The training.
    """
    from empirics.train import stepper  # which explains its divergences by replays

    where, root = device or torch.device("cpu"), None if folder is None else folder.parent
    model = config.model.build(config.seed).to(where, torch.float64 if double else torch.float32)
    if isinstance(data, Images):
        data.to(where)
    source: Any = Double(data) if double else data
    if config.init_from:
        load_weights(config.init_from, model, root or Path())
    optimizer = optimizer_of(config, model)
    extras = Extras(config, model, optimizer, source, root or Path())
    torch.manual_seed(config.seed)
    extra, start = dict[str, Any](), 0
    for path in reversed(checkpoint.checkpoints(folder / "checkpoints")) if folder else ():
        if int(path.name.removeprefix("step-")) <= begin:
            try:
                start = checkpoint.load(path, model=model, optimizer=optimizer, extra=extra)
                break
            except checkpoint.DamagedCheckpointError:
                continue
    extras.load_state_dict(extra)
    return Continued(model, optimizer, start, config.steps, stepper(config, source, model, optimizer, extras=extras))


@dataclass(frozen=True)
class Double:
    """Data whose batches are float64 where they are floating-point numbers."""

    data: Any
    """The opened data."""

    def batch(self, step: int, batch_size: int) -> tuple[Tensor, ...]:
        """As the data's own."""
        return tuple(x.double() if x.is_floating_point() else x for x in self.data.batch(step, batch_size))
