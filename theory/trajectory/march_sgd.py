"""SGD for the fast solver: f is the gradient's second moment, as the momentum buffer has averaged it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from theory.trajectory.march import Drive, inverse, lag, lean_of, ratio_of, whole_segments
from theory.trajectory.segments import Array, Indices, average_step, linear_recursion
from theory.trajectory.sgd import sgd_moments_step


def sgd_drive(lr: Array, shrink: Array, momentum: float = 0.0, dampening: float = 0.0) -> Drive | None:
    """Drive of SGD with heavy-ball momentum and coupled decay.

    With w_t = P_t W_t and P_{t+1} = alpha_t P_t the decayed run is one without decay (docs, "Equivalence"; Li & Arora,
    arXiv 1910.07454, for constant rates); there the growth of ||W||^2 is a plain sum over the gradients in the buffer.

    Args:
        lr: Learning rate per step, shape (T,).
        shrink: lr*weight_decay per step, shape (T,).
        momentum: Heavy-ball coefficient.
        dampening: Dampening.

    Returns:
        The drive, or None where the recursion oscillates (lr*weight_decay > (1-sqrt(momentum))^2) and has no slow root.
    """
    count = len(lr)
    if momentum == 0:
        a = 1 - shrink
        flat = np.zeros(count)
        return Drive(a, lr**2, flat, lr**2, np.ones(count), flat, lr) if np.all(a > 0) else None
    if np.any(lr[:-1] == 0):
        return None
    ratio = np.concatenate([[0.0], momentum * lr[1:] / lr[:-1]])
    damped = np.concatenate([[1.0], np.full(count - 1, 1 - dampening)])
    alpha, roots = 1.0, []
    for m, rho in zip(ratio.tolist(), (damped * shrink).tolist(), strict=True):
        alpha = 1 + m - rho - m / alpha
        if alpha <= 0:
            return None
        roots.append(alpha)
    a = np.array(roots)
    before = np.concatenate([[1.0], a[:-1]])
    buffer = linear_recursion((momentum / before) ** 2, damped**2)
    kicks = np.concatenate([[0.0], (lr * buffer / a)[:-1]])
    memory = linear_recursion(np.full(count, momentum), momentum * kicks)
    cross = 2 * lr * a * memory
    source = lr**2 * buffer + cross
    # to second order the pull for which more decay moves the equilibrium s/(1-a^2) as it should, by 1/weight_decay
    second = 1 + (1 - dampening) * shrink * momentum / (1 - momentum) ** 2
    pull = lr * linear_recursion(np.full(count, momentum), damped) * second
    return Drive(a, source, cross, lr**2 * buffer, buffer, memory, pull)


class SGDSystem:
    """Squared norms of n tensors under SGD.

    For scale-invariant tensors the square of w obeys a nearly linear recursion, y' = a^4 y + 2 a^2 s c2 + s^2 c2^2/y,
    which stays exact over segments much longer than the relaxation time.

    Args:
        drive: From `sgd_drive`.
        lr: Learning rate per step, shape (T,).
        shrink: lr*weight_decay per step, shape (T,).
        momentum: Heavy-ball coefficient.
        dampening: Dampening.
        start: Squared norm of each tensor at step 0, shape (n,).
        c2: Gradient second moment, on the unit sphere where scale-invariant, shape (n,).
        scale_invariant: Shape (n,).
        noise: Gradients' second moment of each step relative to `c2`, shape (T,).
        radial: Mean of <w,g>/(||w|| ||g||), shape (n,) or a number: further decay by radial*||g||/||w|| (law
            `radial_gradient`).
    """

    def __init__(
        self,
        drive: Drive,
        lr: Array,
        shrink: Array,
        momentum: float,
        dampening: float,
        start: Array,
        c2: Array,
        scale_invariant: NDArray[np.bool_],
        noise: Array | None = None,
        radial: Array | float = 0.0,
    ) -> None:
        self.noise = np.ones_like(lr) if noise is None else noise
        self.radial = radial + np.zeros_like(start)
        self.scatter = 1 - self.radial**2  # what is left of the gradient's mean square for the noise
        self.drive, self.lr, self.c2, self.scale_invariant = drive, lr, c2 * self.scatter, scale_invariant
        self.weight_decay = np.divide(shrink, lr, out=np.zeros_like(lr), where=lr > 0)
        self.momentum, self.damped = momentum, 1.0 - dampening if momentum else 1.0
        self.momentum_memory = 1 / (1 - momentum)
        self.w, self.x, self.b, self.average = start, *(np.zeros_like(start) for _ in range(3))
        self.z, self.before = np.ones_like(start), start

    def begin(self, t: int) -> None:
        """Take the buffer to have followed a constant norm for t steps."""
        self.average = (
            self.c2 * self.noise[t - 1] * inverse(self.w, self.scale_invariant) * (1 - self.momentum ** (2 * t))
        )

    def exact(self, t: int) -> tuple[Array, Array, Array]:
        """Take step t by the recursion of `sgd_trajectory`."""
        q, before = self.c2 * self.noise[t] * inverse(self.w, self.scale_invariant), self.w
        lean = self._lean(before, q)
        weights = (1.0, 0.0) if t == 0 else (self.damped, self.momentum)
        self.w, self.x, self.b, moved = sgd_moments_step(
            self.w, self.x, self.b, q, float(self.lr[t]), self.weight_decay[t] + lean, self.momentum, False, weights
        )
        self.average = average_step(self.average, self.momentum**2, 1, q, q)
        if self.drive.source[t] == 0:
            return q, q, lean
        growth = (self.w - self.drive.shrink[t] ** 2 * before) / self.drive.source[t]
        a = self.drive.leaning(t, lean)
        # the part of the step that `shrink` leaves, ||w' - a w||^2, from ||w'-w||^2, ||w||^2 and ||w'||^2
        rest = (1 - a) * self.w + a * moved - a * (1 - a) * before
        return growth, rest / self.drive.update[t], lean

    def to_slow(self, t: int) -> None:
        """Start from a constant norm."""
        self.z = np.ones_like(self.w)

    def to_exact(self, t: int) -> None:
        """Restore <w,b> and ||b||^2 from the twin's buffer: b = (1-alpha)/lr w + b~."""
        if self.momentum == 0:  # the buffer is forgotten at once
            return
        q = self.average / (1 - self.momentum ** (2 * t))
        a, lr = self.drive.leaning(t - 1, self._lean(self.w, q)), self.lr[t - 1]
        before = (self.w - self.drive.source[t - 1] * q) / a**2
        lean, cross = (1 - a) / lr, -self.drive.memory[t - 1] * q
        self.b = lean**2 * before + 2 * lean * cross + self.drive.buffer[t - 1] * q
        self.x = lean * before + cross - lr * self.b

    def sums(self, start: int, stop: int, at: Indices) -> list[Array]:
        """Sums for the linear recursion of w and for that of w^2."""
        a, s = self.drive.shrink[start:stop], self.drive.source[start:stop]
        c, p = self.drive.cross[start:stop], 2 * a * np.asarray(self.drive.pull)[start:stop]
        squares = [2 * a**2 * s, 2 * a**2 * c, s**2, 2 * a**2 * p]
        return whole_segments(a**2, [s, c, p], at) + whole_segments(a**4, squares, at)

    def slow(self, t: int, count: int, sums: tuple[float, ...]) -> tuple[Array, Array, Array]:
        """Take `count` steps at once, by fixed-point iteration on the norm at the end."""
        product, growth, cross, pull, product2, growth2, cross2, second, pull2 = sums
        si, mu2, c2 = self.scale_invariant, self.momentum**2, self.c2 * self.noise[t]
        q = c2 * inverse(self.w, si)
        lean = self._lean(self.w, q)
        first = average_step(self.average, mu2, 1, q, q) / (1 - mu2 ** (t + 1))
        after, mean, ratio = self.w, self.average, self.z**count
        for _ in range(2):
            mean = average_step(self.average, mu2, count, q, ratio)
            behind = mean / (1 - mu2 ** (t + count)) / np.where(q > 0, q * ratio ** (1 - 1 / count), 1.0)
            late = lag(self.momentum, ratio ** (1 / count)) - 1
            force = c2 * behind
            middle = np.where(self.w * after > 0, self.w * after, 1.0)
            drawn = 0.5 * (lean * self.w + self._lean(after, c2 * inverse(after, si)) * after)
            square = product2 * self.w**2 + force * (growth2 + cross2 * late) + force**2 * second / middle
            square -= pull2 * drawn * 0.5 * (self.w + after)
            after = np.where(si, np.sqrt(square), product * self.w + (growth + cross * late) * force - pull * drawn)
            ratio = ratio_of(self.w, after, si)
        late = lag(self.momentum, self.z) - 1
        before, a, source = self.w, self.drive.shrink[t], self.drive.source[t]
        self.w, self.average, self.z = after, mean, ratio ** (1 / count)
        share, pulled, kept = 0.0, 0.0, self.drive.leaning(t, lean)
        if source > 0:
            share, pulled = self.drive.cross[t] / source, (kept**2 - a**2) * before / source
        own = (1 - (self.momentum / a) ** 2) / np.maximum(1 - (self.momentum / kept) ** 2, 1e-3)  # memory in W
        return first * (1 + share * late) + pulled, first * (own if self.radial.any() else 1.0), lean

    def _lean(self, w: Array, q: Array) -> Array:
        """Decay by the radial gradient, from E||w||^2 and the noise's E||g||^2."""
        return lean_of(self.radial, w, q / self.scatter)
