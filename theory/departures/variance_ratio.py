"""How much of an update is news: its one-step variance over its long-run variance."""

from __future__ import annotations

import numpy as np

from theory.equilibrium.adamw import second_moment_corrections
from theory.errors import InputError, finite
from theory.optimizers import SGD, AdamW, Hyperball, Optimizer, ScaleFree
from theory.trajectory.scale_free import update_law


def update_variance_ratio(optimizer: Optimizer, shape: tuple[int, ...] = (1,), noise_kurtosis: float = 3.0) -> float:
    """E||u||^2 over sum_k E<u_t, u_{t-k}> of an optimizer's update under white gradient noise.

    The one number that tells rotation (one step) from growth (long run): angle^2 = 2 nu (lr wd + d log||w||/dt).
    Exponential averages (SGD with momentum, AdamW, normalised momentum): (1-beta)/(1+beta), AdamW's times U/S of
    `second_moment_corrections`; Lion, Signum and Muon: from their autocovariance (`lion_equilibrium`, ...).

    Source: derived here. Exact for Gaussian noise (AdamW: first order in 1-beta2).

    Args:
        optimizer: The optimizer; its rates do not matter.
        shape: Shape of the tensor (Muon).
        noise_kurtosis: Kurtosis of one coordinate's gradient (AdamW).

    Returns:
        The ratio, > 0, 1 without momentum.

    Raises:
        InputError: If the optimizer is fixed-norm, Adam with coupled decay, or Nesterov SGD, which the laws that take
            the ratio do not describe.

    Example:
        >>> round(update_variance_ratio(AdamW(lr=1e-3, betas=(0.9, 1 - 1e-9))), 4)   # 1/19
        0.0526
    """
    finite("noise_kurtosis", noise_kurtosis, low=1.0)
    if isinstance(optimizer, SGD) and not optimizer.nesterov:
        return (1 - optimizer.momentum) / (1 + optimizer.momentum)
    if isinstance(optimizer, AdamW):
        one_step, long_run = second_moment_corrections(optimizer.betas, noise_kurtosis)
        return (1 - optimizer.betas[0]) / (1 + optimizer.betas[0]) * one_step / long_run
    if isinstance(optimizer, ScaleFree) and not isinstance(optimizer, Hyperball):
        covariance = update_law(optimizer, shape).autocovariance()
        return float(covariance[0] / (covariance[0] + 2 * np.sum(covariance[1:])))
    raise InputError(
        f"optimizer = {type(optimizer).__name__} is not allowed: it must be SGD without Nesterov momentum, AdamW, "
        "Lion, Signum, NormalizedMomentum or Muon."
    )
