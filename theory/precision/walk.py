"""The exact random walk of bfloat16 weights, as a Markov chain on their grid."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.special import gammaln, ndtr

from theory.errors import finite, require, whole
from theory.precision.bf16 import SIGNIFICANT_BITS, round_bf16, ulp
from theory.results import Array

REACH = 8.5
"""Standard deviations of a step beyond which a transition is left out (probability 2e-17)."""
GROWTH = 1e3
"""Sum of |T_k(P) state| up to which the Chebyshev sum is trusted: 1e-13 of rounding, 1e-6 of what is cut off."""


@dataclass(frozen=True)
class Bf16Walk:
    """Weights stored in bfloat16 after many steps of noise and decay."""

    rms: float
    """Root mean square of the weights, over the last 200 steps."""
    fraction_moving: float
    """Share of the weights that change in a step, over the last 200 steps."""


def bf16_walk(lr: float, weight_decay: float, steps: int, rms0: float, fused: bool) -> Bf16Walk:
    """Random walk of weights that are rounded to bfloat16 at every step: where decay is lost and where it stalls.

    Setting: w <- RN(a w - lr u) if `fused`, else RN(RN(a w) - lr u), a = 1 - lr*wd, u ~ N(0, 1) fresh at every step,
    RN to nearest. |w| is a Markov chain on the grid; its transition probabilities are normal cdf differences between
    midpoints, zero further than 8.5 lr. The grid's spacing has a floor of at most lr/32 (an error of 4e-5 in rms) and
    ends where no weight comes. P^n is applied as the average of Chebyshev polynomials, x^n = E T_|k|(x), k the end of
    a fair walk of n steps, of which |k| <= 6.5 sqrt(n) are needed: no matrix is squared. Where decay outruns noise the
    polynomials grow, and the steps are taken one by one, 0.2 ms each.
    Not fused, decay below lr*wd = 2^-9 is ignored altogether (`bf16_scale_survival`); fused, it survives while steps
    are above 0.4 ulp (`rounding_drift_gain`); either way the walk stalls where lr falls below 0.2 ulp.

    Source: derived here. Exact for this process; simulations of 8,192 weights 3.2 % (rms), 2 % (moving). Adam's
    momentum has no closed chain: use the RMS update in `rounding_diffusion` as an estimate.

    Args:
        lr: Learning rate; RMS of a step.
        weight_decay: Decoupled decay coefficient; lr*weight_decay < 1.
        steps: Number of steps.
        rms0: RMS of the weights at the start, normally distributed.
        fused: One rounding a step (torch's fused kernel) or one after the decay and one after the step.

    Returns:
        RMS of the weights and share of them that move.

    Raises:
        InputError: If an input is out of range.

    Example:
        >>> round(bf16_walk(0.01, 0.0, 1_000, 0.1, fused=True).rms, 2)
        0.32
    """
    shrink = finite("lr", lr) * finite("weight_decay", weight_decay)
    require(shrink < 1, "lr * weight_decay", shrink, "in [0, 1)")
    finite("rms0", rms0)
    count = whole("steps", steps)
    require(max(lr, rms0) < 1e30, "max(lr, rms0)", max(lr, rms0), "below 1e30, far from overflow")
    require(lr == 0 or lr >= 1e-30, "lr", lr, "0 or at least 1e-30, far from underflow")
    if lr == 0 or count == 0:
        return Bf16Walk(rms=rms0, fraction_moving=0.0)
    grid = _grid(lr, rms0, count)
    edges = np.append(0.5 * (grid[1:] + grid[:-1]), np.inf)
    chain, still = _transitions(grid, edges, lr, 1 - shrink, fused)
    inside = ndtr(edges / rms0) if rms0 > 0 else np.ones_like(edges)
    state = np.diff(2 * inside - 1, prepend=0.0)
    window = min(count, 200)
    state = _power(chain, state, count - window)
    square, moving = 0.0, 0.0
    for _ in range(window):
        moving += 1 - float(state @ still)
        state = chain @ state
        square += float(state @ grid**2)
    return Bf16Walk(rms=math.sqrt(square / window), fraction_moving=moving / window)


def _grid(lr: float, rms0: float, steps: int) -> Array:
    """Non-negative bfloat16 numbers with a floor on the spacing, up to where the walk cannot come."""
    floor = 2.0 ** math.floor(math.log2(lr / 32))
    # rounding inflates a step's variance by at most 1.31; beyond 2^12 lr steps are below 0.03 ulp and nothing moves
    top = 6 * rms0 + min(6 * math.sqrt(1.31 * steps), 2.0**12) * lr + REACH * lr
    binades = max(math.ceil(math.log2(top / floor)) - SIGNIFICANT_BITS, 0)
    half = 2 ** (SIGNIFICANT_BITS - 1)
    parts = [np.arange(2.0 * half) * floor]
    parts += [np.arange(half, 2.0 * half) * floor * 2.0 ** (i + 1) for i in range(binades)]
    return np.concatenate(parts)


def _transitions(grid: Array, edges: Array, lr: float, a: float, fused: bool) -> tuple[csr_array, Array]:
    """Matrix that takes the distribution of |w| one step on, and each state's probability to stay where it is."""
    mean = a * grid if fused else round_bf16(grid.astype(np.float32) * np.float32(a))
    below = np.append(0.0, edges[:-1])
    first = np.searchsorted(edges, mean - REACH * lr)
    last = np.searchsorted(edges, mean + REACH * lr) + 1
    rows, columns, values = [], [], []
    for i, (centre, lo, hi) in enumerate(zip(mean.tolist(), first.tolist(), last.tolist(), strict=True)):
        if centre < REACH * lr:
            lo = 0
        low, high = below[lo:hi] / lr, edges[lo:hi] / lr
        x = centre / lr
        probability = ndtr(high - x) - ndtr(low - x) + ndtr(high + x) - ndtr(low + x)
        rows.append(np.arange(lo, hi))
        columns.append(np.full(hi - lo, i))
        values.append(probability)
    data, row, column = np.concatenate(values), np.concatenate(rows), np.concatenate(columns)
    keep = data > 1e-17
    chain = csr_array((data[keep], (row[keep], column[keep])), shape=(len(grid), len(grid)))
    # the true spacing, which is finer than the grid's near zero and, at powers of two, half as wide below as above
    spacing = np.where(grid > 0, ulp(grid), 0.0)
    shorter = np.where(np.frexp(grid)[0] == 0.5, 0.5, 1.0) * spacing
    still = ndtr((grid + 0.5 * spacing - mean) / lr) - ndtr((grid - 0.5 * shorter - mean) / lr)
    return chain, still


def _power(chain: csr_array, state: Array, n: int) -> Array:
    """P^n applied to a state: sum over k of Pr(|fair walk of n steps| = k) T_k(P), T the Chebyshev polynomials.

    T_k(P) stays bounded for a diffusion. Where decay carries weights further in a step than noise does, it grows like
    (1+sqrt 2)^k, no sum survives that, and the steps are taken one by one.
    """
    reach = math.ceil(6.5 * math.sqrt(n))
    if reach >= n:
        return _one_by_one(chain, state, n)
    k = np.arange(n % 2, reach + 1, 2)
    up = (n + k) / 2
    weight = np.exp(gammaln(n + 1) - gammaln(up + 1) - gammaln(n - up + 1) - n * math.log(2)) * np.where(k > 0, 2, 1)
    share = dict(zip(k.tolist(), (weight / weight.sum()).tolist(), strict=True))
    older, newer = state, chain @ state
    total = share.get(0, 0.0) * older + share.get(1, 0.0) * newer
    for order in range(2, reach + 1):
        older, newer = newer, 2 * (chain @ newer) - older
        if np.abs(newer).sum() > GROWTH:
            return _one_by_one(chain, state, n)
        if order in share:
            total = total + share[order] * newer
    return total


def _one_by_one(chain: csr_array, state: Array, n: int) -> Array:
    """P^n applied to a state literally, or as many steps as change it (the rest would by less than n * 1e-14)."""
    for _ in range(n):
        new = chain @ state
        if np.abs(new - state).sum() < 1e-14:
            return new
        state = new
    return state
