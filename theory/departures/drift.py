"""Rotation of scale-invariant weights under SGD while their norm drifts."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from theory.errors import finite, require
from theory.results import Angles, angle_of_chord


def drift_corrected_angle(
    drift: ArrayLike, lr: float, weight_decay: float, momentum: float = 0.0, dampening: float = 0.0
) -> Angles:
    r"""Rotation of one SGD step from lr*weight_decay and the drift of the norm, d log||w||/dt.

    Setting: torch.optim.SGD with coupled decay, <g,w> = 0. The inner product of the heavy-ball recursion with w_t gives
    P_t + momentum P_{t-1} = (1 + momentum - kappa lr wd) ||w_t||^2 for P_t = <w_t, w_{t+1}>, kappa = 1 - dampening; a
    norm that drifts at the rate d multiplies P by e^(2d) per step, so
    cos = (1 + momentum - kappa lr wd) e^(-d)/(1 + momentum e^(-2d)), to leading order
    angle^2 = 2 (kappa lr wd + (1-momentum) d)/(1 + momentum); without momentum sqrt(2 (lr wd + d log||w||/dt)).

    Source: derived here; at d = 0 the universal rotation of Wan et al. (arXiv 2006.08419). Without momentum an identity
    in every single step (bar 1e-9), with momentum for a steady drift (bar 1 % averaged over steps, because one step's
    drift says nothing of those before it; far above the equilibrium decay and drift nearly cancel, and the bar grows by
    lr wd/(lr wd + (1-momentum) d): 3 % seen at 3 times the equilibrium's norm). Not for Nesterov. Unlike the law
    without drift it holds during transients, under any schedule that changes slowly against the momentum, and for any
    gradients orthogonal to the weights, correlated ones included.

    Args:
        drift: ln(||w'||/||w||) of one step, or its average over several, any shape.
        lr: Learning rate.
        weight_decay: L2 coefficient; 0 <= lr*weight_decay < 1.
        momentum: Heavy-ball coefficient in [0, 1).
        dampening: Dampening of the momentum (1-dampening multiplies decay and gradient).

    Returns:
        Angles, rad/step, in the shape of `drift`.

    Raises:
        InputError: If the norm shrinks faster than decay alone can make it.

    Example:
        >>> round(drift_corrected_angle(0.005, lr=0.1, weight_decay=0.05).angle.item(), 3)   # sqrt(2 * 0.01)
        0.141
    """
    d = np.asarray(drift, dtype=np.float64)
    require(bool(np.all(np.isfinite(d))), "drift", drift, "finite numbers")
    shrink = finite("lr", lr) * finite("weight_decay", weight_decay)
    require(shrink < 1, "lr * weight_decay", shrink, "in [0, 1)")
    mu = finite("momentum", momentum, high=1.0)
    if mu > 0:
        shrink *= 1 - finite("dampening", dampening, high=1.0, open_high=False)
    # 1 - cos without cancellation: e^d (1 + mu e^(-2d)) - (1 + mu - shrink) over e^d (1 + mu e^(-2d))
    chord = (shrink + np.expm1(d) + mu * np.expm1(-d)) / (np.exp(d) + mu * np.exp(-d))
    require(
        bool(np.all(chord > -1e-12)), "drift", np.min(d), "at least what decay alone does (gradients orthogonal to w)"
    )
    return Angles(np.asarray(angle_of_chord(chord)))
