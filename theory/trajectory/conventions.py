"""What a schedule does to norms under the decay conventions: coupled to the rate, corrected, independent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from theory.errors import finite, require
from theory.results import Array
from theory.trajectory.closed_form import Function, relaxed


@dataclass(frozen=True)
class ConventionNorm:
    """Squared norm relative to its equilibrium at the peak rate, halfway and at the end."""

    r_half: float
    """R/R* at half time, dimensionless."""
    r_end: float
    """R/R* at the end, dimensionless."""
    law: str = "decay_convention_norm"
    """Name of the law that gave it."""


# per kind: x^2, and the integrals of x and of x^2 from 0 to s
_KINDS: dict[str, tuple[Function, Function, Function]] = {
    "constant": (lambda s: np.ones_like(s), lambda s: s, lambda s: s),
    "linear": (lambda s: (1 - s) ** 2, lambda s: s - s**2 / 2, lambda s: s - s**2 + s**3 / 3),
    "cosine": (
        lambda s: np.cos(np.pi * s / 2) ** 4,
        lambda s: (s + np.sin(np.pi * s) / np.pi) / 2,
        lambda s: 3 * s / 8 + np.sin(np.pi * s) / (2 * np.pi) + np.sin(2 * np.pi * s) / (16 * np.pi),
    ),
}
_CONVENTIONS = ("adamw", "corrected", "independent")


def decay_convention_norm(convention: str, kind: str, kappa: float, *, r0: float = 1.0) -> ConventionNorm:
    """Norms under a schedule for three conventions of decoupled decay, momentum-free limit.

    Setting: dr/ds = 2 kappa (x^2 - x l r), x = lr/peak, l = wd_t/wd, kappa = peak*wd*T. `adamw`: l = 1. `corrected`
    (AdamC): l = x, dr/ds = 2 kappa x^2 (1 - r), so r = 1 stays and r - 1 decays as exp(-2 kappa int x^2).
    `independent`: l = 1/x, dr/ds = 2 kappa (x^2 - r), and sqrt(r) follows x for kappa >> 1.

    Source: corrected, Defazio, arXiv 2506.02285; independent, Loshchilov & Hutter, arXiv 1711.05101; solutions derived
    here. Exact for the equation; torch.optim.AdamW in r: corrected 2 %, independent 4 % halfway and 10 % at the end.

    Args:
        convention: adamw, corrected or independent.
        kind: linear or cosine (both to zero), or constant.
        kappa: peak*wd*T >= 0, dimensionless.
        r0: Initial r >= 0.

    Returns:
        r halfway and at the end, dimensionless.

    Raises:
        InputError: If the convention or kind is unknown, or a number negative.

    Example:
        >>> decay_convention_norm("corrected", "cosine", 4.0).r_end
        1.0
        >>> round(decay_convention_norm("independent", "cosine", 4.0).r_end, 3)
        0.019
    """
    require(convention in _CONVENTIONS, "convention", convention, f"one of {', '.join(_CONVENTIONS)}")
    require(kind in _KINDS, "kind", kind, f"one of {', '.join(_KINDS)}")
    kappa, r0 = finite("kappa", kappa), finite("r0", r0)
    squared, first, second = _KINDS[kind]

    def at(s: float) -> float:
        if convention == "corrected":
            return 1 + (r0 - 1) * float(np.exp(-2 * kappa * second(np.asarray(s))))
        decay: Function = first if convention == "adamw" else _identity
        return relaxed(r0, s, kappa, squared, decay)

    return ConventionNorm(r_half=at(0.5), r_end=at(1.0))


def _identity(s: Array) -> Array:
    return s
