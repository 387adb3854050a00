"""Gradients with memory: what their autocorrelation does to norm and rotation, with and without scale invariance."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from theory.equilibrium.decoupled import angle_from_relative_update, shrink_factor
from theory.errors import InputError, finite, require
from theory.results import Equilibrium, angle_of_chord
from theory.timescale import direction_autocorrelation


def correlated_equilibrium(
    lr: float,
    weight_decay: float,
    rho: float | None = None,
    momentum: float = 0.0,
    scale_invariant: bool = True,
    *,
    grad_autocovariance: ArrayLike | None = None,
) -> Equilibrium:
    r"""Equilibrium of EMA momentum with decoupled decay under correlated gradients of unit variance.

    Setting: m <- beta*m + (1-beta)*g, w <- a*w - lr*m, E||g||^2 = 1 with autocovariance C_n (AR(1): rho^n); for
    scale-invariant weights g is orthogonal to w and C_n is measured in the frame that turns with w. With
    M = E||m||^2 = (1-beta)/(1+beta) * (C_0 + 2 sum_n beta^n C_n) and D_n the direction's own autocorrelation
    (`direction_autocorrelation`):

    - not scale-invariant: R = R_white * (C_0 + 2 sum_n C_n D_n), R_white = lr^2 (1-beta)/(1+beta) (1+a beta) /
      ((1-a beta)(1-a^2)): each gradient pair weighs as their lag allows (equal to filtering C and summing a^k C^u_k);
      angle from the law of cosines with relative update lr*sqrt(M/R). Long memory: R grows by sum_n C_n.
    - scale-invariant: R = lr^2 M (1+a beta)/((1-a beta)(1-a^2)), cos = (a+beta)/(1+a beta). Orthogonality at every step
      removes the direct effect of correlation: it acts through M alone, not at all without momentum, and the
      rotation is universal.

    Source: derived here. Accuracy: not scale-invariant 0.4 %; scale-invariant norm 2 % (3 % for rho > 0.8, more where
    the gradients' memory reaches 1/(lr*wd)), angle 0.4 %.

    Args:
        lr: Learning rate.
        weight_decay: Decay coefficient; 0 < lr*weight_decay < 1.
        rho: Lag-one correlation of AR(1) gradients, in (-1, 1); or give `grad_autocovariance`.
        momentum: beta in [0, 1), dimensionless.
        scale_invariant: Whether the gradient is orthogonal to the weights.
        grad_autocovariance: C_0, C_1, ..., C_K of the gradients, shape (K+1,), in units of E||g||^2 = 1.

    Returns:
        Norm (for E||g||^2 = C_0 = 1, multiply by the gradient's RMS), angle (rad/step) and relaxation time (steps).

    Raises:
        InputError: If there is no equilibrium, not exactly one of rho and grad_autocovariance is given, or the
            autocovariance is no positive sequence's.

    Example:
        >>> white = correlated_equilibrium(0.1, 0.05, 0.0, 0.9, scale_invariant=False)
        >>> red = correlated_equilibrium(0.1, 0.05, 0.5, 0.9, scale_invariant=False)
        >>> round((red.norm / white.norm) ** 2, 2)      # (1 + rho)/(1 - rho)
        3.0
    """
    a, shrink, beta = shrink_factor(lr, weight_decay), lr * weight_decay, finite("momentum", momentum, high=1.0)
    if (rho is None) == (grad_autocovariance is None):
        raise InputError("rho and grad_autocovariance: give exactly one.")
    ema = (1 - beta) / (1 + beta)
    if rho is not None:
        finite("rho", rho, low=-1.0, high=1.0)
        require(rho > -1, "rho", rho, "a correlation in (-1, 1)")
        moment = ema * (1 + beta * rho) / (1 - beta * rho)
        pairs = rho * (a + beta - a * beta * rho * (1 + a * beta))
        inflation = 1 + 2 * pairs / ((1 + a * beta) * (1 - a * rho) * (1 - beta * rho))
    else:
        c = np.atleast_1d(np.asarray(grad_autocovariance, dtype=np.float64))
        require(bool(np.all(np.isfinite(c))) and c[0] > 0, "grad_autocovariance", c[:4].tolist(), "finite with C_0 > 0")
        lags = np.arange(1, len(c))
        moment = ema * float(c[0] + 2 * np.sum(beta**lags * c[1:]))
        direction = direction_autocorrelation(lr, weight_decay, beta, lags).cos
        inflation = float(c[0] + 2 * np.sum(direction * c[1:]))
    skeleton = lr**2 * (1 + a * beta) / ((1 - a * beta) * shrink * (2 - shrink))
    squared = skeleton * (moment if scale_invariant else ema * inflation)
    require(moment > 0 and squared > 0, "grad_autocovariance", grad_autocovariance, "a sequence with positive variance")
    relative = lr * math.sqrt(moment / squared)
    if scale_invariant:
        angle = float(angle_of_chord(shrink * (1 - beta) / (1 + a * beta)))
    else:
        angle = float(angle_from_relative_update(relative, lr, weight_decay).angle)
    return Equilibrium(
        norm=math.sqrt(squared),
        angle=angle,
        relaxation_steps=1 / (2 * lr * weight_decay),
        law="correlated_equilibrium",
        effective_lr=lr / math.sqrt(squared),
        relative_update=relative,
    )
