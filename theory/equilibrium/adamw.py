"""AdamW under noise: where norm and rotation settle, with the correction for a noisy second moment."""

from __future__ import annotations

import math

from theory.equilibrium.decoupled import angle_from_relative_update, shrink_factor
from theory.errors import finite, require, whole
from theory.results import Equilibrium


def second_moment_corrections(betas: tuple[float, float], noise_kurtosis: float = 3.0) -> tuple[float, float]:
    """How a noisy second moment changes the update: one-step variance U and long-run variance S.

    To first order in q = (kurtosis-1)(1-beta2), relative to dividing the first moment by the true root mean square:
    U = 1 + q[1/(1+b2) - (1-b1^2)/(1-b1^2 b2)],
    S = 1 + q[-(1-b1)/(1-b1 b2) + 3/(4(1+b2)) + (1-b1)(1+b1 b2)/(4(1+b2)(1+b1)(1-b1 b2))].

    Args:
        betas: Adam's (beta1, beta2).
        noise_kurtosis: E g^4/(E g^2)^2 of one coordinate's gradient; 3 for Gaussian noise, 1 for signs.

    Returns:
        (U, S), both 1 for kurtosis 1.

    Raises:
        InputError: If the correction is so large that it would turn a variance negative.

    Example:
        >>> [round(x, 4) for x in second_moment_corrections((0.9, 0.95))]
        [0.9689, 0.9781]
    """
    b1, b2 = betas
    q = (finite("noise_kurtosis", noise_kurtosis, low=1.0) - 1) * (1 - b2)
    one_step = 1 + q * (1 / (1 + b2) - (1 - b1**2) / (1 - b1**2 * b2))
    memory = (1 - b1) / (1 - b1 * b2)
    long_run = 1 + q * (-memory + 3 / (4 * (1 + b2)) + memory * (1 + b1 * b2) / (4 * (1 + b2) * (1 + b1)))
    usable = min(one_step, long_run) > 0
    require(usable, "noise_kurtosis", noise_kurtosis, f"smaller at betas = {betas}, where first order in 1-beta2 fails")
    return one_step, long_run


def adamw_equilibrium(
    lr: float, weight_decay: float, betas: tuple[float, float] = (0.9, 0.999), d: int = 1, noise_kurtosis: float = 3.0
) -> Equilibrium:
    """Equilibrium of torch.optim.AdamW under zero-mean white gradient noise, scale-invariant weights or not.

    Leading order rms = sqrt(lr/(2 wd)) and angle = sqrt(2 lr wd (1-beta1)/(1+beta1)) (Kosson et al., arXiv 2305.17212);
    here exact in lr*wd for the linear skeleton and first order in (kurtosis-1)(1-beta2) for the second moment's noise.
    Accuracy 0.4 % (1 % for kurtosis > 4 with beta2 < 0.98). Invalid for beta2 < 0.9 (use `adamw_equilibrium_gaussian`),
    for eps comparable to the gradient's RMS, and where a signal rather than noise drives the weights.

    Args:
        lr: Learning rate.
        weight_decay: Decoupled decay coefficient; 0 < lr*weight_decay < 1.
        betas: Adam's (beta1, beta2).
        d: Number of coordinates.
        noise_kurtosis: Kurtosis of one coordinate's gradient.

    Returns:
        Norm, rms, angle (rad/step), effective lr (lr/rms) and relaxation time (steps).

    Raises:
        InputError: If lr*weight_decay is not in (0, 1).

    Example:
        >>> round(adamw_equilibrium(0.01, 0.1, (0.9, 0.999), d=1024).norm, 2)
        7.12
    """
    a, shrink = shrink_factor(lr, weight_decay), lr * weight_decay
    whole("d", d, low=1)
    b1, b2 = finite("betas[0]", betas[0], high=1.0), finite("betas[1]", betas[1], high=1.0)
    one_step, long_run = second_moment_corrections((b1, b2), noise_kurtosis)
    ema_variance = (1 - b1) / (1 + b1)
    mean_square = long_run * lr**2 * ema_variance * (1 + a * b1) / ((1 - a * b1) * shrink * (2 - shrink))
    relative = lr * math.sqrt(ema_variance * one_step / mean_square)
    return Equilibrium(
        norm=math.sqrt(d * mean_square),
        angle=float(angle_from_relative_update(relative, lr, weight_decay).angle),
        relaxation_steps=1 / (2 * lr * weight_decay),
        law="adamw_equilibrium",
        effective_lr=lr / math.sqrt(mean_square),
        rms=math.sqrt(mean_square),
        relative_update=relative,
    )
