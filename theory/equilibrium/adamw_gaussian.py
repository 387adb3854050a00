"""AdamW under Gaussian noise for any beta2: the update's autocovariance by quadrature, without expanding in 1-beta2."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import spence

from theory.equilibrium.decoupled import decoupled_equilibrium, shrink_factor
from theory.errors import InputError, finite, whole
from theory.results import Array, Equilibrium

_CHUNK = 2_048


def _log_laplace(z: Array, beta2: float) -> Array:
    """Logarithm of E exp(-z v) = prod_i (1 + 2z(1-beta2)beta2^i)^(-1/2), its Laplace transform."""
    c = 2 * z * (1 - beta2)
    if beta2 >= 0.99:  # Euler-Maclaurin; the next term is below 2e-9 of log1p(c)
        h = -math.log(beta2)
        return -0.5 * (-spence(1 + c) / h + 0.5 * np.log1p(c) + h / 12 * c / (1 + c))
    terms = math.ceil(math.log(1e-15 / max(1.0, float(c.max()))) / math.log(beta2)) if beta2 > 0 else 1
    total, weight = np.zeros_like(c), 1.0
    for _ in range(terms):
        total += np.log1p(c * weight)
        weight *= beta2
    return -0.5 * total


def _paired(z: Array, beta1: float, beta2: float) -> Array:
    """Sum over gradients shared by both first moments: (1-beta1)^2 sum_i beta1^(2i)/(1 + 2z(1-beta2)beta2^i)."""
    c, total = 2 * z * (1 - beta2), np.zeros_like(z)
    terms = 1 + math.ceil(math.log(1e-15) / (2 * math.log(beta1))) if beta1 > 0 else 1
    for start in range(0, terms, _CHUNK):
        i = np.arange(start, min(start + _CHUNK, terms), dtype=np.float64)
        total += (1 / (1 + np.outer(c, beta2**i))) @ beta1 ** (2 * i)
    return (1 - beta1) ** 2 * total


@lru_cache(maxsize=32)
def gaussian_update_autocovariance(beta1: float, beta2: float) -> Array:
    r"""Autocovariance C_k = E u_t u_{t-k} of one coordinate of u = m/sqrt(v) under N(0,1) gradients.

    1/sqrt(x) = (2/sqrt(pi)) int_0^inf exp(-x y^2) dy for both second moments leaves Gaussian averages; the products
    over ages j >= k depend only on z = y^2 beta2^k + y'^2, so with P(z) = E exp(-z v) and the pairing sum N(z)
    C_k = (4/pi) beta1^k int dy P(y^2) K(y^2 beta2^k),  K(x) = int dy' P(x+y'^2) N(x+y'^2) / P(x):
    two one-dimensional integrals (double-exponential and logarithmic trapezoid rules). Derived here; the double sum
    over ages and lags of the direct form is never needed. Relative accuracy 1e-8.

    Args:
        beta1: First-moment coefficient in [0, 1).
        beta2: Second-moment coefficient in [0, 1).

    Returns:
        C_0 .. C_K, read-only, shape (K+1,), K where beta1^K falls below 1e-13.

    Raises:
        InputError: If beta2 = 0 with beta1 > 0, where E u^2 is infinite.

    Example:
        >>> round(float(gaussian_update_autocovariance(0.9, 0.81)[0]), 6)     # exact at beta2 = beta1^2: 0.1/1.9
        0.052632
    """
    if beta2 == 0:
        if beta1 > 0:
            raise InputError(
                f"betas = ({beta1:g}, 0) is not allowed: betas[1] must be positive when betas[0] is, "
                "because E(m^2/g^2) of Gaussian noise is infinite."
            )
        return np.ones(1)
    top = math.sqrt(160 * -math.log(beta2)) + 5  # log z beyond which P(z) < 1e-17
    grid = np.arange(-32.0, top + 1.0, 0.04)
    log_p = CubicSpline(grid, _log_laplace(np.exp(grid), beta2))
    log_pn = CubicSpline(grid, log_p(grid) + np.log(_paired(np.exp(grid), beta1, beta2)))
    tau = np.arange(-3.6, top / 2 + 0.1, 1 / 14)
    y = np.exp(tau - np.exp(-tau))
    weight = y * (1 + np.exp(-tau)) / 14
    x = np.exp(grid[::2])
    inner = np.log(np.clip(x[:, None] + y**2, math.exp(grid[0]), math.exp(grid[-1])))
    kernel = CubicSpline(grid[::2], np.log(np.exp(log_pn(inner) - log_p(grid[::2])[:, None]) @ weight))
    log_y2 = np.log(np.maximum(y**2, math.exp(grid[0])))
    outer = weight * np.exp(log_p(log_y2)) * 4 / math.pi
    lags = np.arange(math.ceil(math.log(1e-13) / math.log(beta1)) + 1) if beta1 > 0 else np.zeros(1)
    parts = [
        np.exp(kernel(np.maximum(log_y2 + k[:, None] * math.log(beta2), grid[0]))) @ outer
        for k in np.array_split(lags, math.ceil(len(lags) / _CHUNK))
    ]
    autocovariance: Array = np.concatenate(parts) * np.power(float(beta1), lags)
    autocovariance.flags.writeable = False
    return autocovariance


def adamw_equilibrium_gaussian(
    lr: float, weight_decay: float, betas: tuple[float, float] = (0.9, 0.999), d: int = 1
) -> Equilibrium:
    """Equilibrium of torch.optim.AdamW under zero-mean white Gaussian gradient noise, any beta2.

    Setting: w <- (1-lr*wd)w - lr*m/(sqrt(v)+eps), eps negligible, gradients iid N(0, sigma^2) per coordinate,
    scale-invariant weights or not. Formula: the exact autocovariance of m/sqrt(v) (`gaussian_update_autocovariance`)
    in R = lr^2 (C_0 + 2 sum_k a^k C_k)/(1-a^2); angle from the law of cosines.

    Source: derived here. Accuracy 0.3 % against torch.optim.AdamW. For beta2 >= 0.99 `adamw_equilibrium` suffices.
    Invalid for other noise (kurtosis not 3), eps comparable to the gradient's RMS, or a signal in the gradients.

    Args:
        lr: Learning rate.
        weight_decay: Decoupled decay coefficient; 0 < lr*weight_decay < 1.
        betas: Adam's (beta1, beta2), dimensionless; the autocovariance is cached per pair.
        d: Number of coordinates.

    Returns:
        Norm, rms, angle (rad/step), effective lr (lr/rms) and relaxation time (steps).

    Raises:
        InputError: If lr*weight_decay is not in (0, 1), or beta2 = 0 < beta1 (infinite variance).

    Example:
        >>> round(adamw_equilibrium_gaussian(0.005, 1.0, (0.9, 0.9), d=1024).norm, 3)
        1.555
    """
    shrink_factor(lr, weight_decay)
    whole("d", d, low=1)
    c = gaussian_update_autocovariance(finite("betas[0]", betas[0], high=1.0), finite("betas[1]", betas[1], high=1.0))
    per_coordinate = decoupled_equilibrium(lr, weight_decay, c)
    return replace(
        per_coordinate,
        norm=math.sqrt(d) * per_coordinate.norm,
        rms=per_coordinate.norm,
        law="adamw_equilibrium_gaussian",
    )
