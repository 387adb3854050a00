"""Why gradient norms rise at the end of training: weights shrink as the learning rate falls."""

from __future__ import annotations

from dataclasses import dataclass

from theory.errors import require
from theory.trajectory.closed_form import closed_form_norm


@dataclass(frozen=True)
class GradientRise:
    """Growth of the gradient norm over a decay of the learning rate to zero."""

    rise: float
    """Gradient norm at the end over that in equilibrium at the peak, dimensionless."""
    law: str = "gradient_rise"
    """Name of the law that gave it."""


def gradient_rise(kind: str, kappa: float) -> GradientRise:
    """How much gradient norms rise while the learning rate falls to zero, for scale-invariant weights.

    Setting: ||g|| = c/||w|| with constant c, Adam family, started in equilibrium at the peak rate. rise = r(1)^(-1/2)
    with r of `closed_form_norm`, r0 = 1: linear (sqrt(pi) erf(sqrt kappa)/(2 sqrt kappa))^(-1/2) -> (4 kappa/pi)^(1/4);
    cosine -> A^(-1/2) kappa^(1/3). Finite, where the quasi-static R ~ lr would let it diverge. SGD: take kappa
    doubled and divided by 1 - momentum, and the square root of the result.

    Source: the effect, Defazio, arXiv 2506.02285; closed forms derived here. Exact for the equation; AdamW
    1 % for lr*wd <= 1e-3 and lr*wd <= (1-beta2)/20: a slower second moment lags behind 1/||w||^2 and damps the rise (by
    6 % at lr*wd = 1-beta2).

    Args:
        kind: linear or cosine, both to zero.
        kappa: peak*wd*T >= 0, dimensionless.

    Returns:
        The rise, >= 1.

    Raises:
        InputError: If the kind is unknown or kappa negative.

    Example:
        >>> [round(gradient_rise("linear", kappa).rise, 2) for kappa in (2, 10, 100)]
        [1.29, 1.89, 3.36]
    """
    require(kind in ("linear", "cosine"), "kind", kind, "linear or cosine (both decay to zero)")
    return GradientRise(rise=closed_form_norm(kind, kappa, 1.0).r ** -0.5)
