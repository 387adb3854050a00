"""Facts of scale invariance: identities that hold for every loss with f(s*w) = f(w), any gradients, any data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from theory.errors import finite, require
from theory.results import Angles, angle_of_chord

OptimizerName = Literal["sgd", "adam_l2", "adamw", "lion", "signum", "muon"]

_POWERS = {"sgd": (2, -2), "adam_l2": (1, -2), "adam": (1, -2)} | dict.fromkeys(
    ("adamw", "lion", "signum", "normalized_momentum", "muon"), (1, -1)
)
"""Powers of the weights' scale that lr and weight_decay take up, by optimizer."""


@dataclass(frozen=True)
class Defect:
    """How far a tensor is from scale invariance; both numbers are 0 if it holds."""

    radial: float
    """|<g,w>|/(||g|| ||w||), in [0, 1]."""
    hessian: float
    """||H w + g||/||g||."""


@dataclass(frozen=True)
class Rescaled:
    """Hyper-parameters of the run that starts from scale*w and takes the same directions."""

    lr: float
    weight_decay: float
    eps: float


@dataclass(frozen=True)
class Norm:
    """A norm after one step."""

    norm: float


def invariance_defect(weight: ArrayLike, gradient: ArrayLike, hessian_weight: ArrayLike) -> Defect:
    """Numerical defect of scale invariance at one point.

    Euler: differentiating f(s*w) = f(w) in s at 1 gives <g,w> = 0, and that in w gives H w + g = 0
    (van Laarhoven, arXiv 1706.05350; Arora et al., arXiv 1812.03981).

    Args:
        weight: Weights w, shape (d,).
        gradient: Gradient g at w, shape (d,).
        hessian_weight: Hessian-vector product H w, shape (d,).

    Returns:
        The two relative defects.

    Example:
        >>> invariance_defect([1.0, 0.0], [0.0, 2.0], [0.0, -2.0])
        Defect(radial=0.0, hessian=0.0)
    """
    w, g, hw = (np.ravel(np.asarray(x, dtype=np.float64)) for x in (weight, gradient, hessian_weight))
    g_norm, w_norm = np.linalg.norm(g), np.linalg.norm(w)
    require(bool(g_norm > 0 and w_norm > 0), "weight, gradient", (w_norm, g_norm), "vectors of non-zero norm")
    return Defect(float(abs(g @ w) / (g_norm * w_norm)), float(np.linalg.norm(hw + g) / g_norm))


def sgd_norm_step(norm: float, grad_norm: float, lr: float, weight_decay: float) -> Norm:
    """Norm after one plain SGD step with coupled decay on scale-invariant weights: Pythagoras.

    ||w'||^2 = (1 - lr*weight_decay)^2 ||w||^2 + lr^2 ||g||^2, because g is orthogonal to w.

    Args:
        norm: ||w|| before the step.
        grad_norm: ||g||.
        lr: Learning rate.
        weight_decay: L2 coefficient.

    Returns:
        The norm after the step.

    Example:
        >>> round(sgd_norm_step(1.0, 1.0, lr=0.1, weight_decay=0.0).norm, 6)
        1.004988
    """
    kept = 1 - finite("lr", lr) * finite("weight_decay", weight_decay)
    return Norm(float(np.hypot(kept * finite("norm", norm), lr * finite("grad_norm", grad_norm))))


def angle_from_norms(norms: ArrayLike, lr: float, weight_decay: float, momentum: float = 0.0) -> Angles:
    """Rotation per step of scale-invariant weights under SGD, from their norms alone.

    With R_t = ||w_t||^2 and P_t = <w_t, w_{t+1}>: P_0 = (1-lr*wd) R_0, P_t = (1+momentum-lr*wd) R_t - momentum P_{t-1},
    by taking the inner product of the heavy-ball recursion with w_t and <g_t, w_t> = 0. Exact for any loss and any
    gradients (dampening 0, constant rates, empty first buffer). Corollary: at stationary norm
    cos = 1 - lr*wd/(1+momentum), signal or noise alike. Needs norms better than float32: errors grow as eps/angle^2.

    Args:
        norms: ||w_t|| for t = 0..n, float64, shape (n+1,).
        lr: Learning rate, constant.
        weight_decay: L2 coefficient, constant.
        momentum: Heavy-ball coefficient.

    Returns:
        Angles between w_t and w_{t+1}, rad/step, shape (n,).

    Example:
        >>> angle_from_norms([1.0, 1.0], lr=0.1, weight_decay=0.02).angle.round(5).tolist()
        [0.06326]
    """
    r = np.asarray(norms, dtype=np.float64)
    require(r.ndim == 1 and len(r) >= 2 and bool(np.all(r > 0)), "norms", r.shape, "at least two positive numbers")
    squared, rho = r**2, finite("lr", lr) * finite("weight_decay", weight_decay)
    finite("momentum", momentum, high=1.0)
    if momentum == 0:
        inner = (1 - rho) * squared[:-1]
    else:
        inner = np.empty(len(r) - 1)
        inner[0] = (1 - rho) * squared[0]
        for t in range(1, len(inner)):
            inner[t] = (1 + momentum - rho) * squared[t] - momentum * inner[t - 1]
    scale = r[:-1] * r[1:]
    return Angles(np.asarray(angle_of_chord((scale - inner) / scale)))


def rescaled_hyperparameters(
    optimizer: OptimizerName, lr: float, weight_decay: float, eps: float, scale: float
) -> Rescaled:
    """Hyper-parameters for which the run started from scale*w takes the same directions.

    Gradients of a scale-invariant loss shrink by `scale` when the weights grow by it; matching the update gives
    SGD: lr*scale^2, wd/scale^2; decoupled optimizers: lr*scale, wd/scale; Adam with coupled L2: lr*scale, wd/scale^2;
    Adam's eps/scale. Exact.

    Args:
        optimizer: "sgd", "adam_l2", "adamw", "lion", "signum" or "muon".
        lr: Learning rate.
        weight_decay: Decay coefficient.
        eps: Adam's epsilon.
        scale: Factor on the initial weights, > 0.

    Returns:
        The rescaled (lr, weight_decay, eps).

    Raises:
        InputError: If the optimizer is unknown or the scale not positive.

    Example:
        >>> rescaled_hyperparameters("sgd", lr=0.1, weight_decay=0.01, eps=0.0, scale=2.0)
        Rescaled(lr=0.4, weight_decay=0.0025, eps=0.0)
    """
    require(finite("scale", scale) > 0, "scale", scale, "a positive number")
    require(optimizer in _POWERS, "optimizer", optimizer, f"one of {', '.join(sorted(_POWERS))}")
    up, down = _POWERS[optimizer]
    lr, weight_decay, eps = finite("lr", lr), finite("weight_decay", weight_decay), finite("eps", eps)
    return Rescaled(lr * scale**up, weight_decay * scale**down, eps / scale)


def effective_lr(optimizer: OptimizerName, lr: float, norm: float) -> float:
    """Learning rate that the direction of a scale-invariant tensor feels.

    Args:
        optimizer: As in `rescaled_hyperparameters`.
        lr: Learning rate.
        norm: ||w|| (or its RMS, for a rate per coordinate).

    Returns:
        lr/norm^2 for SGD, lr/norm for the others (per tensor; never one number per network).

    Raises:
        InputError: If the optimizer is unknown, the norm not positive or the rate negative.

    Example:
        >>> effective_lr("adamw", lr=1e-3, norm=2.0)
        0.0005
    """
    require(optimizer in _POWERS, "optimizer", optimizer, f"one of {', '.join(sorted(_POWERS))}")
    require(finite("norm", norm) > 0, "norm", norm, "a positive number")
    return finite("lr", lr) / norm ** _POWERS[optimizer][0]
