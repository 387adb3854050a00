"""Decay conventions under a schedule: which of them leaves the norm alone."""

import sympy as sp

from theory.derivations import closed_form_norm
from theory.derivations.derivation import Derivation, Step
from theory.errors import require

CONVENTIONS = ("adamw", "corrected", "independent")
KINDS = ("constant", "linear", "cosine")


def derivation(convention: str = "corrected", kind: str = "linear") -> Derivation:
    """Derive the squared norm halfway and at the end, relative to its equilibrium at the peak rate.

    Args:
        convention: adamw, corrected or independent.
        kind: constant, linear or cosine (both to zero).

    Returns:
        The proof.

    Raises:
        InputError: If the convention or kind is unknown.
    """
    require(convention in CONVENTIONS, "convention", convention, f"one of {', '.join(CONVENTIONS)}")
    require(kind in KINDS, "kind", kind, f"one of {', '.join(KINDS)}")
    kappa, r0, s = closed_form_norm.symbols()
    steps, rate = closed_form_norm.equation()
    x, share, r = sp.symbols("x l r", positive=True)
    shares = {"adamw": sp.Integer(1), "corrected": x, "independent": 1 / x}
    specific = sp.factor(rate.subs(share, shares[convention]))
    steady = sp.solve(specific, r)[0]
    schedule = {"constant": sp.Integer(1), "linear": 1 - s, "cosine": (1 + sp.cos(sp.pi * s)) / 2}[kind]
    of_s = sp.Function("r")(s)
    if convention == "corrected":
        excess = sp.Function("y")(s)
        gap = sp.Eq(
            excess.diff(s),
            sp.factor(specific.subs(r, 1 + sp.Symbol("y"))).subs(sp.Symbol("y"), excess).subs(x, schedule),
        )
        value = 1 + sp.dsolve(gap, excess, ics={excess.subs(s, 0): r0 - 1}).rhs
        solved = Step(
            r"$r = 1$ is a fixed point whatever $x$ does. A displacement $y = r - 1$ shrinks; solve.",
            (gap, sp.Eq(of_s, value)),
        )
    else:
        total, integral = closed_form_norm.relaxed(schedule, shares[convention].subs(x, schedule), sp.Integer(0))
        value = r0 * sp.exp(-2 * kappa * total) + integral
        solved = Step("Solve by the integrating factor.", (sp.Eq(of_s, value),))
    return Derivation(
        law="decay_convention_norm",
        setting=r"$w' = (1-\eta\lambda_t)w - \eta u$, $u$ white; $\lambda_t = l\lambda$ with $l = 1$ (AdamW), $l = x$ "
        r"(corrected, $\eta^2\lambda/\eta_{max}$) or $l = 1/x$ (independent of the rate).",
        steps=(
            *steps,
            Step(
                f"The convention ({convention}), and where the norm would settle if the rate stayed.",
                (sp.Eq(share, shares[convention]), sp.Eq(of_s.diff(s), specific), sp.Eq(sp.Symbol("r_x"), steady)),
            ),
            Step("The schedule.", (sp.Eq(x, schedule),)),
            solved,
        ),
        result={"r_half": value.subs(s, sp.Rational(1, 2)), "r_end": value.subs(s, 1)},
        inputs={"kappa": kappa, "r0": r0},
        source="corrected, Defazio, arXiv 2506.02285; independent, Loshchilov and Hutter, arXiv 1711.05101; solutions "
        "derived here",
    )
