"""AdamW on a weight whose gradient has a mean: where signal ends and noise begins."""

from __future__ import annotations

import math
from dataclasses import dataclass

from theory.equilibrium.adamw import second_moment_corrections
from theory.equilibrium.decoupled import shrink_factor
from theory.errors import finite


@dataclass(frozen=True)
class SignalNoise:
    """Stationary distribution of one coordinate under a constant signal plus noise."""

    mean: float
    """Mean of the weight; negative for a positive mean gradient."""
    std: float
    """Standard deviation of the weight."""
    rms: float
    """Root mean square of the weight."""
    critical_snr: float
    """Signal-to-noise ratio of one step's gradient at which mean and noise weigh the same, sqrt(lr*wd/2)."""
    law: str = "adamw_signal_noise"
    """Name of the law that gave it."""


def _filtered(shrink: float, beta: float, other: float) -> float:
    """Stationary covariance of two walks shrunk per step and driven by one white noise through EMAs beta and other."""
    a = 1 - shrink
    memory = 1 + a * beta / (1 - a * beta) + a * other / (1 - a * other)
    return (1 - beta) * (1 - other) * memory / ((1 - beta * other) * shrink * (2 - shrink))


def adamw_signal_noise(
    lr: float, weight_decay: float, snr: float, betas: tuple[float, float] = (0.9, 0.999)
) -> SignalNoise:
    r"""Mean and spread of a weight under torch.optim.AdamW with gradient m + sigma*xi, xi ~ N(0,1), snr = m/sigma.

    Setting: weights that are not scale-invariant. With s = snr, e = 1 + s^2, v = sigma^2 e (1 + delta), delta the EMA
    of y = (2 s xi + xi^2 - 1)/e: to first order in 1-beta2
    mean = -s/(wd sqrt(e)) * [1 + (3/8)(1-b2)/(1+b2)(2+4s^2)/e^2 - (1-b1)(1-b2)/((1-b1 b2) e)].
    The update's noise is xi through EMA b1 minus (s/2) y through EMA b2 (a large gradient also raises the denominator),
    var = (lr^2/e)[F11 - 2p F12 + p^2 F22 + (s^2/2e^2) F22 + (S-1)/e^2 F11], p = s^2/e, F the covariances of two EMAs
    after the decay's filter and S AdamW's second-moment correction (exact at s = 0; its fading is a guess). The short
    form mean = -s/(wd sqrt(e)), var = lr/(2 wd e) has the same rms within a per cent, but its std is too large: for
    lr*wd << 1-b2, var -> (lr/2 wd)(1 + s^2/2)/e^3. Signal dominates where snr > sqrt(lr*wd/2); |w| <= 1/wd always
    (Xie & Li, arXiv 2404.04454).

    Source: derived here. Accuracy: mean and rms 0.5 %, std 1 % for beta2 >= 0.99, 4 % for beta2 >= 0.9.

    Args:
        lr: Learning rate.
        weight_decay: Decay coefficient; 0 < lr*weight_decay < 1.
        snr: Mean over standard deviation of one step's gradient, dimensionless, any sign.
        betas: Adam's (beta1, beta2), dimensionless.

    Returns:
        Mean, standard deviation and rms of the weight, and the critical snr.

    Raises:
        InputError: If lr*weight_decay is not in (0, 1) or an argument is not finite.

    Example:
        >>> round(adamw_signal_noise(0.01, 0.2, snr=1.0).mean, 2)
        -3.53
    """
    shrink_factor(lr, weight_decay)
    shrink = lr * weight_decay
    s = finite("snr", snr, low=-1e100, high=1e100)
    b1, b2 = finite("betas[0]", betas[0], high=1.0), finite("betas[1]", betas[1], high=1.0)
    e = 1 + s**2
    p, y2 = s**2 / e, (2 + 4 * s**2) / e / e
    shape = 1 + 3 / 8 * (1 - b2) / (1 + b2) * y2 - (1 - b1) * (1 - b2) / ((1 - b1 * b2) * e)
    mean = -s / math.sqrt(e) / weight_decay * shape
    long_run = second_moment_corrections((b1, b2))[1]
    first, both, second = (_filtered(shrink, *pair) for pair in ((b1, b1), (b1, b2), (b2, b2)))
    linear = max(first - 2 * p * both + p**2 * second, 0.0)  # a variance; rounding may tip it
    std = lr * math.sqrt((linear + p / (2 * e) * second + (long_run - 1) / e**2 * first) / e)
    return SignalNoise(mean=mean, std=std, rms=math.hypot(mean, std), critical_snr=math.sqrt(shrink / 2))
