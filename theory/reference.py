"""Calibrated on finished runs: what their norm curves say about every other run of the same network.

Between two steps ||w||^2 becomes A ||w||^2 + G E, where A and E follow from the schedule alone and G, the long-run
variance of the update, is the network's own: read off the norm curve of a finished run, it is used at the same step of
another one. From one run G is that number. From several it is a power of the norm, as tensors that the loss pushes
back, or draws out, grow less, or more, where they are large.

White gradients would make ||w||^2 grow by lr^2 in a step, a steady drift by lr. Of the trained networks that were seen,
runs with other peak rates follow the first, while a rate that falls along a schedule acts as something between them
(`kicks` in `theory.trajectory.reference_path`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from theory.errors import InputError, require
from theory.optimizers import Adam, AdamW
from theory.recipe import Group, Recipe
from theory.serialize import serializable, settle
from theory.trajectory.reference_path import kicks, rates

Array = NDArray[np.float64]

SEGMENTS = 20
"""Pieces of a run, each longer than the one before; from 13 on, errors on other runs no longer depended on it."""
FIRST = 1 / 30
"""Of the run, the first piece: within it tensors leave their initial values."""
REACH = 0.9
"""Of a run, how far its measured norms must go: they may end before the last step."""
STEEPEST = 4.0
"""Largest power of the norm: beyond it the norms of the runs are too close to tell."""


@dataclass(frozen=True)
class Measured:
    """The norm curves of a finished run."""

    recipe: Recipe
    """What was trained, with initial norms."""
    steps: NDArray[np.int64]
    """Steps after which norms were measured, increasing, shape (m,)."""
    norms: Mapping[str, Array]
    """||w|| after those steps, by tensor, shape (m,)."""
    relative_updates: Mapping[str, Array]
    """lr ||u||/||w|| in those steps, by tensor, shape (m,)."""


@serializable
@dataclass(frozen=True)
class TensorReference:
    """What the references say of one tensor, piece by piece of the run, all of one length."""

    norm: tuple[float, ...]
    """Geometric mean of ||w|| there."""
    growth: tuple[float, ...]
    """Long-run variance of the update u at that norm: growth of ||w||^2 in a step over `kicks`."""
    growth_power: tuple[float, ...]
    """Its power of the norm; 0 from one run."""
    update: tuple[float, ...]
    """||u||^2 at that norm."""
    update_power: tuple[float, ...]
    """Its power of the norm."""
    spread: tuple[float, ...]
    """How far, in log ||w||, the runs are from that norm: the powers are not followed beyond it by more than log 2."""


@serializable
@dataclass(frozen=True)
class Reference:
    """What finished runs say about other runs of the same network; from `reference`."""

    edges: tuple[int, ...] = ()
    """Steps at which the pieces begin, and the end."""
    tensors: dict[str, TensorReference] = field(default_factory=dict)
    """By name."""
    runs: int = 1
    """How many runs it was read off."""

    def __post_init__(self) -> None:
        settle(self, edges=tuple(self.edges), tensors=dict(self.tensors))


def reference(runs: Sequence[Measured]) -> Reference:
    """Read the long-run variance of every tensor off finished runs.

    Args:
        runs: One or more runs of one network and data order, trained by AdamW (or Adam without decay) for the same
            number of steps. Runs whose learning rates bracket those of the runs to be predicted are best: within a
            factor of four between two of them.

    Returns:
        The reference.

    Raises:
        InputError: If there is no run, one was trained by something else, for another number of steps, or its norms
            do not reach to its end.

    Example:
        >>> from theory.schedules import Constant
        >>> recipe = Recipe(AdamW(lr=0.01, weight_decay=0.1), Constant(), 60, (Group("w", (8, 8), norm0=1.0),))
        >>> steps = np.arange(60)
        >>> squares = [1.0]
        >>> for _ in steps:
        ...     squares.append((1 - 0.01 * 0.1) ** 2 * squares[-1] + 0.01**2 * 50)
        >>> norms = {"w": np.sqrt(squares[1:])}
        >>> found = reference([Measured(recipe, steps, norms, {"w": 0.01 * 8 / np.sqrt(squares[:-1])})])
        >>> round(found.tensors["w"].growth[-1], 6)
        50.0
    """
    require(len(runs) > 0, "runs", runs, "at least one finished run")
    for run in runs:
        check(run.recipe)
    lengths = {run.recipe.steps for run in runs}
    require(len(lengths) == 1, "runs", sorted(lengths), "runs of one number of steps")
    (length,) = lengths
    for run in runs:
        end = int(run.steps[-1]) if len(run.steps) else -1
        enough = len(run.steps) >= 3 and end >= REACH * (length - 1)
        require(enough, "runs", f"norms to step {end} of {length}", "measured to the end")
    common = [step for step in runs[0].steps.tolist() if all(step in run.steps for run in runs)]
    edges = pieces(np.array(common) + 1, length)
    names = [group.name for group in runs[0].recipe.groups if all(group.name in run.norms for run in runs)]
    return Reference(tuple(edges.tolist()), {name: tensor_reference(runs, name, edges) for name in names}, len(runs))


def check(recipe: Recipe) -> None:
    """Refuse optimizers whose norms do not follow from a decay of the norm and a growth by lr^2.

    Args:
        recipe: Of a reference, or of a run to be predicted.

    Raises:
        InputError: If it is neither AdamW nor Adam without decay.
    """
    optimizer = recipe.optimizer
    plain = isinstance(optimizer, Adam) and not any(recipe.decay_of(group) > 0 for group in recipe.groups)
    if not isinstance(optimizer, AdamW) and not plain:
        raise InputError(f"optimizer = {type(optimizer).__name__} is not allowed: a reference speaks of AdamW only.")


def pieces(measured: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """Where the pieces of a run begin: at measured steps, geometrically spaced after the first.

    Args:
        measured: Numbers of steps done at measurements, increasing.
        length: Steps of the run.

    Returns:
        Rising numbers of steps done, 0 first, the last measured one last.

    Example:
        >>> pieces(np.arange(10, 1501, 10), 1500)[:4].tolist()
        [0, 50, 60, 70]
    """
    wanted = np.geomspace(max(FIRST * length, 1.0), measured[-1], SEGMENTS)
    nearest = [int(measured[np.abs(measured - step).argmin()]) for step in wanted]
    return np.array(sorted({0, *nearest}), dtype=np.int64)


def tensor_reference(runs: Sequence[Measured], name: str, edges: NDArray[np.int64]) -> TensorReference:
    """Growth and update of one tensor as powers of its norm.

    Args:
        runs: As in `reference`.
        name: The tensor.
        edges: Of the pieces.

    Returns:
        The numbers.
    """
    rows = np.array([curve_numbers(run, name, edges) for run in runs])  # (runs, 3, pieces)
    log_norm, growth, update = np.log(rows[:, 0]), rows[:, 1], rows[:, 2]
    at = log_norm.mean(axis=0)
    (mean, power), (size, slope) = power_law(log_norm, growth), power_law(log_norm, update)
    lists = (np.exp(at), mean, power, size, slope, np.abs(log_norm - at).max(axis=0))
    return TensorReference(*(tuple(each.tolist()) for each in lists))


def curve_numbers(run: Measured, name: str, edges: NDArray[np.int64]) -> tuple[Array, Array, Array]:
    """Geometric mean norm, growth and mean update of each piece of one run.

    Args:
        run: The run.
        name: The tensor.
        edges: Of the pieces.

    Returns:
        Three arrays of shape (pieces,).
    """
    group = group_of(run.recipe, name)
    lr, keep = rates(run.recipe, group)
    norms, relative = np.asarray(run.norms[name]), np.asarray(run.relative_updates[name])
    done = run.steps + 1
    require(group.norm0 is not None, "runs", name, "recipes with the initial norm of every tensor")
    squares = np.concatenate([[float(group.norm0 or 0.0) ** 2], norms**2])
    at = np.concatenate([[0], done])
    before = np.sqrt(np.interp(run.steps, at, squares))
    with np.errstate(divide="ignore", invalid="ignore"):
        update = (relative * before / lr[run.steps]) ** 2
    middle, growth, mean = [], [], []
    for begin, end in pairwise(edges.tolist()):
        here = (at >= begin) & (at <= end)
        first, last = np.interp([begin, end], at, squares)
        left = np.cumprod(keep[begin:end][::-1])[::-1] ** 2
        sums = kicks(lr)[begin:end] * np.append(left[1:], 1.0)
        middle.append(np.exp(np.log(squares[here]).mean() / 2))
        growth.append((last - left[0] * first) / sums.sum())
        inside = update[(done > begin) & (done <= end)]
        inside = inside[np.isfinite(inside)]
        mean.append(inside.mean() if len(inside) else np.nan)
    return np.array(middle), np.array(growth), np.array(mean)


def power_law(log_norm: Array, value: Array) -> tuple[Array, Array]:
    """Least squares of log value on log norm over runs; the plain mean, power 0, where a value is not positive.

    Args:
        log_norm: Shape (runs, pieces).
        value: Likewise.

    Returns:
        Value at the mean of `log_norm` and the power, each of shape (pieces,).

    Example:
        >>> x = np.log([[1.0], [2.0]])
        >>> [round(float(y[0]), 6) for y in power_law(x, 3 * np.exp(2 * x))]
        [6.0, 2.0]
    """
    mean, power = value.mean(axis=0), np.zeros(value.shape[1])
    x = log_norm - log_norm.mean(axis=0)
    spread = np.square(x).sum(axis=0)
    usable = (value > 0).all(axis=0) & (spread > 0)
    logs = np.log(np.where(usable, value, 1.0))
    power[usable] = (x * (logs - logs.mean(axis=0))).sum(axis=0)[usable] / spread[usable]
    mean[usable] = np.exp(logs.mean(axis=0))[usable]
    return mean, np.clip(power, -STEEPEST, STEEPEST)


def group_of(recipe: Recipe, name: str) -> Group:
    """A tensor of a recipe by its name."""
    return next(group for group in recipe.groups if group.name == name)
