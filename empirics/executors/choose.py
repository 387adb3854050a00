"""An executor by its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from empirics.executors.local import Local
from empirics.executors.protocol import Executor
from empirics.executors.ray import Ray
from empirics.executors.slurm import Slurm
from empirics.executors.torchrun import Torchrun
from theory.errors import require

EXECUTORS: dict[str, Callable[..., Any]] = {"local": Local, "torchrun": Torchrun, "ray": Ray, "slurm": Slurm}
"""By the name that the command line takes."""


def choose(executor: Executor | str, **options: Any) -> Executor:
    """An executor, by its name and options.

    Args:
        executor: local, torchrun, ray, slurm, or an executor itself.
        **options: Its fields; those that are None are left at their defaults.

    Returns:
        The executor.

    Raises:
        InputError: If there is none of that name, or it has no such option.

    Example:
        >>> choose("local", workers=2)
        Local(workers=2)
    """
    given = {name: value for name, value in options.items() if value is not None}
    if not isinstance(executor, str):
        require(not given, next(iter(given), ""), given, "left out beside an executor that is made already")
        return executor
    require(executor in EXECUTORS, "executor", executor, f"one of {', '.join(EXECUTORS)}")
    kind: Any = EXECUTORS[executor]
    names = [field.name for field in fields(kind) if field.init]
    for name, value in given.items():
        require(name in names, name, value, f"left out, as the executor {executor} has {', '.join(names)}")
    return kind(**given)
