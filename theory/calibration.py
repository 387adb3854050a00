"""What a measured norm curve says about the gradients' long-run variance."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.errors import InputError, require
from theory.optimizers import Adam, AdamW
from theory.recipe import Group, Recipe
from theory.trajectory.march import Drive
from theory.trajectory.march_adamw import AdamWSystem

Array = NDArray[np.float64]


def adamw_drive(recipe: Recipe, group: Group) -> Drive:
    """Drive of one group under AdamW: shrink, growth and update per step at stationary gradients (f = 1).

    Args:
        recipe: The recipe.
        group: One of its groups.

    Returns:
        The drive.

    Raises:
        InputError: If the optimizer is not AdamW (or Adam without decay).
    """
    optimizer, steps = recipe.optimizer, np.arange(recipe.steps)
    shrink = recipe.shrink(steps, group)
    if not isinstance(optimizer, (Adam, AdamW)) or (isinstance(optimizer, Adam) and shrink.any()):
        raise InputError(
            f"optimizer = {type(optimizer).__name__} is not allowed: the norm curve calibrates AdamW only."
        )
    system = AdamWSystem(recipe.lr(steps, group), shrink, optimizer.betas, np.ones(1), np.zeros(1, dtype=bool))
    return system.drive


def long_run_ratio(drive: Drive, size: int, steps: ArrayLike, norms: ArrayLike) -> float:
    """One scalar per matrix: measured growth of ||w||^2 over the growth under white Gaussian gradients.

    Between two steps ||w||^2 becomes A ||w||^2 + ratio * E with A and E from the schedule alone; the ratio is the
    least-squares fit to the whole window (relative errors, the norm at its start fitted too).

    Args:
        drive: From `adamw_drive`.
        size: Number of coordinates of the tensor.
        steps: Steps after which the norms were measured, increasing, shape (n,) with n >= 3.
        norms: ||w|| after those steps, shape (n,).

    Returns:
        The ratio, >= 0; 1 for uncorrelated gradients.

    Raises:
        InputError: If there are fewer than three norms.
    """
    at, squares = np.asarray(steps, dtype=np.int64), np.asarray(norms, dtype=np.float64) ** 2
    require(len(at) >= 3 and len(at) == len(squares), "steps", len(at), "at least three, one for every norm")
    window = slice(at[0] + 1, at[-1] + 1)
    log = np.concatenate([[0.0], np.cumsum(np.log(drive.shrink[window] ** 2))])
    left = np.exp(log)
    grown = left * np.concatenate([[0.0], np.cumsum(drive.source[window] / left[1:])]) * size
    columns = np.stack([left[at - at[0]], grown[at - at[0]]], axis=1) / squares[:, None]
    (_, ratio), *_ = np.linalg.lstsq(columns, np.ones(len(at)), rcond=None)
    return max(float(ratio), 0.0)
