"""Cautious decay: weights are shrunk only where update and weight have the same sign."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import brentq

from theory.equilibrium.decoupled import shrink_factor
from theory.equilibrium.sign import sign_autocovariance
from theory.errors import finite, whole
from theory.results import Equilibrium, angle_of_chord


def cautious_equilibrium(lr: float, weight_decay: float, momentum: float = 0.9, d: int = 1) -> Equilibrium:
    r"""Equilibrium of Signum with cautious decay under zero-mean white gradient noise.

    Setting (simultaneous variant): m <- beta*m + (1-beta)*g, u = sign(m), w <- w - lr*(u + wd*w*1[u*w > 0]), all read
    at the old w. With r = E w^2, C_k = (2/pi) asin(beta^k), P' = sum_{k>=1} (1-lr*wd/2)^(k-1) C_k and E|w| =
    sqrt(2r/pi), the correlation of update and weight is c = -lr*P'/sqrt(r) - lr*wd*P'/sqrt(2 pi). Before the sign it is
    c' = sqrt(pi/2) c, so that E2 = 1/2 + (asin c' + c' sqrt(1-c'^2))/pi of w^2 is decayed, and stationarity reads
    r = [lr^2 - 2 lr c sqrt(r) + 2 lr^2 wd sqrt(r)(1/sqrt(2 pi) + c/2)] / [2 lr wd E2 (1 - lr*wd/2)];
    cos = 1 - lr*wd*E2 - lr*c/sqrt(r). Leading: half the coordinates are spared, R doubles, the angle falls by sqrt(2).

    Source: the rule, Chen et al., arXiv 2510.12402; equilibrium derived here. Accuracy: norm 1 %; angle 1 % for
    lr*wd*(1+beta)/(1-beta) <= 0.2, 3 % up to 1. Other orders (decay before the update, signs of the previous step)
    change r at O(sqrt(lr*wd)).

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
        >>> round(cautious_equilibrium(0.01, 0.1, momentum=0.0, d=1024).norm, 1)
        10.3
    """
    shrink_factor(lr, weight_decay)
    rho = lr * weight_decay
    beta, half = finite("momentum", momentum, high=1.0), 1 - rho / 2
    c_k = sign_autocovariance(beta, beta, half)[1:]
    memory = float(np.sum(half ** np.arange(len(c_k)) * c_k))
    k1 = 1 / math.sqrt(2 * math.pi)

    def correlation(rms: float) -> float:
        return -lr * memory / rms - rho * k1 * memory

    def decayed(c: float) -> float:
        z = max(-1.0, c * math.sqrt(math.pi / 2))
        return 0.5 + (math.asin(z) + z * math.sqrt(1 - z**2)) / math.pi

    def surplus(rms: float) -> float:  # growth minus decay of r
        c = correlation(rms)
        growth = lr**2 - 2 * lr * c * rms + 2 * lr * rho * rms * (k1 + c / 2)
        return growth - 2 * rho * decayed(c) * half * rms**2

    high = math.sqrt(lr / weight_decay) * (1 + memory)
    while surplus(high) > 0:  # ends: memory < 2/rho, so some share of w^2 is decayed however large w is
        high *= 2
    low = lr * 1e-3
    rms = float(brentq(surplus, low, high, xtol=1e-300, rtol=1e-13))  # type: ignore[arg-type]
    c = correlation(rms)
    return Equilibrium(
        norm=math.sqrt(whole("d", d, low=1)) * rms,
        angle=float(angle_of_chord(rho * decayed(c) + lr * c / rms)),
        relaxation_steps=-4e-4 * rms**2 / (surplus(rms * 1.0001) - surplus(rms * 0.9999)),
        law="cautious_equilibrium",
        effective_lr=lr / rms,
        rms=rms,
        relative_update=lr / rms,
    )
