"""The fast solver: norms of many tensors under any schedule, at a cost that hardly grows with their number.

The weights' mean square obeys w' = a^2 w + s f. The step's shrink a and source s follow from the schedule alone
(momentum, bias corrections and kinks included) and are summed exactly between nodes, once for all tensors that share a
rate and a decay; f is what the weights' own norm does to the gradients (1/w for scale-invariant SGD, the lag of the
second moment behind it for AdamW) and varies slowly. At the start and after every jump of the rate the exact recursion
runs until things are quiet. A gradient that leans on the weights (`radial`) adds to the decay, of each tensor by its
own norm: w' = (a - p l)^2 w + s f with the lean l; the slow solver sums the pull p as it sums s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from theory.trajectory.march_path import Drive, Path
from theory.trajectory.segments import Array, Indices, nodes, ramps, restarts, segment_sums

QUIET = 2e-3
"""The exact recursion ends when no mean square changed by this much within any of the last five momentum memories."""
LONGEST_BURST = 3_000
"""... but no longer than this after each restart, once no mean square changes by more than `QUIET_ENOUGH`."""
QUIET_ENOUGH = 2e-2
"""Largest change in one memory at which the slow description may take over after a long burst."""
LOUD = 5e-2
"""Change in one memory at which the slow description gives way to the exact recursion again."""
STIFF = 0.25
"""Decay within one memory of the momentum beyond which only the exact recursion will do."""


class System(Protocol):
    """n tensors under one optimizer: an exact step, a slow segment, and the changes between the two descriptions."""

    drive: Drive
    momentum_memory: float
    w: Array

    def begin(self, t: int) -> None:
        """Assume that t steps were done and the moments are stationary (slow description)."""
        ...

    def exact(self, t: int) -> tuple[Array, Array, Array]:
        """Take step t exactly; return the factors f of growth and of the update, and the lean."""
        ...

    def to_slow(self, t: int) -> None:
        """Change to the slow description after t steps."""
        ...

    def slow(self, t: int, count: int, sums: tuple[float, ...]) -> tuple[Array, Array, Array]:
        """Take `count` steps from t at once; return the factors f of growth and update, and the lean, of the first."""
        ...

    def to_exact(self, t: int) -> None:
        """Change to the exact description after t steps."""
        ...

    def sums(self, start: int, stop: int, at: Indices) -> list[Array]:
        """Exact sums over the segments between nodes `at` (relative to `start`)."""
        ...


def march(system: System, lr: Array, start: int = 0, kinks: Sequence[int] = ()) -> Path:
    """Drive a system through the schedule.

    Args:
        system: The tensors, at step `start`.
        lr: Learning rate per step, shape (T,).
        start: Step to begin at; the moments are then taken to be stationary.
        kinks: Further steps at which something jumps (momentum, batch size).

    Returns:
        The path.
    """
    at, squares, growth, update, leans = [start], [system.w], [], [], []

    def record(step: int, first: Array, own: Array, lean: Array) -> None:
        at.append(step)
        squares.append(system.w)
        growth.append(first)
        update.append(own)
        leans.append(lean)

    memory = system.momentum_memory

    def change(before: Array, count: int) -> float:
        """Largest relative change of a mean square in one memory of the momentum."""
        relative = np.abs(system.w - before) / np.where(before > 0, before, 1.0)
        return float(np.max(relative, initial=0.0, where=np.isfinite(relative))) * memory / count

    def burst(t: int, end: int) -> int:
        """Take exact steps until things are quiet; return the number of steps done."""
        stiff = (1 - float(system.drive.shrink[t:end].min())) * memory > STIFF
        latest, calm, settled = t + LONGEST_BURST, 0, False
        while t < end and (stiff or not settled):
            before = system.w
            factors = system.exact(t)
            t += 1
            record(t, *factors)
            moved = change(before, 1)
            calm = calm + 1 if moved <= QUIET else 0
            settled = calm >= 5 * memory or (moved <= QUIET_ENOUGH and t >= latest)
        return t

    def stride(begin: int, t: int, end: int) -> int:
        """Go from node to node for as long as things stay quiet; return the number of steps done."""
        stops = nodes(begin, t, end, len(lr))
        sums = system.sums(t, end, stops - t)
        for k, count in enumerate(np.diff(stops).tolist()):
            before = system.w
            factors = system.slow(int(stops[k]), count, tuple(column[k] for column in sums))
            t = int(stops[k + 1])
            record(t, *factors)
            if change(before, count) > LOUD:
                break
        return t

    begins = sorted({start, *(step for step in (*restarts(lr), *ramps(lr, memory), *kinks) if step > start)})
    slow = start > 0
    if slow:
        system.begin(start)
    for begin, end in zip(begins, [*begins[1:], len(lr)], strict=True):
        t = begin
        while t < end:
            if slow:
                system.to_exact(t)
            t, slow = burst(t, end), False
            if t < end:  # else the rate jumps before things are quiet, and the exact recursion goes on
                system.to_slow(t)
                t, slow = stride(begin, t, end), True
    first, own, lean = (np.array([*column, column[-1]]) for column in (growth, update, leans))
    return Path(np.array(at), np.array(squares), first, own, system.drive, lean=lean if lean.any() else None)


def lean_of(radial: Array, w: Array, gradient: Array) -> Array:
    """Decay that a radial gradient amounts to, per unit of the rate: radial ||g||/||w||.

    Args:
        radial: Mean of <w,g>/(||w|| ||g||), shape (n,).
        w: E||w||^2, shape (n,).
        gradient: E||g||^2 over the same number of coordinates, shape (n,).

    Returns:
        Shape (n,); 0 for tensors of zeros, which have no direction.

    Example:
        >>> lean_of(np.array([0.02]), np.array([4.0]), np.array([1.0])).tolist()
        [0.01]
    """
    return radial * np.sqrt(np.where(w > 0, gradient / np.where(w > 0, w, 1.0), 0.0))


def inverse(w: Array, scale_invariant: NDArray[np.bool_]) -> Array:
    """1/w for scale-invariant tensors, 1 for the others.

    Args:
        w: Mean squares, shape (n,).
        scale_invariant: Shape (n,).

    Returns:
        Shape (n,).
    """
    return np.where(scale_invariant, 1 / np.where(w > 0, w, 1.0), 1.0)


def ratio_of(w: Array, after: Array, scale_invariant: NDArray[np.bool_]) -> Array:
    """Ratio of gradients' second moments after and before a segment.

    Args:
        w: Mean squares before, shape (n,).
        after: Mean squares after, shape (n,).
        scale_invariant: Shape (n,).

    Returns:
        w/after for scale-invariant tensors, 1 for the others.
    """
    return np.where(scale_invariant, w / np.where(after > 0, after, 1.0), 1.0)


def whole_segments(factor: Array, sources: list[Array], at: Indices) -> list[Array]:
    """Product of the factors and sums of the sources over segments, in one list; empty segments allowed.

    Args:
        factor: Shape (T,).
        sources: Each of shape (T,).
        at: Nodes, shape (k+1,).

    Returns:
        One array of shape (k,) for the product and one per source.
    """
    if len(at) < 2:
        return [np.empty(0)] * (1 + len(sources))
    product, sums = segment_sums(factor, sources, at)
    return [product, *sums]


def lag(momentum: float, ratio: Array) -> Array:
    """What momentum's memory contributes when the updates it remembers were larger or smaller than today's.

    Args:
        momentum: Memory per step.
        ratio: Size of a step's contribution over that of the step before, shape (n,).

    Returns:
        Contribution relative to updates of constant size, shape (n,).

    Example:
        >>> lag(0.9, np.array([1.0])).tolist()
        [1.0]
    """
    back = np.minimum(1 / ratio, 0.5 * (1 + 1 / momentum)) if momentum else 1 / ratio
    return back * (1 - momentum) / (1 - momentum * back)
