"""The fast solver: norms of many tensors under any schedule, at a cost that hardly grows with their number.

The weights' mean square obeys w' = a^2 w + s f. The step's shrink a and source s follow from the schedule alone
(momentum, bias corrections and kinks included) and are summed exactly between nodes, once for all tensors that share a
rate and a decay; f is what the weights' own norm does to the gradients (1/w for scale-invariant SGD, the lag of the
second moment behind it for AdamW) and varies slowly. At the start and after every jump of the rate the exact recursion
runs until things are quiet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from theory.results import angle_of_chord
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


@dataclass(frozen=True)
class Drive:
    """What the schedule alone does to the mean square w: w' = shrink^2 w + source f, at every step."""

    shrink: Array
    """Factor a_t (SGD with momentum: the slow root alpha_t), shape (T,)."""
    source: Array
    """Growth s_t per unit f, momentum's correlations included, shape (T,)."""
    cross: Array
    """The part of the source that is due to momentum's memory, shape (T,)."""
    update: Array
    """Mean square per unit f of what `shrink` leaves of the step, shape (T,)."""
    buffer: Array
    """Mean square of the momentum buffer per unit f, shape (T,)."""
    memory: Array
    """Correlation of the buffer with the weights it has already moved, per unit f, shape (T,)."""


class System(Protocol):
    """n tensors under one optimizer: an exact step, a slow segment, and the changes between the two descriptions."""

    drive: Drive
    momentum_memory: float
    w: Array

    def begin(self, t: int) -> None:
        """Assume that t steps were done and the moments are stationary (slow description)."""
        ...

    def exact(self, t: int) -> tuple[Array, Array]:
        """Take step t exactly; return the factors f of growth and of the update."""
        ...

    def to_slow(self, t: int) -> None:
        """Change to the slow description after t steps."""
        ...

    def slow(self, t: int, count: int, sums: tuple[float, ...]) -> tuple[Array, Array]:
        """Take `count` steps from t at once; return the factors f of growth and update of the first."""
        ...

    def to_exact(self, t: int) -> None:
        """Change to the exact description after t steps."""
        ...

    def sums(self, start: int, stop: int, at: Indices) -> list[Array]:
        """Exact sums over the segments between nodes `at` (relative to `start`)."""
        ...


@dataclass(frozen=True)
class Path:
    """Mean squares of n tensors at the nodes, and what their own norm does to the drive."""

    at: Indices
    """Nodes (number of steps done), shape (k,)."""
    mean_square: Array
    """w at the nodes, shape (k, n)."""
    growth: Array
    """f of the growth in the step that starts at each node, shape (k, n)."""
    update: Array
    """f of the update in that step, shape (k, n); differs from `growth` only while momentum fills up."""
    drive: Drive | None
    """The drive that made the path; None if it holds every step itself."""
    angle: Array | None = None
    """Rotation of every step, where the path holds it, shape (k-1, n)."""

    @classmethod
    def from_steps(cls, mean_square: Array, angle: Array, start: int) -> Path:
        """A path that was computed step by step.

        Args:
            mean_square: w before the first and after every step, shape (T+1, n).
            angle: Rotation during every step, rad, shape (T, n).
            start: Index of the first step.

        Returns:
            The path.
        """
        ones = np.ones_like(mean_square)
        return cls(start + np.arange(len(mean_square)), mean_square, ones, ones, None, angle)

    def memory(self, step: NDArray[np.int64]) -> Array:
        """How much of the mean square after each step is still that of the start: known before the data.

        Args:
            step: Step indices, shape (m,).

        Returns:
            Shares in [0, 1], shape (m, n); 0 for a path that was computed step by step.
        """
        if self.drive is None:
            return np.zeros((len(step), self.mean_square.shape[1]))
        log = np.cumsum(np.log(self.drive.shrink[self.at[0] :] ** 2))
        left = np.exp(log[step - self.at[0]])[:, None] * self.mean_square[0]
        after = self.steps(step)[0]
        return np.clip(left / np.where(after > 0, after, 1.0), 0.0, 1.0)

    def steps(self, step: NDArray[np.int64]) -> tuple[Array, Array, Array]:
        """Mean square after, angle during, and relative update of each of the steps.

        Args:
            step: Step indices, shape (m,).

        Returns:
            Mean squares, angles (rad/step) and relative updates, each of shape (m, n).
        """
        if self.drive is None or self.angle is not None:
            assert self.angle is not None
            k = step - self.at[0]
            after, before = self.mean_square[k + 1], self.mean_square[k]
            chord = 4 * np.sin(self.angle[k] / 2) ** 2 * np.sqrt(after * before)
            moved = chord + (np.sqrt(after) - np.sqrt(before)) ** 2
            return after, self.angle[k], np.sqrt(moved / np.where(before > 0, before, 1.0))
        left = np.clip(np.searchsorted(self.at, step, side="right"), 1, len(self.at) - 1) - 1
        x = ((step - self.at[left]) / (self.at[left + 1] - self.at[left]))[:, None]
        growth, update = ((1 - x) * f[left] + x * f[left + 1] for f in (self.growth, self.update))
        decay, steady, rising = (v[:, None] for v in self._since_node(self.drive, step, left))
        first, last = self.growth[left], self.growth[left + 1]
        w = decay * self.mean_square[left] + steady * first + rising * (last - first)
        a, source, own = (v[step][:, None] for v in (self.drive.shrink, self.drive.source, self.drive.update))
        after = a**2 * w + source * growth
        safe = np.where(w > 0, w, 1.0)
        relative = np.sqrt(np.where(w > 0, own * update / safe, 0.0))
        stretch = np.sqrt(np.where(w > 0, after / safe, 1.0))
        chord = (relative**2 - (stretch - a) ** 2) / (2 * a * np.where(stretch > 0, stretch, 1.0))
        return after, np.asarray(angle_of_chord(chord)), relative

    def _since_node(self, drive: Drive, step: NDArray[np.int64], left: NDArray[np.int64]) -> tuple[Array, Array, Array]:
        """What the drive does between a node and a later step of its segment, all of shape (m,).

        Returns the decay of w, its growth under f = 1, and its growth under an f that rises from 0 to 1 in the segment.
        """
        begin = self.at[0]
        node = np.repeat(self.at[:-1], np.diff(self.at)) - begin
        x = (np.arange(len(node)) - node) / np.repeat(np.diff(self.at), np.diff(self.at))
        log = np.concatenate([[0.0], np.cumsum(np.log(drive.shrink[begin:] ** 2))])
        kicks = drive.source[begin:] * np.exp(log[node] - log[1:])
        steady, rising = (np.concatenate([[0.0], np.cumsum(column)]) for column in (kicks, kicks * x))
        here, there = step - begin, self.at[left] - begin
        decay = np.exp(log[here] - log[there])
        return decay, decay * (steady[here] - steady[there]), decay * (rising[here] - rising[there])


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
    at, squares, growth, update = [start], [system.w], [], []

    def record(step: int, first: Array, own: Array) -> None:
        at.append(step)
        squares.append(system.w)
        growth.append(first)
        update.append(own)

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
    return Path(
        np.array(at), np.array(squares), np.array([*growth, growth[-1]]), np.array([*update, update[-1]]), system.drive
    )


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
