"""Sign methods, Lion and Signum: the sign of a Gaussian memory has arcsine correlations."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from theory.equilibrium.decoupled import decoupled_equilibrium, shrink_factor
from theory.errors import finite, require, whole
from theory.results import Array, Equilibrium


@dataclass(frozen=True)
class Correlation:
    """Correlation that survives a nonlinearity."""

    correlation: float | Array
    """Dimensionless, in [-1, 1]; shaped like the input."""


def arcsine(rho: ArrayLike) -> Correlation:
    """Correlation of the signs of two jointly Gaussian variables: (2/pi) asin(rho).

    Source: Sheppard's formula (Price's theorem). Exact.

    Args:
        rho: Correlation of the variables, in [-1, 1], any shape.

    Returns:
        Correlation of their signs, same shape.

    Raises:
        InputError: If a correlation lies outside [-1, 1].

    Example:
        >>> round(float(arcsine(0.5).correlation), 6)
        0.333333
    """
    value = np.asarray(rho, dtype=np.float64)
    require(bool(np.all(np.abs(value) <= 1)), "rho", rho, "a correlation in [-1, 1]")
    return Correlation((2 / math.pi * np.arcsin(value))[()])


def sign_autocovariance(first: float, decay: float, shrink: float = 1.0) -> Array:
    """Autocovariance of the sign of a Gaussian sequence whose correlations are rho_k = first*decay^(k-1).

    Args:
        first: Correlation at lag one.
        decay: Factor per further lag, in [0, 1).
        shrink: Weight a in sum_k a^k C_k; lags beyond (a*decay)^k < 1e-13 are left out.

    Returns:
        C_0 = 1, C_1 .. C_K, shape (K+1,).

    Example:
        >>> sign_autocovariance(0.5, 0.0).round(4).tolist()
        [1.0, 0.3333]
    """
    reach = shrink * decay
    lags = np.arange(math.ceil(math.log(1e-13) / math.log(reach)) if reach > 0 else 1, dtype=np.float64)
    return np.concatenate([[1.0], np.atleast_1d(arcsine(first * decay**lags).correlation)])


def momentum_correlation(past: float, present: float, beta: float) -> float:
    """Correlation of past*m + present*g with itself one step later, m an average of white noise g that has filled up.

    E m^2 = (1-beta)/(1+beta), and m after the step shares past*beta*E m^2 + present*(1-beta) with the combination;
    with every further step the correlation falls by beta.

    Args:
        past: Weight of the memory m.
        present: Weight of the present gradient.
        beta: Memory per step, m <- beta*m + (1-beta)*g, in [0, 1).

    Returns:
        The correlation, in [0, 1).

    Example:
        >>> momentum_correlation(0.5, 0.5, 0.5)
        0.5
    """
    square = (1 - beta) / (1 + beta)
    shared = past * beta * square + present * (1 - beta)
    return past * shared / (past**2 * square + present**2)


def _sign_equilibrium(lr: float, weight_decay: float, first: float, decay: float, d: int, law: str) -> Equilibrium:
    c = sign_autocovariance(first, decay, shrink_factor(lr, weight_decay))
    per_coordinate = decoupled_equilibrium(lr, weight_decay, c)
    norm = math.sqrt(whole("d", d, low=1)) * per_coordinate.norm
    return replace(per_coordinate, norm=norm, rms=per_coordinate.norm, law=law)


def lion_equilibrium(
    lr: float, weight_decay: float, betas: tuple[float, float] = (0.9, 0.99), d: int = 1
) -> Equilibrium:
    """Equilibrium of Lion with decoupled decay under zero-mean white gradient noise, scale-invariant weights or not.

    Setting: u = sign(b1 m + (1-b1) g), then m <- b2 m + (1-b2) g; w <- (1-lr*wd)w - lr*u. Before the sign
    rho_k = b2^(k-1) b1(1-b2)[(1-b1) + b1 b2/(1+b2)]/G, G = (1-b1)^2 + b1^2 (1-b2)/(1+b2); then C_k = arcsine(rho_k),
    C_0 = 1 per coordinate, and `decoupled_equilibrium`.

    Source: Lion, Chen et al., arXiv 2302.06675; linear-correlation forms Kosson et al., arXiv 2305.17212; the arcsine
    form is derived here. Accuracy 0.4 % where each coordinate before the sign is nearly Gaussian with zero mean; of all
    optimizers Lion reacts most to a signal in the gradients (large batches: norm up to 1.6 times larger).

    Args:
        lr: Learning rate.
        weight_decay: Decay coefficient; 0 < lr*weight_decay < 1.
        betas: Lion's (beta1, beta2), dimensionless, in [0, 1).
        d: Number of coordinates.

    Returns:
        Norm, rms, angle (rad/step), effective lr (lr/rms) and relaxation time (steps).

    Raises:
        InputError: If lr*weight_decay is not in (0, 1) or a beta not in [0, 1).

    Example:
        >>> round(lion_equilibrium(0.01, 1.0, (0.9, 0.99), d=1024).angle, 4)
        0.0275
    """
    b1, b2 = finite("betas[0]", betas[0], high=1.0), finite("betas[1]", betas[1], high=1.0)
    return _sign_equilibrium(lr, weight_decay, momentum_correlation(b1, 1 - b1, b2), b2, d, "lion_equilibrium")


def signum_equilibrium(lr: float, weight_decay: float, momentum: float = 0.9, d: int = 1) -> Equilibrium:
    """Equilibrium of Signum (sign of the momentum) with decoupled decay under zero-mean white gradient noise.

    Setting: m <- beta*m + (1-beta)*g, w <- (1-lr*wd)w - lr*sign(m), scale-invariant weights or not. rho_k = beta^k,
    C_k = (2/pi) asin(beta^k) per coordinate, then `decoupled_equilibrium`; momentum 0 is signSGD.

    Source: Signum, Bernstein et al., arXiv 1802.04434; equilibrium derived here. Accuracy 0.4 % where m is nearly
    Gaussian per coordinate with zero mean.

    Args:
        lr: Learning rate.
        weight_decay: Decay coefficient; 0 < lr*weight_decay < 1.
        momentum: beta in [0, 1), dimensionless.
        d: Number of coordinates.

    Returns:
        Norm, rms, angle (rad/step), effective lr (lr/rms) and relaxation time (steps).

    Raises:
        InputError: If lr*weight_decay is not in (0, 1) or the momentum not in [0, 1).

    Example:
        >>> round(signum_equilibrium(0.01, 1.0, momentum=0.9, d=1024).norm, 2)
        7.92
    """
    beta = finite("momentum", momentum, high=1.0)
    return _sign_equilibrium(lr, weight_decay, beta, beta, d, "signum_equilibrium")
