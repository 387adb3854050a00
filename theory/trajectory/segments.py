"""What the fast solver is made of: nodes in time, exact sums between them, and averages of slowly varying sources."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

MAX_SEGMENTS = 1_000
"""Nodes are at most steps/MAX_SEGMENTS apart: a resolution, not a tolerance (the sums between nodes are exact)."""


def restarts(lr: Array) -> list[int]:
    """Steps at which the rate jumps by more than a twentieth of its peak, and step 0.

    Args:
        lr: Learning rate per step, shape (T,).

    Returns:
        Increasing indices; of jumps closer than a fiftieth of the run only the first.

    Example:
        >>> restarts(np.array([1.0] * 100 + [0.1] * 100))
        [0, 100]
    """
    found = [0]
    for jump in (np.flatnonzero(np.abs(np.diff(lr)) > 0.05 * lr.max(initial=0.0)) + 1).tolist():
        if jump - found[-1] > max(1, len(lr) // 50):
            found.append(jump)
    return found


def ramps(lr: Array, memory: float) -> list[int]:
    """Steps at which the rate begins to change by more than a twentieth of itself within one memory of the momentum.

    Args:
        lr: Learning rate per step, shape (T,).
        memory: Memory of the momentum, steps.

    Returns:
        Increasing indices, one memory ahead of each jump or steep slope.

    Example:
        >>> ramps(np.array([1.0] * 100 + [0.1] * 100), 10.0)
        [90]
    """
    ahead = min(math.ceil(memory), len(lr) - 1)
    earlier, later = lr[: len(lr) - ahead], lr[ahead:]
    steep = np.abs(later - earlier) > 0.05 * np.maximum(earlier, later)
    return np.flatnonzero(np.diff(steep.astype(np.int64), prepend=0) == 1).tolist()


def nodes(begin: int, first: int, end: int, steps: int) -> Indices:
    """Steps at which the slow solver stops between `first` and `end`: close together near `begin`, ever fewer later.

    Args:
        begin: Step of the last restart.
        first: Step to start from.
        end: Last node.
        steps: Length of the run.

    Returns:
        Increasing indices from `first` to `end`, shape (n+1,).

    Example:
        >>> nodes(0, 2, 5, 5).tolist()
        [2, 3, 4, 5]
    """
    widest, step, at = max(1, steps // MAX_SEGMENTS), first, []
    while step < end:
        at.append(step)
        step += max(1, min((step - begin) // 48, widest))
    return np.array([*at, end], dtype=np.int64)


def linear_recursion(factor: Array, source: Array) -> Array:
    """Solve y_t = factor_t * y_{t-1} + source_t from y_{-1} = 0.

    Args:
        factor: Shape (T,).
        source: Shape (T,).

    Returns:
        y, shape (T,).

    Example:
        >>> linear_recursion(np.array([0.5, 0.5]), np.array([1.0, 1.0])).tolist()
        [1.0, 1.5]
    """
    if np.ptp(factor) == 0:
        return np.asarray(lfilter([1.0], [1.0, -float(factor[0])], source))
    y, out = 0.0, []
    for f, s in zip(factor.tolist(), source.tolist(), strict=True):
        y = f * y + s
        out.append(y)
    return np.array(out)


def segment_sums(factor: Array, sources: Iterable[Array], at: Indices) -> tuple[Array, list[Array]]:
    """Exact transition of y <- factor*y + source across each segment, for each of several sources.

    Args:
        factor: Positive factor of each step, shape (T,).
        sources: Sources of each step, each of shape (T,).
        at: Nodes, shape (n+1,).

    Returns:
        Product of the factors over each segment, shape (n,), and for every source the sum over the segment of the
        source times all later factors, shape (n,).
    """
    log = np.concatenate([[0.0], np.cumsum(np.log(factor))])
    ends = np.repeat(log[at[1:]], np.diff(at))
    later = np.exp(ends - log[1:])
    return np.exp(np.diff(log[at])), [np.add.reduceat(source * later, at[:-1]) for source in sources]


def average_step(average: Array, beta: float, count: int, start: Array, ratio: Array) -> Array:
    """Advance an exponential average by `count` steps of an input that varies geometrically.

    Args:
        average: Raw average (zero-initialised, not bias-corrected), shape (n,).
        beta: Its memory per step.
        count: Number of steps.
        start: Input at the first of the steps, shape (n,).
        ratio: Input at the last+1 over input at the first, shape (n,).

    Returns:
        The average after the steps, shape (n,).
    """
    if count == 1:
        return beta * average + (1 - beta) * start
    z = ratio ** (1 / count)
    gap = z - beta
    near = np.abs(gap) < 1e-9
    kernel = np.where(near, count * beta ** (count - 1), (ratio - beta**count) / np.where(near, 1.0, gap))
    return beta**count * average + (1 - beta) * start * kernel
