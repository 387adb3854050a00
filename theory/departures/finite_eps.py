"""What a normalisation's eps does to scale invariance as weights shrink."""

from __future__ import annotations

import math
from dataclasses import dataclass

from theory.errors import finite, require
from theory.results import Equilibrium, angle_of_chord


@dataclass(frozen=True)
class FiniteEps:
    """How far y = x/sqrt(variance + eps) is from a normalisation, for weights scaled by `scale`."""

    gain: float
    """Size of the output, and of the tangential gradient, over that of an exact normalisation, in (0, 1]."""
    defect: float
    """d log||y||/d log||w||, in [0, 1): 0 for scale-invariant weights, 1 where eps switched the normalisation off."""
    floor_scale: float
    """Scale of the weights at which variance and eps are equal; below it gradients stop growing."""
    law: str = "finite_eps"
    """Name of the law that gave it."""


def finite_eps(eps: float, variance: float, scale: float = 1.0) -> FiniteEps:
    r"""Defect of invariance and effective gradient of weights before a normalisation with finite eps.

    Setting: y = x/sqrt(V + eps), x = W z linear in the weights, V = scale^2 variance its variance. With r = eps/V:
    y = gain * (exact normalisation), gain = 1/sqrt(1+r), so that only the gain depends on the weights' norm:

    - <w, dL/dw> = defect <y, dL/dy>, defect = r/(1+r) = eps/(V+eps), exactly, for every loss (with an affine gain gamma
      behind it <y, dL/dy> = gamma dL/dgamma: readable without touching the weights' gradient);
    - the tangential gradient is gain times that of the exact normalisation (exactly, for dL/dy orthogonal to y; else to
      O(r)): ||g|| = c/sqrt(||w||^2 + floor^2) with floor = floor_scale ||w||. Under SGD the rotation falls by `gain`
      against what lr/||w||^2 says; under Adam, which divides the gradient's size away, it does not.

    Source: derived here. Exact (bar 1e-9).

    Args:
        eps: Constant added to the variance, >= 0.
        variance: Variance of x at scale 1, > 0.
        scale: Factor on the weights, > 0.

    Returns:
        Gain, defect and the scale at which they are 1/sqrt(2) and 1/2.

    Raises:
        InputError: If variance or scale is not positive.

    Example:
        >>> round(finite_eps(eps=1e-5, variance=1e-3, scale=0.1).defect, 6)
        0.5
    """
    require(finite("variance", variance) > 0, "variance", variance, "a positive number")
    require(finite("scale", scale) > 0, "scale", scale, "a positive number")
    ratio = finite("eps", eps) / (scale**2 * variance)
    return FiniteEps(1 / math.sqrt(1 + ratio), ratio / (1 + ratio), math.sqrt(eps / variance))


def finite_eps_equilibrium(
    lr: float, weight_decay: float, c2: float, floor: float, pull: float = 0.0, momentum: float = 0.0
) -> Equilibrium:
    r"""Equilibrium of SGD with coupled decay on weights before a normalisation with finite eps.

    Setting: ||g||^2 = c2/(R + floor^2) tangentially and <w,g> = pull floor^2/(R + floor^2) on average (`finite_eps`),
    R = ||w||^2, lr_e = lr/(1-momentum). Stationarity of R: 2 wd R (R + floor^2) + 2 pull floor^2 = lr_e c2, so
    R = sqrt(floor^4/4 + (lr_e c2 - 2 pull floor^2)/(2 wd)) - floor^2/2 and cos = 1 - lr (wd + <w,g>/R)/(1+momentum):
    without a pull the rotation is still that of lr*wd, only the norm is smaller. A pull of lr_e c2/(2 floor^2) or more
    lets the weights collapse.

    Source: derived here; floor = 0 is `sgd_equilibrium` to leading order. Accuracy 1 % for lr_e*wd <= 1e-2 (the next
    order is lr*wd/2).

    Args:
        lr: Learning rate.
        weight_decay: L2 coefficient.
        c2: Gradient second moment on the unit sphere of the exact normalisation, E||g||^2 ||w||^2 at large norms.
        floor: Norm at which the variance equals eps: floor_scale*||w||.
        pull: Mean of <y, dL/dy>, any sign; positive where the loss wants smaller outputs.
        momentum: Heavy-ball coefficient in [0, 1).

    Returns:
        Norm, angle (rad/step) and relaxation time (steps).

    Raises:
        InputError: If lr*weight_decay is not in (0, 1), c2 is not positive, or there is no equilibrium.

    Example:
        >>> exact, rounded = (finite_eps_equilibrium(0.1, 0.01, 1.0, floor).norm for floor in (0.0, 2.0))
        >>> round(exact, 3), round(rounded, 3)
        (1.495, 1.0)
    """
    shrink, mu = finite("lr", lr) * finite("weight_decay", weight_decay), finite("momentum", momentum, high=1.0)
    require(0 < shrink < 1, "lr * weight_decay", shrink, "in (0, 1)")
    require(finite("c2", c2) > 0, "c2", c2, "a positive number")
    finite("pull", pull, low=-1e300)
    edge, rate = finite("floor", floor) ** 2, lr / (1 - mu)
    supply = (rate * c2 - 2 * pull * edge) / (2 * weight_decay)
    require(supply > 0, "pull", pull, f"below lr c2/(2 (1-momentum) floor^2) = {rate * c2 / (2 * edge or 1):.3g}")
    squared = 2 * supply / (edge + math.sqrt(edge**2 + 4 * supply))
    decay = weight_decay + pull * edge / ((squared + edge) * squared)
    # minus the slope of dR/dt = (rate^2 c2 - 2 rate pull floor^2 - 2 rate wd R (R+floor^2))/(R+floor^2) where it is 0
    fall = 2 * rate * weight_decay * (2 * squared + edge) / (squared + edge)
    return Equilibrium(
        norm=math.sqrt(squared),
        angle=float(angle_of_chord(lr * decay / (1 + mu))),
        relaxation_steps=1 / fall,
        law="finite_eps_equilibrium",
        effective_lr=lr / squared,
        relative_update=lr * math.sqrt(c2 / ((1 - mu**2) * (squared + edge) * squared)),
    )
