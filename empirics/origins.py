"""Other runs that a run refers to: where they are, and weights from one of their checkpoints."""

from __future__ import annotations

import re
from pathlib import Path

from torch import nn

from empirics import checkpoint
from empirics.config import TrainConfig
from empirics.records import Record
from theory.errors import InputError


def located(field: str, run: str, root: Path) -> Record:
    """The run directory that a field of a configuration names.

    Args:
        field: Its name.
        run: The directory's name below the same folder of runs, or a path.
        root: That folder.

    Returns:
        The record.

    Raises:
        InputError: If there is none.

    Example:
        >>> located("twin", "nowhere", Path("runs"))
        Traceback (most recent call last):
        theory.errors.InputError: twin = 'nowhere' is no run directory, neither in runs nor as a path: train it first.
    """
    for path in (root / run, Path(run)):
        if (path / "config.json").exists():
            return Record(path)
    raise InputError(f"{field} = {run!r} is no run directory, neither in {root} nor as a path: train it first.")


def load_weights(init_from: str, model: nn.Module, root: Path) -> Path:
    """Give a model the weights and buffers of another run's checkpoint; its optimizer starts afresh.

    Args:
        init_from: RUN (its last checkpoint) or RUN@STEP (after so many steps).
        model: Filled in place.
        root: Folder of run directories.

    Returns:
        The checkpoint.

    Raises:
        InputError: If there is no such run or checkpoint (says which there are), or it is of another model.
    """
    match = re.fullmatch(r"(.+)@(\d+)", init_from)
    run, step = (match[1], int(match[2])) if match else (init_from, None)
    record = located("init_from", run, root)
    there = {int(path.name.removeprefix("step-")): path for path in checkpoint.checkpoints(record.path / "checkpoints")}
    wanted = max(there, default=-1) if step is None else step
    if wanted not in there:
        steps = ", ".join(map(str, there)) or "none"
        raise InputError(
            f"init_from = {init_from!r} is not allowed: {record.name} has checkpoints after steps {steps}."
        )
    checkpoint.load(there[wanted], model=model)
    return there[wanted]


def followed(config: TrainConfig) -> tuple[str, ...]:
    """Run directories that a run starts from (init_from) or follows (match, twin).

    Args:
        config: The run.

    Returns:
        Their names.

    Example:
        >>> from empirics.experiments import experiment
        >>> followed(experiment("resnet_noisy_digits"))
        ()
    """
    names = (config.init_from.partition("@")[0], config.match, config.twin)
    return tuple(dict.fromkeys(Path(name).name for name in names if name))
