"""AdamW for the fast solver: f is the first moment's share of 1/w over the second moment's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from theory.equilibrium.adamw import second_moment_corrections
from theory.trajectory.adamw import adamw_moments_step
from theory.trajectory.march import Drive, inverse, lag, ratio_of, whole_segments
from theory.trajectory.segments import Array, Indices, average_step, linear_recursion


class AdamWSystem:
    """Mean squares of n tensors under AdamW.

    Args:
        lr: Learning rate per step, shape (T,).
        shrink: Decay per step (1 - a_t), shape (T,).
        betas: Adam's betas.
        start: Mean square of each tensor at step 0, shape (n,).
        scale_invariant: Which tensors' gradients shrink as their norm grows, shape (n,).
        noise_kurtosis: As in `adamw_equilibrium`.
        growth_ratio: Measured over predicted growth of w, shape (n,) or a number.
        update_ratio: Measured over predicted mean square of the update, shape (n,) or a number.
    """

    def __init__(
        self,
        lr: Array,
        shrink: Array,
        betas: tuple[float, float],
        start: Array,
        scale_invariant: NDArray[np.bool_],
        noise_kurtosis: float = 3.0,
        growth_ratio: Array | float = 1.0,
        update_ratio: Array | float = 1.0,
    ) -> None:
        self.betas, self.scale_invariant = betas, scale_invariant
        b1, _ = betas
        self.momentum_memory = 1 / (1 - b1)
        self.one_step, self.long_run = second_moment_corrections(betas, noise_kurtosis)
        self.w, self.x, self.m, self.v = start, *(np.zeros_like(start) for _ in range(3))
        self.z = np.ones_like(start)
        self.growth_ratio, self.update_ratio = growth_ratio, update_ratio

        a, t = 1 - shrink, np.arange(1, len(lr) + 1)
        self.step = lr / (1 - b1**t)
        moment: Array = (1 - b1) / (1 + b1) * (1 - np.power(b1, 2.0 * t))
        memory = linear_recursion(a * b1, self.step * moment)
        previous = np.concatenate([[0.0], memory[:-1]])
        own = self.step**2 * moment
        cross = self.long_run * 2 * a * self.step * b1 * previous
        self.drive = Drive(a, self.long_run * own + cross, cross, self.one_step * own, moment, memory)

    def begin(self, t: int) -> None:
        """Take m and v to have followed a constant norm for t steps."""
        q = inverse(self.w, self.scale_invariant)
        self.m, self.v = q * (1 - self.betas[0] ** (2 * t)), q * (1 - self.betas[1] ** t)

    def exact(self, t: int) -> tuple[Array, Array]:
        """Take step t by the recursion of `adamw_trajectory`."""
        a, before = float(self.drive.shrink[t]), self.w
        unseen = 1 - self.betas[1] ** (t + 1)
        q, step = inverse(self.w, self.scale_invariant), float(self.step[t]) * self.long_run**0.5
        self.w, self.x, self.m, self.v, update = adamw_moments_step(
            self.w, self.x, self.m, self.v, q, a, step, self.betas, unseen
        )
        if self.drive.source[t] == 0:
            return np.ones_like(self.w), np.ones_like(self.w)
        self.w = a**2 * before + (self.w - a**2 * before) * self.growth_ratio
        growth = (self.w - a**2 * before) / self.drive.source[t]
        return growth, update * self.one_step / self.long_run / self.drive.update[t] * self.update_ratio

    def to_slow(self, t: int) -> None:
        """From here on m is an average of the gradients' second moments with weights that sum to one."""
        b1, _ = self.betas
        self.m, self.z = self.m * (1 + b1) / (1 - b1), np.ones_like(self.w)

    def to_exact(self, t: int) -> None:
        """Restore the moments that the slow description keeps implicitly."""
        b1, b2 = self.betas
        share = (self.m / (1 - b1 ** (2 * t))) / np.sqrt(self.v / (1 - b2**t))
        self.x = -(self.long_run**0.5) * self.drive.memory[t - 1] * share
        self.m = self.m * (1 - b1) / (1 + b1)

    def sums(self, start: int, stop: int, at: Indices) -> list[Array]:
        """Product of a^2 and sum of the source over each segment."""
        return whole_segments(
            self.drive.shrink[start:stop] ** 2, [self.drive.source[start:stop], self.drive.cross[start:stop]], at
        )

    def slow(self, t: int, count: int, sums: tuple[float, ...]) -> tuple[Array, Array]:
        """Take `count` steps, f averaged between its ends, by fixed-point iteration on the norm at the end."""
        product, growth, cross = sums
        b1_squared, b2 = self.betas[0] ** 2, self.betas[1]
        q = inverse(self.w, self.scale_invariant)
        after, m, v, ratio = self.w, self.m, self.v, self.z**count
        first = self._share(average_step(m, b1_squared, 1, q, q), average_step(v, b2, 1, q, q), t + 1)
        for _ in range(2):
            m, v = average_step(self.m, b1_squared, count, q, ratio), average_step(self.v, b2, count, q, ratio)
            late = lag(self.betas[0], self._growth(ratio, v, t, count)) - 1
            after = product * self.w + (growth + cross * late) * self.growth_ratio * 0.5 * (
                first + self._share(m, v, t + count)
            )
            ratio = ratio_of(self.w, after, self.scale_invariant)
        late = lag(self.betas[0], self._growth(ratio, v, t, count)) - 1
        self.w, self.m, self.v, self.z = after, m, v, ratio ** (1 / count)
        share = self.drive.cross[t] / self.drive.source[t] if self.drive.source[t] > 0 else 0.0
        return first * (1 + share * late) * self.growth_ratio, first * self.update_ratio

    def _growth(self, ratio: Array, v: Array, t: int, count: int) -> Array:
        """Growth per step of a past update's weight in the momentum, E m^2 over the root of v."""
        unseen = (1 - self.betas[1] ** (t + count)) / (1 - self.betas[1] ** t)
        return (ratio / np.sqrt(v / self.v / unseen)) ** (1 / count)

    def _share(self, m: Array, v: Array, t: int) -> Array:
        return (m / (1 - self.betas[0] ** (2 * t))) / (v / (1 - self.betas[1] ** t))
