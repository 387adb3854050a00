"""The proofs: one file for each closed form, from the optimizer's update rule to the formula, carried out by sympy."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from theory.derivations.derivation import Derivation, Step
from theory.errors import require

__all__ = ["DERIVED", "Derivation", "Step", "derive"]

DERIVED = tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "derivation"))
"""Names of the laws that have a proof here."""


@cache
def derive(law: str) -> Derivation:
    """Derive a law symbolically, from the update rule of the optimizer to the formula that `theory` computes.

    Args:
        law: Name of the law, one of `DERIVED`.

    Returns:
        The proof; it shows itself in a notebook, and `latex()` prints it.

    Raises:
        InputError: If there is no such derivation.

    Example:
        >>> print(derive("normalized_momentum_equilibrium").steps[4].equations[0])
        Eq(cos, (a + beta)/(a*beta + 1))
    """
    require(law in DERIVED, "law", law, f"one of {', '.join(DERIVED)}")
    return importlib.import_module(f"theory.derivations.{law}").derivation()
