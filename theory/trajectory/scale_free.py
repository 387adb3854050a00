"""Optimizers whose step forgets the size of the gradients (Lion, Signum, normalised momentum, Muon, fixed norm).

The correlation of two updates is then a function of that of what is normalised, p = A m + B g, and the mean square of
the weights obeys w' = a^2 w + 2 a h M + h^2 C_0 with M_t = sum_k C_k h_{t-k} a_{t-k+1}..a_{t-1}: linear, and exact
under any schedule, once the momentum has filled up. While it fills, and gradients of scale-invariant weights change
with their norm, the correlations are followed from step to step (`filling`). Left out: norms that change much within
one memory of the momentum later in the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.signal import oaconvolve

from theory.equilibrium.muon import adjusted_lr, mode_energies
from theory.equilibrium.sign import arcsine, momentum_correlation
from theory.errors import InputError
from theory.optimizers import Hyperball, Lion, Muon, NormalizedMomentum, ScaleFree
from theory.results import Array
from theory.trajectory.march import Drive, Path, inverse
from theory.trajectory.segments import segment_sums

FORGOTTEN = 1e-10
"""Correlation of updates at which the momentum's memory is cut off."""
FILLING = 5
"""Memories of the momentum after which it counts as full, ..."""
LONGEST_FILLING = 1_000
"""... and the most steps spent on it."""
BLOCK_DECAY = 10.0
"""Log of the decay within one block of the convolution; rounding grows with its exponential."""
SEGMENT_DECAY = 3.0
"""Log of the decay of a mean square between two nodes of a path, whose sums are differences of larger ones."""


@dataclass(frozen=True)
class UpdateLaw:
    """White-noise correlations of one tensor's update: u = phi(A m + B g), then m <- beta m + (1-beta) g."""

    past: float
    """A, weight of the memory."""
    present: float
    """B, weight of the present gradient."""
    beta: float
    """Memory per step."""
    energy: float
    """C_0 = E||u||^2, in units of lr."""
    transfer: Callable[[Array], Array]
    """Correlation of u given that of A m + B g."""

    @property
    def lags(self) -> int:
        """Number of lags after which the momentum has forgotten, at least 1."""
        return 1 if self.beta == 0 else max(1, math.ceil(math.log(FORGOTTEN) / math.log(self.beta)))

    def autocovariance(self) -> Array:
        """C_0, C_1, .. of a full momentum, shape (K+1,)."""
        first = momentum_correlation(self.past, self.present, self.beta)
        rho = first * np.power(self.beta, np.arange(self.lags, dtype=np.float64))
        return self.energy * np.concatenate([[1.0], self.transfer(rho)])


def update_law(optimizer: ScaleFree, shape: tuple[int, ...]) -> UpdateLaw:
    """What an optimizer's update looks like under white gradient noise.

    Args:
        optimizer: The optimizer.
        shape: Shape of the tensor.

    Returns:
        The law, summed over coordinates and with Muon's adjustment of lr.

    Raises:
        InputError: If the optimizer does not take tensors of that shape.

    Example:
        >>> update_law(NormalizedMomentum(lr=0.1, momentum=0.5), (8,)).autocovariance()[:3].tolist()
        [1.0, 0.5, 0.25]
    """
    if isinstance(optimizer, Lion):
        past, beta = optimizer.betas
        return UpdateLaw(past, 1 - past, beta, math.prod(shape), _arcsine)
    beta = optimizer.momentum
    if isinstance(optimizer, Muon):
        if len(shape) != 2:
            raise InputError(f"shape = {shape} is not allowed: Muon takes matrices, it must have two dimensions.")
        past = beta**2 if optimizer.nesterov else beta
        energy, transfer = _orthogonalised(*shape, optimizer.ns_steps)
        energy *= min(shape) * adjusted_lr(optimizer.adjust_lr_fn, *shape) ** 2
        return UpdateLaw(past, 1 - past, beta, energy, transfer)
    if isinstance(optimizer, NormalizedMomentum):
        return UpdateLaw(beta, 1 - beta, beta, 1.0, lambda rho: rho)
    return UpdateLaw(beta, 1 - beta, beta, math.prod(shape), _arcsine)


def _arcsine(rho: Array) -> Array:
    return np.asarray(arcsine(np.clip(rho, -1.0, 1.0)).correlation)


@lru_cache(maxsize=64)
def _orthogonalised(rows: int, columns: int, ns_steps: int | None) -> tuple[float, Callable[[Array], Array]]:
    """Energy per singular value and transfer of Newton-Schulz, tabulated densely near full correlation."""
    energies = mode_energies(rows, columns, ns_steps)
    rho = 1 - np.linspace(1, 0, 4097) ** 3
    table = rho * np.polynomial.polynomial.polyval(rho**2, energies) / energies.sum()
    return float(energies.sum()), lambda x: np.interp(x, rho, table)


def updates_in_weights(lr: Array, shrink: Array, autocovariance: Array) -> Array:
    """M_t = -E<w_t, u_t>: what of the weights the momentum still repeats, at every step of any schedule.

    Args:
        lr: Learning rate per step, shape (T,).
        shrink: Decay per step, in [0, 1), shape (T,).
        autocovariance: C_0, C_1, .. C_K of the update, shape (K+1,).

    Returns:
        Shape (T,).

    Example:
        >>> updates_in_weights(np.ones(3), np.zeros(3), np.array([1.0, 0.5])).tolist()
        [0.0, 0.5, 0.5]
    """
    log = np.concatenate([[0.0], np.cumsum(np.log1p(-shrink))])  # of the decay before each step
    reach, out = len(autocovariance) - 1, np.zeros(len(lr))
    begin = 0
    while reach and begin < len(lr):
        end = max(begin + 1, int(np.searchsorted(-log, BLOCK_DECAY - log[begin], side="right")) - 1)
        end, past = min(end, len(lr)), max(0, begin - reach)
        kicks = lr[past : end - 1] * np.exp(np.clip(log[begin] - log[past + 1 : end], -700.0, None))
        if len(kicks):
            sums = oaconvolve(kicks, autocovariance[1:])[: len(kicks)]  # sums[i] belongs to step past + 1 + i
            first = max(begin, past + 1)
            out[first:end] = sums[first - past - 1 :] * np.exp(log[first:end] - log[begin])
        begin = end
    return out


def filling(law: UpdateLaw, lr: Array, shrink: Array, w: Array, scale_invariant: NDArray[np.bool_]) -> Array:
    """Squared norms while the momentum fills up from zero, correlations of all pairs of updates followed.

    E p_t p_s = A beta^(t-1-s) N_s for s < t, with E m^2 = M, N_s = A beta M_{s-1} + B (1-beta) q_s and
    E p_s^2 = A^2 M_{s-1} + B^2 q_s; q is the gradients' second moment, 1/w where scale-invariant.

    Args:
        law: Of the update.
        lr: Learning rates, shape (n,).
        shrink: Decay of each step, shape (n,).
        w: Squared norms at the start, shape (k,).
        scale_invariant: Shape (k,).

    Returns:
        Squared norms before the first and after every step, shape (n+1, k).
    """
    beta, count = law.beta, len(lr)
    squares, moment = [w], np.zeros_like(w)
    own, size = np.empty((count, len(w))), np.empty((count, len(w)))
    for t, (h, lost) in enumerate(zip(lr.tolist(), shrink.tolist(), strict=True)):
        q = inverse(w, scale_invariant)
        own[t] = law.past * beta * moment + law.present * (1 - beta) * q
        size[t] = law.past**2 * moment + law.present**2 * q
        moment = beta**2 * moment + (1 - beta) ** 2 * q
        begin = max(0, t - law.lags)
        back = np.arange(t - begin, 0, -1) - 1.0
        rho = law.past * np.power(beta, back)[:, None] * own[begin:t] / np.sqrt(size[begin:t] * size[t])
        kept = np.cumprod(np.concatenate([1 - shrink[begin + 1 : t], [1.0]])[::-1])[::-1][: t - begin]
        memory = law.energy * np.sum((lr[begin:t] * kept)[:, None] * law.transfer(rho), axis=0)
        a = 1 - lost
        w = a * a * w + 2 * a * h * memory + h * h * law.energy
        squares.append(w)
    return np.array(squares)


def scale_free_path(
    lr: Array,
    shrink: Array,
    law: UpdateLaw,
    square0: Array,
    scale_invariant: NDArray[np.bool_],
    start: int = 0,
    growth_ratio: Array | float = 1.0,
    update_ratio: Array | float = 1.0,
) -> Path:
    """Squared norms of n tensors with the same updates under any schedule.

    Args:
        lr: Learning rate per step, shape (T,).
        shrink: Decay per step, in [0, 1), shape (T,).
        law: Of the update.
        square0: Squared norm of each tensor before step `start`, shape (n,).
        scale_invariant: Which tensors' gradients shrink as their norm grows, shape (n,).
        start: First step.
        growth_ratio: Measured over predicted growth, shape (n,) or a number.
        update_ratio: Measured over predicted mean square of the update, shape (n,) or a number.

    Returns:
        The path.

    Example:
        >>> law = UpdateLaw(0.0, 1.0, 0.0, 1.0, lambda rho: rho)
        >>> path = scale_free_path(np.full(2, 0.5), np.zeros(2), law, np.array([1.0]), np.array([False]))
        >>> path.mean_square[-1].tolist()
        [1.5]
    """
    a, steps = 1 - shrink, len(lr)
    memory = updates_in_weights(lr, shrink, law.autocovariance())
    own, cross = lr**2 * law.energy, 2 * a * lr * memory
    drive = Drive(a, own + cross, cross, own, np.ones_like(lr), memory)
    full = 0 if start or law.past == 0 else min(steps, LONGEST_FILLING, math.ceil(FILLING / (1 - law.beta)))
    squares = list(filling(law, lr[:full], shrink[:full], square0, scale_invariant)) if full else [square0]
    begin = start + full
    decay = np.concatenate([[0.0], np.cumsum(-2 * np.log1p(-shrink[begin:]))])
    pieces = np.arange(1, max(1, math.ceil(decay[-1] / SEGMENT_DECAY))) * SEGMENT_DECAY
    at = np.unique(np.concatenate([[0], np.searchsorted(decay, pieces), [steps - begin]])).astype(np.int64)
    products, (sums,) = segment_sums(a[begin:] ** 2, [drive.source[begin:]], at) if begin < steps else ([], ([],))
    if full:
        growth = np.diff(squares, axis=0) + (1 - a[:full, None] ** 2) * np.array(squares[:-1])
        early = np.where(
            drive.source[:full, None] > 0, growth / np.where(own[:full] > 0, drive.source[:full], 1)[:, None], 1.0
        )
        kept = [square0]
        for t in range(full):  # a measured ratio scales the growth of the filling too
            kept.append(a[t] ** 2 * kept[-1] + growth[t] * growth_ratio)
        squares = kept
    else:
        early = np.empty((0, len(square0)))
    for product, grown in zip(products, sums, strict=True):
        squares.append(product * squares[-1] + grown * growth_ratio)
    nodes = np.concatenate([np.arange(start, begin), begin + at])
    factors = np.concatenate([early, np.ones((len(nodes) - full, len(square0)))])
    return Path(nodes, np.array(squares), factors * growth_ratio, np.ones_like(factors) * update_ratio, drive)


def fixed_norm_path(optimizer: Hyperball, lr: Array, square0: Array, start: int = 0) -> Path:
    """Tensors that are projected back to their initial norm after every step.

    The projection is a decay of its own: with norm 1 and M_t = -<w_t, u_t>, a_t = (1 + 2 h M_t + h^2)^(-1/2) and
    M_{t+1} = beta a_t (M_t + h_t).

    Args:
        optimizer: The optimizer.
        lr: Learning rate per step, shape (T,).
        square0: Squared norm of each tensor, shape (n,).
        start: First step.

    Returns:
        The path.

    Example:
        >>> path = fixed_norm_path(Hyperball(lr=0.1, momentum=0.0), np.full(9, 0.1), np.array([4.0]))
        >>> path.mean_square[-1].tolist(), path.steps(np.array([8]))[1].round(4).tolist()
        ([4.0], [[0.0997]])
    """
    beta, memory, factors, memories = optimizer.momentum, 0.0, [], []
    for h in lr.tolist():
        factor = 1 / math.sqrt(1 + 2 * h * memory + h * h)
        memories.append(memory)
        factors.append(factor)
        memory = beta * factor * (memory + h)
    a = np.array(factors)
    drive = Drive(a, 1 - a**2, np.zeros_like(a), (a * lr) ** 2, np.ones_like(a), np.array(memories))
    at = np.array([*range(start, len(lr), max(1, len(lr) // 200)), len(lr)])
    squares = np.repeat(square0[None], len(at), axis=0)
    return Path(at, squares, squares, squares, drive)
