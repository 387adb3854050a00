"""Learning-rate schedules as shapes in [0, 1]; warm-up is a part of every shape, not a kind."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.errors import InputError, finite, require, whole
from theory.serialize import serializable, settle

Array = NDArray[np.float64]


@serializable
@dataclass(frozen=True)
class Constant:
    """The peak rate throughout, after a linear warm-up."""

    warmup: int = 0
    """Steps of linear warm-up: step t < warmup runs at (t+1)/warmup of the peak."""

    def __post_init__(self) -> None:
        settle(self, warmup=whole("warmup", self.warmup))

    def check(self, steps: int) -> None:
        """Raise `InputError` if the schedule does not fit into a run of `steps` steps."""
        if self.warmup > steps:
            raise InputError(f"warmup = {self.warmup} is longer than the run: it must be at most steps = {steps}.")

    def at(self, step: ArrayLike, steps: int) -> Array:
        """Multiplier of the peak rate at each step.

        Args:
            step: Step index or indices t = 0 .. steps-1.
            steps: Length of the run.

        Returns:
            Multipliers in [0, 1], shaped like `step`.

        Raises:
            InputError: If the schedule is longer than the run.

        Example:
            >>> Cosine(warmup=2, final=0.1).at([0, 1, 2, 10], steps=11).round(3).tolist()
            [0.5, 1.0, 1.0, 0.127]
        """
        self.check(steps)
        t = np.asarray(step, dtype=np.float64)
        ramp = np.minimum((t + 1) / max(self.warmup, 1), 1.0)
        return np.where(
            t < self.warmup, ramp, self._after(np.maximum(t - self.warmup, 0.0), max(steps - self.warmup, 1))
        )

    def _after(self, t: Array, steps: int) -> Array:
        return np.ones_like(t)


@serializable
@dataclass(frozen=True)
class Linear(Constant):
    """From the peak in a straight line to `final` times the peak, which it would reach at step `steps`."""

    final: float = 0.0
    """Rate at the end, as a fraction of the peak."""

    def __post_init__(self) -> None:
        super().__post_init__()
        settle(self, final=finite("final", self.final, high=1.0, open_high=False))

    def _after(self, t: Array, steps: int) -> Array:
        return self.final + (1 - self.final) * (1 - t / steps)


@serializable
@dataclass(frozen=True)
class Cosine(Linear):
    """From the peak along half a cosine to `final` times the peak (Loshchilov & Hutter, arXiv 1608.03983)."""

    def _after(self, t: Array, steps: int) -> Array:
        return self.final + (1 - self.final) * 0.5 * (1 + np.cos(np.pi * t / steps))


@serializable
@dataclass(frozen=True)
class InverseSqrt(Constant):
    """Proportional to 1/sqrt(t) after the warm-up (Vaswani et al., arXiv 1706.03762)."""

    timescale: int | None = None
    """Steps t0 in sqrt(t0/(t0 + t - warmup)); the warm-up's length by default."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.timescale is not None:
            settle(self, timescale=whole("timescale", self.timescale, low=1))

    def _after(self, t: Array, steps: int) -> Array:
        t0 = self.timescale or max(self.warmup, 1)
        return np.sqrt(t0 / (t0 + t))


@serializable
@dataclass(frozen=True)
class WarmupStableDecay(Constant):
    """Warm-up, a plateau at the peak, then a straight line down over the last `decay` steps."""

    decay: int | float = 0.2
    """Length of the last part: steps if an int, a fraction of the run if a float below 1."""
    final: float = 0.0
    """Rate that the line would reach at step `steps`, as a fraction of the peak."""

    def __post_init__(self) -> None:
        super().__post_init__()
        length = finite("decay", self.decay)
        require(length < 1 or length.is_integer(), "decay", self.decay, "a whole number of steps or a fraction below 1")
        settle(
            self,
            decay=length if 0 < length < 1 else int(length),
            final=finite("final", self.final, high=1.0, open_high=False),
        )

    def _length(self, steps: int) -> int:
        return math.ceil(self.decay * steps) if isinstance(self.decay, float) else self.decay

    def check(self, steps: int) -> None:
        """Raise `InputError` if the schedule does not fit into a run of `steps` steps."""
        super().check(steps)
        if self._length(steps) + self.warmup > steps:
            raise InputError(
                f"warmup = {self.warmup} and decay = {self.decay} are longer than the run: "
                f"together they must be at most steps = {steps}."
            )

    def _after(self, t: Array, steps: int) -> Array:
        length = self._length(steps + self.warmup)
        down = (steps - t) / max(length, 1) if length else np.ones_like(t)
        return self.final + (1 - self.final) * np.minimum(1.0, down)


@serializable
@dataclass(frozen=True)
class Piecewise(Constant):
    """Multipliers at given steps, held (`"constant"`) or joined by straight lines (`"linear"`)."""

    knots: tuple[tuple[int, float], ...] = ((0, 1.0),)
    """Pairs (step, multiplier), steps increasing from 0, counted after the warm-up."""
    interpolation: str = "constant"
    """`"constant"` holds each multiplier until the next knot, `"linear"` joins them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.knots) > 0, "knots", self.knots, "a non-empty sequence of (step, multiplier)")
        pairs = tuple((whole("knots", s), finite("knots", m, high=1.0, open_high=False)) for s, m in self.knots)
        increasing = all(a[0] < b[0] for a, b in pairwise(pairs))
        require(pairs[0][0] == 0 and increasing, "knots", self.knots, "steps that increase from 0")
        require(self.interpolation in ("constant", "linear"), "interpolation", self.interpolation, "constant or linear")
        settle(self, knots=pairs)

    def check(self, steps: int) -> None:
        """Raise `InputError` if the schedule does not fit into a run of `steps` steps."""
        super().check(steps)
        last = self.knots[-1][0] + self.warmup
        if last > steps:
            raise InputError(f"knots reach step {last}, beyond the run: the last must be at most steps = {steps}.")

    def _after(self, t: Array, steps: int) -> Array:
        at, value = (np.array(column, dtype=np.float64) for column in zip(*self.knots, strict=True))
        if self.interpolation == "linear":
            return np.interp(t, at, value)
        return value[np.searchsorted(at, t, side="right") - 1]


Schedule = Constant | Linear | Cosine | InverseSqrt | WarmupStableDecay | Piecewise
