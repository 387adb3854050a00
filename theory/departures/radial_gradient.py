"""A gradient that leans on the weights: a tiny mean of <w,g>, integrated over a run."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq

from theory.errors import finite, require

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RadialGradient:
    """Size of the weights, and the decay that the radial gradient amounts to."""

    size: Array
    """Norm in the law's unit, after each of the steps; the equilibrium's (infinite if there is none) without steps."""
    norm_ratio: Array
    """Norm over that without a radial gradient."""
    extra_decay: Array
    """radial/size: the weight decay that would do the same, negative for gradients that push outwards."""
    law: str = "radial_gradient"
    """Name of the law that gave it."""


def equilibrium_size(radial: float, lr: float, weight_decay: float, long_run: float = 1.0) -> float:
    """Positive root of weight_decay x^2 + radial x = lr long_run/2, without cancellation.

    Args:
        radial: As in `radial_gradient`.
        lr: Learning rate.
        weight_decay: Decay coefficient.
        long_run: Long-run variance.

    Returns:
        The size at which the norm stands still; infinite if nothing holds the weights back.

    Example:
        >>> round(equilibrium_size(0.0, lr=0.02, weight_decay=1.0), 6)
        0.1
    """
    drive = lr * long_run
    root = math.sqrt(radial**2 + 2 * weight_decay * drive)
    if radial >= 0:
        return drive / (radial + root) if radial + root > 0 else 0.0 if lr == 0 else math.inf
    return (root - radial) / (2 * weight_decay) if weight_decay > 0 else math.inf


def radial_gradient(
    radial: float,
    lr: float,
    weight_decay: float,
    long_run: float = 1.0,
    *,
    size0: float | None = None,
    steps: ArrayLike | None = None,
    scale_invariant_sgd: bool = False,
) -> RadialGradient:
    r"""What a mean radial gradient rho = E<w,g>/(||w|| ||g||) does to the norm, at constant rates.

    Setting: gradients of homogeneous noise plus rho ||g|| w/||w||. The noise moves the weights by its long-run
    variance; the radial part points the same way at every step, so that momentum (an average with weights that sum to
    one, or for SGD to 1/(1-momentum)) passes it whole, and Adam's normalisation makes it lr rho sqrt(d). In the size

    - x = ||w||/sqrt(d) for AdamW (long_run = S of `second_moment_corrections`, for correlated gradients times the
      probe's long_run_ratio; lr sqrt(S) takes the place of lr next to rho, a change of O(1-beta2)),
    - x = ||w||/||g|| for SGD with gradients of fixed size, and
    - x = ||w||^2/sqrt(c2) for SGD on weights whose gradients are c/||w|| (`scale_invariant_sgd`: twice as fast);
      SGD with momentum: lr kappa/(1-momentum) for lr,

    dx/dt = -lr wd x - lr rho + lr^2 S/(2x): a decay by rho/x more. Equilibrium: wd x^2 + rho x = lr S/2,
    x/x(rho=0) = sqrt(1+z^2) - z with z = rho/sqrt(2 lr wd S): what counts is rho against sqrt(2 lr wd), the
    angle of the equilibrium without momentum. For lr wd = 1e-3 rho = +-0.02 is a factor 1.5. A positive rho gives
    even an undecayed run an equilibrium, x = lr S/(2 rho); a negative one lets it grow linearly. The rotation is that
    of the decay wd + rho/x, so angles change by 1/norm_ratio. In between the solution is implicit, with the roots
    x1 > 0 > -q of the equilibrium:
    lr sqrt(rho^2 + 2 lr wd S) t = x1 s + q ln((x0+q)/(x+q)), s = ln((x0-x1)/(x-x1)).

    Source: derived here. Exact for the differential equation (1e-9); against the optimizers the norm within 1 % for
    lr wd <= 1e-3 and lr rho/x <= 1e-3. Adam divides each coordinate by its own scale: where those differ, measure rho
    after that division. Schedules: `adamw_trajectory` and `sgd_trajectory` take `radial`; so does `predict`.

    Args:
        radial: rho, in (-1, 1); positive for gradients whose descent shrinks the weights.
        lr: Learning rate (SGD with momentum: lr (1-dampening)/(1-momentum)).
        weight_decay: Decay coefficient.
        long_run: Long-run variance of the normalised gradient's noise; 1 for SGD.
        size0: Size before the first step; with `steps`.
        steps: Numbers of steps done, >= 0, shape (n,); without it the equilibrium is returned.
        scale_invariant_sgd: Weights under SGD whose gradients shrink as 1/||w||.

    Returns:
        Size, ratio to the size without a radial gradient, and the equivalent decay, each of shape (n,) or ().

    Raises:
        InputError: If an argument is out of range or only one of size0 and steps is given.

    Example:
        >>> round(radial_gradient(0.02, lr=0.01, weight_decay=0.1).norm_ratio.item(), 2)
        0.65
    """
    require(finite("radial", radial, low=-1.0, high=1.0) > -1, "radial", radial, "a cosine in (-1, 1)")
    lr, weight_decay = finite("lr", lr), finite("weight_decay", weight_decay)
    require(finite("long_run", long_run) > 0, "long_run", long_run, "a positive number")
    require((size0 is None) == (steps is None), "size0, steps", (size0, steps), "given together or not at all")
    if size0 is None:
        size, plain = (np.array(equilibrium_size(rho, lr, weight_decay, long_run)) for rho in (radial, 0.0))
        if weight_decay == 0:  # nothing to compare with
            plain = np.array(math.inf)
    else:
        require(finite("size0", size0) > 0, "size0", size0, "a positive number")
        at = np.asarray(steps, dtype=np.float64)
        require(bool(np.all(np.isfinite(at) & (at >= 0))), "steps", steps, "finite numbers >= 0")
        pace = 2.0 if scale_invariant_sgd else 1.0
        size, plain = (
            np.array([_size_after(pace * t, rho, lr, weight_decay, long_run, size0) for t in at.ravel().tolist()])
            for rho in (radial, 0.0)
        )
        size, plain = size.reshape(at.shape), plain.reshape(at.shape)
    with np.errstate(invalid="ignore"):
        ratio = np.where(np.isinf(plain) & np.isinf(size), np.nan, size / plain)
    power = 0.5 if scale_invariant_sgd else 1.0
    extra = radial / np.where(size > 0, size, np.inf)
    return RadialGradient(size=size, norm_ratio=np.asarray(ratio**power), extra_decay=np.asarray(extra))


def _size_after(t: float, rho: float, lr: float, decay: float, long_run: float, start: float) -> float:
    """Solve dx/dt = -lr decay x - lr rho + lr^2 long_run/(2x) by the inverse of its closed form t(x)."""
    if t == 0 or lr == 0:
        return start
    spread = math.sqrt(rho**2 + 2 * lr * decay * long_run)
    if spread == 0:
        return math.sqrt(start**2 + lr**2 * long_run * t)
    stop, q = (equilibrium_size(r, lr, decay, long_run) for r in (rho, -rho))
    if math.isinf(stop):  # grows for ever: lr|rho| t = x - x0 - q ln((x+q)/(x0+q))
        grown = lambda x: x - start - q * math.log1p((x - start) / (start + q)) - lr * spread * t
        return brentq(grown, start, start + lr * spread * t + q + 4 * lr * math.sqrt(long_run * t), xtol=1e-300)
    if start == stop:
        return stop

    def late(s: float) -> float:
        gone = (start - stop) * -math.expm1(-s)
        memory = gone if math.isinf(q) else q * math.log1p(gone / (start - gone + q))
        return stop * s + memory - lr * spread * t

    high = (lr * spread * t + max(stop - start, 0.0) + abs(start - stop)) / stop + 1.0
    while late(high) < 0:
        high *= 2
    return start - (start - stop) * -math.expm1(-brentq(late, 0.0, high, xtol=1e-300, rtol=1e-14))
