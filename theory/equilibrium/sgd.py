"""SGD with momentum, dampening, Nesterov and coupled decay: where norm and rotation settle."""

from __future__ import annotations

import math
from typing import Any

from theory.errors import InputError, finite, require
from theory.results import Equilibrium, angle_of_chord


def sgd_gain(
    lr: float, weight_decay: float, momentum: float = 0.0, dampening: float = 0.0, nesterov: bool = False
) -> tuple[float, float]:
    """Stationary variance of w per unit gradient variance, and one minus its lag-one correlation.

    Eliminating the buffer leaves an AR(2) (Nesterov: ARMA(2,1)) recursion in w; Yule-Walker gives both numbers.

    Args:
        lr: Learning rate.
        weight_decay: L2 coefficient.
        momentum: Heavy-ball coefficient.
        dampening: Dampening; ignored without momentum, as in torch.
        nesterov: Nesterov momentum.

    Returns:
        K with E||w||^2 = K E||g||^2, and 1 - cos of the rotation of one step.

    Raises:
        InputError: If there is no stationary state (no decay, no learning rate, or an unstable product).
    """
    finite("lr", lr)
    finite("weight_decay", weight_decay)
    finite("momentum", momentum, high=1.0)
    if momentum > 0:
        finite("dampening", dampening, high=1.0)
        require(not (nesterov and dampening), "dampening", dampening, "0 with Nesterov momentum")
    kappa = 1.0 - dampening if momentum else 1.0
    rho = kappa * lr * weight_decay
    require(rho > 0, "lr * weight_decay", lr * weight_decay, "positive: without decay the norm grows and never settles")
    limit = 2 * (1 + momentum) / (kappa * (1 + 2 * momentum if nesterov else 1))
    require(lr * weight_decay < limit, "lr * weight_decay", lr * weight_decay, f"below {limit:g} to be stable")
    return gain_and_chord(lr, weight_decay, momentum, kappa, nesterov)


def gain_and_chord(lr: Any, weight_decay: float, momentum: float, kappa: float, nesterov: bool) -> tuple[Any, Any]:
    """The numbers of `sgd_gain`, for one learning rate or an array of them, unchecked.

    Args:
        lr: Learning rates, positive.
        weight_decay: As there, positive.
        momentum: As there.
        kappa: 1 - dampening; 1 without momentum.
        nesterov: As there.

    Returns:
        K and 1 - cos, of the shape of `lr`.
    """
    rho = kappa * lr * weight_decay
    if not nesterov:
        gain = kappa * lr * (1 + momentum) / (weight_decay * (1 - momentum) * (2 * (1 + momentum) - rho))
        return gain, rho / (1 + momentum)
    a = 1 - rho
    phi1, phi2 = (1 + momentum) * a, -momentum * a
    b0, b1 = -lr * (1 + momentum), lr * momentum
    gain = ((b0**2 + b1**2) * (1 - phi2) + 2 * b0 * b1 * phi1) / ((1 + phi2) * ((1 - phi2) ** 2 - phi1**2))
    return gain, (1 - phi2 - phi1 - b0 * b1 / gain) / (1 - phi2)


def sgd_equilibrium(
    lr: float,
    weight_decay: float,
    momentum: float = 0.0,
    dampening: float = 0.0,
    nesterov: bool = False,
    *,
    c2: float | None = None,
    g2: float | None = None,
) -> Equilibrium:
    r"""Equilibrium of torch.optim.SGD with coupled decay under white gradient noise.

    Scale-invariant weights (give `c2` = E||g||^2 ||w||^2): R^2 = K c2. Gradients of fixed size (give `g2` = E||g||^2):
    R = K g2, where R = E||w||^2. Heavy ball: K = kappa*lr*(1+mu)/(wd*(1-mu)*(2(1+mu)-kappa*lr*wd)) and
    cos = 1 - kappa*lr*wd/(1+mu), with kappa = 1 - dampening; the rotation does not depend on the gradients at all.

    Source: leading order Kosson et al., arXiv 2305.17212, and Wan et al., arXiv 2006.08419; the exact gain, Nesterov
    and dampening by Yule-Walker (docs, "SGD equilibrium"). Accuracy: 0.4 % (scale-invariant), 0.3 % (fixed). Fails
    where gradients are correlated in time: the norm then comes out too high, the angle stays right.

    Args:
        lr: Learning rate.
        weight_decay: L2 coefficient; lr*weight_decay < 2(1+momentum)/(1-dampening).
        momentum: Heavy-ball coefficient in [0, 1).
        dampening: Dampening in [0, 1); ignored without momentum, as in torch.
        nesterov: Nesterov momentum.
        c2: Gradient second moment on the unit sphere (scale-invariant weights).
        g2: Gradient second moment where it does not depend on the norm.

    Returns:
        Norm, angle (rad/step), effective lr (lr/norm^2) and relaxation time (steps).

    Raises:
        InputError: If there is no equilibrium, or not exactly one of c2 and g2 is given.

    Example:
        >>> round(sgd_equilibrium(0.4, 0.0025, c2=1.0).angle, 5)
        0.04473
    """
    if (c2 is None) == (g2 is None):
        raise InputError(
            "c2 and g2: give exactly one, c2 for scale-invariant weights or g2 for gradients of fixed size."
        )
    gain, chord = sgd_gain(lr, weight_decay, momentum, dampening, nesterov)
    squared = math.sqrt(gain * finite("c2", c2)) if c2 is not None else gain * finite("g2", g2)
    kappa = 1.0 - dampening if momentum else 1.0
    rate = (4 if c2 is not None else 2) * kappa * lr * weight_decay / (1 - momentum)
    alpha = _slow_root(lr * weight_decay * kappa, momentum, nesterov)
    return Equilibrium(
        norm=math.sqrt(squared),
        angle=float(angle_of_chord(chord)),
        relaxation_steps=1 / rate,
        law="sgd_equilibrium",
        effective_lr=lr / squared if squared > 0 else math.inf,
        relative_update=math.sqrt((1 - alpha) ** 2 + 2 * alpha * chord),
    )


def _slow_root(rho: float, momentum: float, nesterov: bool) -> float:
    """Factor by which weights shrink a step without gradients, once the momentum has settled (1 if they oscillate)."""
    phi1, phi2 = ((1 + momentum) * (1 - rho), momentum * (1 - rho)) if nesterov else (1 + momentum - rho, momentum)
    square = phi1**2 - 4 * phi2
    return (phi1 + math.sqrt(square)) / 2 if square >= 0 else 1.0
