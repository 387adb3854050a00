"""A run followed step by step with the long-run variances that finished runs of the same network had."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.errors import require
from theory.recipe import Group, Recipe
from theory.results import angle_of_chord
from theory.trajectory.march import Path

if TYPE_CHECKING:
    from theory.reference import Reference

Array = NDArray[np.float64]

BEYOND = 1.1
"""Of the references' length: so much further their last piece is taken to hold."""
FALL = 1.5
"""Power of the schedule's multiplier with which ||w||^2 grows, 2 for white gradients and 1 for a drift; of 1, 1.25, ...
2 the one that carried best from a cosine to a constant rate and to half the length, in one seed of a small GPT-2."""


def reference_path(recipe: Recipe, found: Reference, groups: Sequence[Group], squares: ArrayLike) -> Path:
    """Follow tensors of another run, step by step.

    Args:
        recipe: Of that run.
        found: The reference.
        groups: Tensors of the recipe with one learning rate and decay, all in the reference.
        squares: Their initial ||w||^2, shape (n,).

    Returns:
        Their path: ||w||^2 and rotations.

    Raises:
        InputError: If the run is longer than the references.
    """
    last = found.edges[-1]
    require(recipe.steps <= BEYOND * last, "steps", recipe.steps, f"at most those of the references, {last}")
    lr, keep = rates(recipe, groups[0])
    kick = kicks(lr)
    tensors = [found.tensors[group.name] for group in groups]
    norm, growth, power, update, slope, spread = (
        np.array([getattr(tensor, name) for tensor in tensors]).T
        for name in ("norm", "growth", "growth_power", "update", "update_power", "spread")
    )
    piece = np.minimum(np.searchsorted(found.edges, np.arange(recipe.steps), side="right") - 1, len(norm) - 1)
    log_norm, seen = np.log(norm), spread + np.log(2)
    path = [np.asarray(squares, dtype=np.float64)]
    for t, k in enumerate(piece.tolist()):
        w = path[-1]
        scale = (0.5 * np.log(np.where(w > 0, w, 1.0)) - log_norm[k]).clip(-seen[k], seen[k])
        grown = kick[t] * growth[k] * np.exp(power[k] * scale)
        path.append(np.maximum(keep[t] ** 2 * w + grown, 0.5 * keep[t] ** 2 * w))  # a norm may shrink, never vanish
    w, new = np.array(path[:-1]), np.array(path[1:])
    safe = np.where(w > 0, w, 1.0)
    scale = np.clip(0.5 * np.log(safe) - log_norm[piece], -seen[piece], seen[piece])
    moved = lr[:, None] ** 2 * update[piece] * np.exp(slope[piece] * scale)
    kept = keep[:, None]
    lost = 1 - kept  # of ||w' - w||^2 with w' = kept w - lr u, whose cross term follows from ||w'||^2
    change = lost**2 * w + lost * (kept**2 * w + moved - new) / kept + moved
    both = np.where(w * new > 0, w * new, 1.0)
    chord = (change - (np.sqrt(new) - np.sqrt(w)) ** 2) / (2 * np.sqrt(both))
    angles = angle_of_chord(np.where(w * new > 0, np.maximum(chord, 0.0), 0.0))
    return Path.from_steps(np.array(path), np.asarray(angles), 0)


def rates(recipe: Recipe, group: Group) -> tuple[Array, Array]:
    """Learning rate, and what decay leaves of the weights, at every step."""
    steps = np.arange(recipe.steps)
    return recipe.lr(steps, group), 1 - recipe.shrink(steps, group)


def kicks(lr: Array) -> Array:
    """Growth of ||w||^2 in a step, per unit of long-run variance: the peak rate squared times the schedule's power.

    Args:
        lr: Learning rates of a run, shape (T,).

    Returns:
        Shape (T,); lr^2 at the peak.

    Example:
        >>> kicks(np.array([0.1, 0.025])).round(5).tolist()
        [0.01, 0.00125]
    """
    peak = float(lr.max(initial=0.0))
    return peak**2 * (lr / peak) ** FALL if peak > 0 else np.zeros_like(lr)
