"""AdamW for the fast solver: f is the first moment's share of 1/w over the second moment's."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.equilibrium.adamw import second_moment_corrections
from theory.trajectory.adamw import adamw_moments_step
from theory.trajectory.march import Drive, inverse, lag, lean_of, ratio_of, whole_segments
from theory.trajectory.segments import Array, Indices, average_step, linear_recursion


class AdamWSystem:
    """Mean squares of n tensors under AdamW.

    Args:
        lr: Learning rate per step, shape (T,).
        shrink: Decay per step (1 - a_t), shape (T,).
        betas: Adam's betas, shape (2,), or of each step, shape (T, 2).
        start: Mean square of each tensor at step 0, shape (n,).
        scale_invariant: Which tensors' gradients shrink as their norm grows, shape (n,).
        noise_kurtosis: As in `adamw_equilibrium`.
        growth_ratio: Measured over predicted growth of w, shape (n,) or a number.
        update_ratio: Measured over predicted mean square of the update, shape (n,) or a number.
        noise: Gradients' second moment of each step relative to the others, shape (T,).
        radial: Mean of <w,g>/(||w|| ||g||), shape (n,) or a number: decay by radial/rms of the weights (law
            `radial_gradient`).
    """

    def __init__(
        self,
        lr: Array,
        shrink: Array,
        betas: ArrayLike,
        start: Array,
        scale_invariant: NDArray[np.bool_],
        noise_kurtosis: float = 3.0,
        growth_ratio: Array | float = 1.0,
        update_ratio: Array | float = 1.0,
        noise: Array | None = None,
        radial: Array | float = 0.0,
    ) -> None:
        self.scale_invariant = scale_invariant
        pairs = np.broadcast_to(np.asarray(betas, dtype=np.float64), (len(lr), 2))
        self.b1, self.b2 = b1, b2 = pairs[:, 0], pairs[:, 1]
        self.momentum_memory = 1 / (1 - float(b1.max()))
        changes = np.flatnonzero(np.any(np.diff(pairs, axis=0) != 0, axis=1)) + 1
        begins = np.concatenate([[0], changes])
        table = [second_moment_corrections((x, y), noise_kurtosis) for x, y in pairs[begins].tolist()]
        lengths = np.diff(np.append(begins, len(lr)))
        self.one_step, self.long_run = np.repeat(np.array(table), lengths, axis=0).T
        self.noise = np.ones_like(lr) if noise is None else noise
        self.w, self.x, self.m, self.v = start, *(np.zeros_like(start) for _ in range(3))
        self.z = np.ones_like(start)
        self.radial = radial + np.zeros_like(start)
        # the mean lags behind the weights in m by what they turned since: its square and its product with the noise
        # cancel at stationary norm, and angle and update are those of the noise alone
        self.upright = np.zeros_like(start)
        scatter = 1 - self.radial**2  # what is left of the gradient's mean square for the noise
        self.growth_ratio, self.update_ratio = growth_ratio * scatter, update_ratio * scatter

        a, t = 1 - shrink, np.arange(1, len(lr) + 1)
        self.step, self.unseen = lr / (1 - b1**t), 1 - b2**t
        with np.errstate(divide="ignore"):
            self.seen = np.concatenate([[0.0], -np.expm1(2 * np.cumsum(np.log(b1)))])  # weight of m after t steps
        moment = linear_recursion(b1**2, (1 - b1) ** 2)
        memory = linear_recursion(a * b1, self.step * moment)
        previous = np.concatenate([[0.0], memory[:-1]])
        own = self.step**2 * moment
        cross = self.long_run * 2 * a * self.step * b1 * previous
        pull = lr * np.sqrt(self.long_run)  # the mean is dulled by the second moment's noise as the noise is
        self.drive = Drive(a, self.long_run * own + cross, cross, self.one_step * own, moment, memory, pull)

    def begin(self, t: int) -> None:
        """Take m and v to have followed a constant norm for t steps."""
        q = self._gradient(t - 1)
        self.m, self.v = q * self.seen[t], q * self.unseen[t - 1]

    def exact(self, t: int) -> tuple[Array, Array, Array]:
        """Take step t by the recursion of `adamw_trajectory`."""
        before, long_run, q = self.w, float(self.long_run[t]), self._gradient(t)
        step, betas = float(self.step[t]) * long_run**0.5, (float(self.b1[t]), float(self.b2[t]))
        unseen = float(self.unseen[t])
        lean, a = self._lean(before, q, (betas[1] * self.v + (1 - betas[1]) * q) / unseen), float(self.drive.shrink[t])
        self.w, self.x, self.m, self.v, update = adamw_moments_step(
            self.w, self.x, self.m, self.v, q, a, step, betas, unseen
        )
        if self.drive.source[t] == 0:
            return np.ones_like(self.w), np.ones_like(self.w), self.upright
        # the lean decays the weights, not what they share with m: a mean that momentum passes on moves with them
        kept = self.drive.leaning(t, lean) ** 2 * before
        self.w = kept + (self.w - a**2 * before) * self.growth_ratio
        growth = (self.w - a**2 * before) / self.drive.source[t]
        own = update * float(self.one_step[t]) / long_run / self.drive.update[t] * self.update_ratio
        return growth, own, self.upright

    def to_slow(self, t: int) -> None:
        """From here on m is an average of the gradients' second moments with weights that sum to one."""
        b1 = float(self.b1[t - 1])
        self.m, self.z = self.m * (1 + b1) / (1 - b1), np.ones_like(self.w)

    def to_exact(self, t: int) -> None:
        """Restore the moments that the slow description keeps implicitly."""
        b1 = float(self.b1[t - 1])
        share = (self.m / self.seen[t]) / np.sqrt(self.v / self.unseen[t - 1])
        self.x = -(float(self.long_run[t - 1]) ** 0.5) * self.drive.memory[t - 1] * share
        self.m = self.m * (1 - b1) / (1 + b1)

    def sums(self, start: int, stop: int, at: Indices) -> list[Array]:
        """Product of a^2 and sum of the source over each segment."""
        a, pull = self.drive.shrink[start:stop], np.asarray(self.drive.pull)[start:stop]
        return whole_segments(a**2, [self.drive.source[start:stop], self.drive.cross[start:stop], 2 * a * pull], at)

    def slow(self, t: int, count: int, sums: tuple[float, ...]) -> tuple[Array, Array, Array]:
        """Take `count` steps, f averaged between its ends, by fixed-point iteration on the norm at the end."""
        product, growth, cross, pull = sums
        b1, b2 = float(self.b1[t]), float(self.b2[t])
        b1_squared, q = b1**2, self._gradient(t)
        after, m, v, ratio = self.w, self.m, self.v, self.z**count
        next_v = average_step(v, b2, 1, q, q)
        first = self._share(average_step(m, b1_squared, 1, q, q), next_v, t + 1)
        lean = self._lean(self.w, q, next_v / self.unseen[t])
        for _ in range(2):
            m, v = average_step(self.m, b1_squared, count, q, ratio), average_step(self.v, b2, count, q, ratio)
            late = lag(b1, self._growth(ratio, v, t, count)) - 1
            drawn = self._lean(after, q * ratio, v / self.unseen[t + count - 1])
            after = (
                product * self.w
                + (growth + cross * late) * self.growth_ratio * 0.5 * (first + self._share(m, v, t + count))
                - pull * 0.5 * (lean * self.w + drawn * after)
            )
            ratio = ratio_of(self.w, after, self.scale_invariant)
        late = lag(b1, self._growth(ratio, v, t, count)) - 1
        before, a, source = self.w, self.drive.shrink[t], self.drive.source[t]
        self.w, self.m, self.v, self.z = after, m, v, ratio ** (1 / count)
        share, pulled = 0.0, 0.0
        if source > 0:
            share, pulled = self.drive.cross[t] / source, (self.drive.leaning(t, lean) ** 2 - a**2) * before / source
        return first * (1 + share * late) * self.growth_ratio + pulled, first * self.update_ratio, self.upright

    def _growth(self, ratio: Array, v: Array, t: int, count: int) -> Array:
        """Growth per step of a past update's weight in the momentum, E m^2 over the root of v."""
        unseen = self.unseen[t + count - 1] / self.unseen[t - 1]
        return (ratio / np.sqrt(v / self.v / unseen)) ** (1 / count)

    def _share(self, m: Array, v: Array, t: int) -> Array:
        return (m / self.seen[t]) / (v / self.unseen[t - 1])

    def _lean(self, w: Array, q: Array, v: Array) -> Array:
        """Decay by the radial gradient per unit rate, from E w^2, E g^2 and second moment of a coordinate."""
        return lean_of(self.radial, w, q / v)

    def _gradient(self, t: int) -> Array:
        """E g^2 of a coordinate in step t."""
        return self.noise[t] * inverse(self.w, self.scale_invariant)
