"""Label noise near interpolation: the loss it sustains, the flatness it buys, the balance it restores."""

from __future__ import annotations

import math
import reprlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from theory.errors import InputError, finite, require, whole
from theory.results import Array


@dataclass(frozen=True)
class LabelNoiseExcess:
    """Training loss above the interpolating solution's."""

    excess: float
    """Unit of the loss."""


@dataclass(frozen=True)
class LabelNoiseBalance:
    """How far a two-layer scalar network has come to balance."""

    ratio: float
    """(u^2 - v^2) at the end over its value at the start, dimensionless."""


@dataclass(frozen=True)
class NoiseRegulariser:
    """Strength of the pull towards flat solutions."""

    coefficient: float
    """Coefficient of tr H in the effective loss L + coefficient * tr H."""


def label_noise_excess(eigenvalues: ArrayLike, lr: float, noise_variance: float, n: int) -> LabelNoiseExcess:
    """Stationary excess training loss of full-batch gradient descent under fresh label noise, squared loss.

    Setting: loss 1/2 mean (x.delta - eps)^2 over n samples, eps drawn anew at every step with variance sigma^2; Hessian
    eigenvalues h. The gradient noise has covariance sigma^2 H/n, so each mode is an AR(1) with variance
    lr sigma^2/(n(2 - lr h)) and excess = 1/2 sum_i lr sigma^2 h_i/(n(2 - lr h_i)). Leading order lr sigma^2 tr H/(4n),
    8 % low at lr*h_max = 0.2, 41 % at 1. Minibatches of B out of many samples: n -> B, plus the multiplicative noise of
    `least_squares_stationary`.

    Source: leading order Blanc et al., arXiv 1904.09080; exact form derived here. Exact (1e-8).

    Args:
        eigenvalues: Hessian eigenvalues h >= 0, shape (k,), loss per weight squared.
        lr: Learning rate; lr*max(h) < 2.
        noise_variance: sigma^2 of the labels, label squared.
        n: Number of samples in the batch.

    Returns:
        The excess loss.

    Raises:
        InputError: If an input is out of range or gradient descent is unstable.

    Example:
        >>> round(label_noise_excess([1.0], lr=1.0, noise_variance=1.0, n=2).excess, 6)
        0.25
    """
    h = vector("eigenvalues", eigenvalues)
    with np.errstate(over="ignore"):
        steepness = finite("lr", lr) * h
    require(bool(np.all(steepness < 2)), "lr * max(eigenvalues)", float(steepness.max()), "below 2 to be stable")
    modes = steepness / (2 - steepness)
    return LabelNoiseExcess(0.5 * finite("noise_variance", noise_variance) / whole("n", n, low=1) * float(modes.sum()))


def noise_regulariser(lr: float, batch_size: int, residual_variance: float) -> NoiseRegulariser:
    """Coefficient with which gradient noise penalises the trace of the Hessian near interpolation.

    Setting: squared loss 1/2 E r^2, small lr, a manifold of interpolating solutions. Noise of variance sigma^2 in the
    residuals lifts the loss by (lr sigma^2/4B) tr H (`label_noise_excess`); along the manifold the weights drift down
    that lift, d theta/step = -lr (lr sigma^2/4B) grad tr H, where tr H = ||J||_F^2 per sample. Coefficient
    lr sigma^2/(4B). Its rate is exact in `label_noise_balance`: tr H = u^2+v^2 gives d(u^2-v^2)/step = -lr^2 sigma^2.

    Source: Blanc et al., arXiv 1904.09080; HaoChen et al., arXiv 2006.08680; Damian et al., arXiv 2106.06530; Li et
    al., arXiv 2110.06914. Leading order in lr, an explanation rather than a prediction for trained networks.

    Args:
        lr: Learning rate; on scale-invariant weights the effective one, lr/((1-momentum)*norm^2).
        batch_size: Samples per step B.
        residual_variance: sigma^2, mean squared residual that the noise sustains (about 2L for loss L = 1/2 E r^2).

    Returns:
        The coefficient of tr H.

    Raises:
        InputError: If an input is out of range.

    Example:
        >>> noise_regulariser(0.1, 1, 4.0).coefficient
        0.1
    """
    variance = finite("residual_variance", residual_variance)
    return NoiseRegulariser(finite("lr", lr) * variance / (4 * whole("batch_size", batch_size, low=1)))


def label_noise_balance(lr: float, weight_decay: float, mean_square_residual: float, steps: int) -> LabelNoiseBalance:
    """How fast noise and decay balance the two layers of f = u*v, the flattest factorisation.

    Setting: loss 1/2 (uv - y - eps)^2, coupled decay, plain gradient descent, residual r = uv - y - eps. One step is
    u' = a u - lr r v, v' = a v - lr r u with a = 1 - lr*wd, so (u^2-v^2)' = (a^2 - lr^2 r^2)(u^2-v^2) exactly, and
    ratio = (a^2 - lr^2 <r^2>)^steps with the measured mean square residual <r^2>.

    Source: derived here. The step is exact; the mean assumes r_t^2 uncorrelated over time. Of one run the ratio is
    lower by the spread of r^2, about steps * lr^4 Var(r^2)/2. Accuracy 1 %; sigma^2 in place of <r^2> is 3 to 14 % off,
    because noise keeps uv - y moving.

    Args:
        lr: Learning rate.
        weight_decay: L2 coefficient; lr*weight_decay < 1.
        mean_square_residual: <r^2>, label squared; lr^2 <r^2> < a^2.
        steps: Number of steps.

    Returns:
        The remaining fraction of u^2 - v^2.

    Raises:
        InputError: If an input is out of range.

    Example:
        >>> round(label_noise_balance(0.1, 0.0, 1.0, steps=100).ratio, 4)
        0.366
    """
    shrink = finite("lr", lr) * finite("weight_decay", weight_decay)
    require(shrink < 1, "lr * weight_decay", shrink, "in [0, 1)")
    kick = lr * math.sqrt(finite("mean_square_residual", mean_square_residual))
    factor = (1 - shrink - kick) * (1 - shrink + kick)
    allowed = "smaller: lr^2 * mean_square_residual must be below (1 - lr*weight_decay)^2"
    require(factor > 0, "mean_square_residual", mean_square_residual, allowed)
    return LabelNoiseBalance(factor ** whole("steps", steps))


def vector(field: str, values: ArrayLike, *, signed: bool = False) -> Array:
    """A list of numbers, checked: Hessian eigenvalues, or weights in their basis.

    Args:
        field: Name of the argument.
        values: Finite numbers, >= 0 unless signed; shape (k,).
        signed: Whether they may be negative.

    Returns:
        Them as float64, shape (k,).

    Raises:
        InputError: If there are none, or one is no such number.

    Example:
        >>> vector("eigenvalues", [1, 2]).tolist()
        [1.0, 2.0]
    """
    try:
        numbers = np.atleast_1d(np.asarray(values, dtype=np.float64))
    except (TypeError, ValueError):
        numbers = np.empty(0)
    fine = numbers.ndim == 1 and len(numbers) > 0 and bool(np.all(np.isfinite(numbers)))
    if not fine or (not signed and np.any(numbers < 0)):
        allowed = f"a non-empty list of finite numbers{'' if signed else ' >= 0'}"
        raise InputError(f"{field} = {reprlib.repr(values)} is not allowed: it must be {allowed}.")
    return numbers
