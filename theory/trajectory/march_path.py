"""What the fast solver returns: norms at the nodes, and what the schedule does between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from theory.results import angle_of_chord
from theory.trajectory.segments import Array, Indices


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
    pull: Array | None = None
    """What a radial gradient takes off the shrink, per unit of its lean radial*||g||/||w||, shape (T,)."""

    def leaning(self, t: int | NDArray[np.int64], lean: Array) -> Array:
        """Shrink of a step for gradients that lean on the weights.

        Args:
            t: Step, or steps of shape (m, 1).
            lean: radial*||g||/||w|| in that step, shape (n,) or (m, n).

        Returns:
            Shape of `lean`.
        """
        if self.pull is None:
            return self.shrink[t] + 0 * lean
        return np.maximum(self.shrink[t] - self.pull[t] * lean, 0.0)


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
    lean: Array | None = None
    """Decay by a radial gradient per unit pull in the step that starts at each node, shape (k, n); `growth` has it."""

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
        drive = self.drive
        left = np.clip(np.searchsorted(self.at, step, side="right"), 1, len(self.at) - 1) - 1
        x = ((step - self.at[left]) / (self.at[left + 1] - self.at[left]))[:, None]
        growth, update = ((1 - x) * f[left] + x * f[left + 1] for f in (self.growth, self.update))
        decay, steady, rising = (v[:, None] for v in self._since_node(drive, step, left))
        first, last = self.growth[left], self.growth[left + 1]
        w = decay * self.mean_square[left] + steady * first + rising * (last - first)
        a, source, own = (v[step][:, None] for v in (drive.shrink, drive.source, drive.update))
        after = a**2 * w + source * growth
        safe = np.where(w > 0, w, 1.0)
        moved = np.where(w > 0, own * update / safe, 0.0)
        stretch = np.sqrt(np.where(w > 0, after / safe, 1.0))
        nonzero = np.where(stretch > 0, stretch, 1.0)
        if self.lean is None:
            chord = (moved - (stretch - a) ** 2) / (2 * a * nonzero)
        else:  # the triangle of what decay and lean leave and the noise; then that of what decay leaves and the update
            kept = drive.leaning(step[:, None], (1 - x) * self.lean[left] + x * self.lean[left + 1])
            chord = (moved - (stretch - kept) ** 2) / (2 * np.where(kept > 0, kept, 1.0) * nonzero)
            moved = 2 * a * stretch * np.maximum(chord, 0.0) + (stretch - a) ** 2
        return after, np.asarray(angle_of_chord(chord)), np.sqrt(moved)

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
