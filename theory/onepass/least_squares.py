"""SGD on fresh Gaussian data: excess risk of the last and of the averaged iterate, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from theory.errors import InputError, finite, require, whole
from theory.overtraining.label_noise import vector
from theory.results import Array
from theory.trajectory.rates import Rates, learning_rates, reported


@dataclass(frozen=True)
class LeastSquaresTrajectory:
    """Expected excess risk after each listed step."""

    step: NDArray[np.int64]
    """Step indices, shape (n,)."""
    excess: Array
    """1/2 E|x.(w-w*)|^2 of the last iterate, label squared, shape (n,)."""
    excess_average: Array
    """The same of the mean of all iterates so far (without the initial one), shape (n,)."""


@dataclass(frozen=True)
class BiasVariance:
    """Excess risk split into what is left of the start and of decay, and what the labels' noise adds."""

    step: NDArray[np.int64]
    """Step indices, shape (n,)."""
    bias: Array
    """Excess of the last iterate without label noise, shape (n,)."""
    variance: Array
    """Excess of the last iterate for w* = 0, shape (n,); bias + variance is the whole."""
    bias_average: Array
    """As `bias`, of the averaged iterate, shape (n,)."""
    variance_average: Array
    """As `variance`, of the averaged iterate, shape (n,)."""


@dataclass(frozen=True)
class LeastSquaresStationary:
    """Where the excess risk settles."""

    excess: float
    """1/2 E|x.(w-w*)|^2, label squared."""


def least_squares_trajectory(
    eigenvalues: ArrayLike,
    schedule: Rates,
    weight_decay: float,
    w_star: ArrayLike,
    noise_variance: float,
    batch_size: int,
    steps: Sequence[int] | None = None,
) -> LeastSquaresTrajectory:
    """Exact expected excess risk of one-pass SGD with decay on Gaussian least squares, from w = 0.

    Setting: y = w*.x + xi, x ~ N(0, H), fresh batches of B, w <- w - lr(g + wd*w). In the eigenbasis of H the mean m_i
    and variance V_i of delta = w - w* close, because E[x x'Dx x'] = 2HDH + H tr(HD): with q = 1 - lr(h+wd),
    C = m^2 + V and T = sum h C, m' = q m - lr wd w*, V' = q^2 V + lr^2 h (h C + T + sigma^2)/B and excess = T/2;
    the average of the iterates needs Cov(S, delta) and Var S of their sum S besides.

    Source: Dieuleveut & Bach, arXiv 1408.0361; Zou et al., arXiv 2103.12692; recursion derived here. Exact (1e-8).

    Args:
        eigenvalues: h >= 0 of the inputs' covariance, shape (d,), input squared.
        schedule: Learning rates, or a mapping with `kind`, `peak`, `steps` (see `learning_rates`).
        weight_decay: L2 coefficient.
        w_star: True weights in the eigenbasis, shape (d,).
        noise_variance: sigma^2 of the labels, label squared.
        batch_size: Samples per step B.
        steps: Step indices to report; all if None.

    Returns:
        Excess of the last and of the averaged iterate after each listed step, label squared.

    Raises:
        InputError: If an input is out of range or the risk overflows (learning rate too large).

    Example:
        >>> run = least_squares_trajectory([1.0, 0.1], [0.5] * 100, 0.0, [1.0, 1.0], 0.01, batch_size=8)
        >>> run.excess[[0, 99]].round(4).tolist()
        [0.2033, 0.0002]
    """
    h, target = vector("eigenvalues", eigenvalues), vector("w_star", w_star, signed=True)
    require(len(target) == len(h), "len(w_star)", len(target), f"{len(h)}, one number for each eigenvalue")
    rates = learning_rates(schedule)
    wd, noise = finite("weight_decay", weight_decay), finite("noise_variance", noise_variance)
    batch, listed = whole("batch_size", batch_size, low=1), reported(steps, len(rates))
    mean, mean_sum = -target, np.zeros_like(h)
    spread, cross, spread_sum = np.zeros_like(h), np.zeros_like(h), np.zeros_like(h)
    last, averaged = np.empty(len(rates)), np.empty(len(rates))
    with np.errstate(over="ignore", invalid="ignore"):
        for t, lr in enumerate(rates):
            q = 1 - lr * wd - lr * h
            second = mean**2 + spread
            cross = q * cross  # Cov(S_t, delta_{t+1})
            spread = q**2 * spread + lr**2 * h * (h * second + h @ second + noise) / batch
            mean = q * mean - lr * wd * target
            mean_sum, spread_sum, cross = mean_sum + mean, spread_sum + 2 * cross + spread, cross + spread
            last[t] = 0.5 * h @ (mean**2 + spread)
            averaged[t] = 0.5 * h @ (mean_sum**2 + spread_sum) / (t + 1) ** 2
    lost = np.flatnonzero(~(np.isfinite(last) & np.isfinite(averaged)))
    if len(lost):
        raise InputError(f"the risk overflows at step {lost[0]}: the learning rate must be smaller to be stable.")
    return LeastSquaresTrajectory(step=listed, excess=last[listed], excess_average=averaged[listed])


def bias_variance(
    eigenvalues: ArrayLike,
    schedule: Rates,
    weight_decay: float,
    w_star: ArrayLike,
    noise_variance: float,
    batch_size: int,
    steps: Sequence[int] | None = None,
) -> BiasVariance:
    """Excess risk of `least_squares_trajectory` split into bias (no label noise) and variance (w* = 0).

    The second moments are linear in (w* w*', sigma^2), so the two add up exactly. Bias decays about as
    prod (1 - lr_t(h+wd))^2 down to the ridge bias wd*w*/(h+wd); variance is what constant rates sustain and what
    decaying them, or averaging, removes.

    Source: as `least_squares_trajectory`. Exact (1e-8).

    Args:
        eigenvalues: h >= 0 of the inputs' covariance, shape (d,), input squared.
        schedule: Learning rates, or a mapping with `kind`, `peak`, `steps` (see `learning_rates`).
        weight_decay: L2 coefficient.
        w_star: True weights in the eigenbasis, shape (d,).
        noise_variance: sigma^2 of the labels, label squared.
        batch_size: Samples per step B.
        steps: Step indices to report; all if None.

    Returns:
        Bias and variance of the last and of the averaged iterate after each listed step, label squared.

    Raises:
        InputError: If an input is out of range or the risk overflows (learning rate too large).

    Example:
        >>> parts = bias_variance([1.0, 0.1], [0.5] * 100, 0.0, [1.0, 1.0], 0.01, batch_size=8, steps=[99])
        >>> [round(float(part[0]), 6) for part in (parts.bias, parts.variance)]
        [2e-06, 0.000245]
    """
    finite("noise_variance", noise_variance)
    noiseless = least_squares_trajectory(eigenvalues, schedule, weight_decay, w_star, 0.0, batch_size, steps)
    nothing = np.zeros_like(np.asarray(w_star, dtype=np.float64))
    pure = least_squares_trajectory(eigenvalues, schedule, weight_decay, nothing, noise_variance, batch_size, steps)
    return BiasVariance(noiseless.step, noiseless.excess, pure.excess, noiseless.excess_average, pure.excess_average)


def least_squares_stationary(
    eigenvalues: ArrayLike, lr: float, noise_variance: float, batch_size: int
) -> LeastSquaresStationary:
    """Stationary excess risk of one-pass SGD without decay on Gaussian least squares at constant learning rate.

    With S = sum_i (lr h_i/B)/(2 - lr h_i(1+1/B)) the fixed point of `least_squares_trajectory` is
    excess = 1/2 sigma^2 S/(1-S). The rule lr sigma^2 tr H/(4B) is low, for B = 1 by 5 % (many equal eigenvalues) to
    15 % (one) at lr*tr H = 0.1 and by 25 to 75 % at 0.5. Stable iff S < 1 and lr*h_max(1+1/B) < 2; elsewhere the
    recursion diverges and the formula has no meaning (it can even be negative). Momentum: lr -> lr/(1-momentum) to
    leading order.

    Source: derived here. Exact (1e-9); Monte-Carlo 2 %.

    Args:
        eigenvalues: h >= 0 of the inputs' covariance, shape (d,), input squared.
        lr: Learning rate.
        noise_variance: sigma^2 of the labels, label squared.
        batch_size: Samples per step B.

    Returns:
        The excess risk, label squared.

    Raises:
        InputError: If an input is out of range or SGD is unstable.

    Example:
        >>> round(least_squares_stationary([1.0], lr=0.1, noise_variance=1.0, batch_size=1).excess, 6)
        0.029412
    """
    batch = whole("batch_size", batch_size, low=1)
    with np.errstate(over="ignore"):
        steepness = finite("lr", lr) * vector("eigenvalues", eigenvalues)
    margin = 2 - steepness * (1 + 1 / batch)
    s = float(np.sum(steepness / batch / margin)) if np.all(margin > 0) else np.inf
    require(s < 1, "lr", lr, f"smaller: it is unstable with these eigenvalues and batch_size = {batch}")
    return LeastSquaresStationary(0.5 * finite("noise_variance", noise_variance) * s / (1 - s))
