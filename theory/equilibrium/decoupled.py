"""The generic decoupled law: shrink, then subtract a stationary update of known autocovariance."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from theory.errors import finite, require
from theory.results import Angles, Equilibrium, angle_of_chord


def shrink_factor(lr: float, weight_decay: float) -> float:
    """Factor a = 1 - lr*weight_decay of one decoupled step, checked to allow an equilibrium.

    Args:
        lr: Learning rate.
        weight_decay: Decay coefficient.

    Returns:
        a, in (0, 1).

    Raises:
        InputError: If lr*weight_decay is not in (0, 1).
    """
    rho = finite("lr", lr) * finite("weight_decay", weight_decay)
    require(0 < rho < 1, "lr * weight_decay", rho, "in (0, 1): without decay the norm grows and never settles")
    return 1 - rho


def angle_from_relative_update(relative_update: float, lr: float, weight_decay: float) -> Angles:
    """Rotation of one step at stationary norm, from the relative size of the decay-free update.

    1 - cos = (rho^2 - (1-a)^2)/(2a) with rho = ||h u||/||w|| and a = 1 - lr*weight_decay: the law of cosines in the
    triangle a*w, -h*u, w' with ||w'|| = ||w||. Exact, any optimizer with decoupled decay.

    Args:
        relative_update: ||h u||/||w||; RMS over steps gives an RMS angle.
        lr: Learning rate.
        weight_decay: Decay coefficient.

    Returns:
        The angle, rad/step.

    Raises:
        InputError: If the update is smaller than the decay, so that the norm cannot be stationary.

    Example:
        >>> round(angle_from_relative_update(0.1, lr=0.1, weight_decay=0.01).angle.item(), 5)
        0.10009
    """
    shrink = finite("lr", lr) * finite("weight_decay", weight_decay)
    finite("relative_update", relative_update)
    require(shrink < 1, "lr * weight_decay", shrink, "in [0, 1)")
    require(relative_update >= shrink, "relative_update", relative_update, f"at least lr*weight_decay = {shrink:g}")
    return Angles(np.asarray(angle_of_chord((relative_update**2 - shrink**2) / (2 * (1 - shrink)))))


def decoupled_equilibrium(
    lr: float, weight_decay: float, update_autocovariance: ArrayLike, lr_update: float | None = None
) -> Equilibrium:
    """Equilibrium of w <- a*w - h*u for any stationary update u with known autocovariance.

    R = h^2 (C_0 + 2 sum_{k>=1} a^k C_k)/(1 - a^2): stationarity of E||w||^2 with
    E<w_t,u_t> = -h sum_{k>=1} a^(k-1) C_k. Exact for linear processes; fed with measured C it is the calibrated
    prediction. Scale-invariant weights whose update has memory need `correlated_equilibrium`.

    Args:
        lr: Learning rate that multiplies the decay.
        weight_decay: Decay coefficient; 0 < lr*weight_decay < 1.
        update_autocovariance: C_k = E<u_t, u_{t-k}> for k = 0..K, shape (K+1,).
        lr_update: Step size h of the update; `lr` if omitted.

    Returns:
        Norm and angle (rad/step).

    Raises:
        InputError: If lr*weight_decay is not in (0, 1) or the autocovariance gives a negative norm.

    Example:
        >>> round(decoupled_equilibrium(0.1, 0.1, [1.0]).norm, 4)
        0.7089
    """
    a, shrink = shrink_factor(lr, weight_decay), lr * weight_decay
    h = lr if lr_update is None else finite("lr_update", lr_update)
    c = np.atleast_1d(np.asarray(update_autocovariance, dtype=np.float64))
    require(c.size > 0 and bool(np.all(np.isfinite(c))), "update_autocovariance", c[:4].tolist(), "finite numbers")
    squared = h**2 * float(c[0] + 2 * np.sum(a ** np.arange(1, len(c)) * c[1:])) / (shrink * (2 - shrink))
    require(squared > 0, "update_autocovariance", c[:4].tolist(), "a sequence with positive long-run variance")
    relative = h * math.sqrt(float(c[0]) / squared)
    return Equilibrium(
        norm=math.sqrt(squared),
        angle=float(angle_from_relative_update(relative, lr, weight_decay).angle),
        relaxation_steps=1 / (2 * lr * weight_decay),
        law="decoupled_equilibrium",
        effective_lr=h / math.sqrt(squared),
        relative_update=relative,
    )


def normalized_momentum_equilibrium(lr: float, weight_decay: float, momentum: float) -> Equilibrium:
    """Equilibrium of momentum normalised to unit length with decoupled decay: the skeleton of AdamW.

    u = m/||m||, C_k = momentum^k, so R = lr^2 (1+a*beta)/((1-a*beta)(1-a^2)) and cos = (a+beta)/(1+a*beta).
    Accuracy 0.3 % for d >= 500 (finite d adds O(1/d)).

    Args:
        lr: Learning rate.
        weight_decay: Decay coefficient.
        momentum: EMA coefficient beta in [0, 1).

    Returns:
        Norm and angle (rad/step).

    Raises:
        InputError: If lr*weight_decay is not in (0, 1).

    Example:
        >>> round(normalized_momentum_equilibrium(0.01, 0.2, 0.9).norm, 3)
        0.683
    """
    a, shrink, beta = shrink_factor(lr, weight_decay), lr * weight_decay, finite("momentum", momentum, high=1.0)
    squared = lr**2 * (1 + a * beta) / ((1 - a * beta) * shrink * (2 - shrink))
    return Equilibrium(
        norm=math.sqrt(squared),
        angle=float(angle_of_chord(shrink * (1 - beta) / (1 + a * beta))),
        relaxation_steps=1 / (2 * lr * weight_decay),
        law="normalized_momentum_equilibrium",
        effective_lr=lr / math.sqrt(squared),
        relative_update=lr / math.sqrt(squared),
    )
