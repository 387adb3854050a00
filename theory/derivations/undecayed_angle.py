"""Without decay: the norm is a sum of updates, and the rate drops out of the rotation."""

import sympy as sp

from theory.derivations import adamw_drift_corrected_angle
from theory.derivations.derivation import Derivation, Step


def derivation(scale_invariant_sgd: bool = False) -> Derivation:
    """Derive the rotation after n steps without decay.

    Args:
        scale_invariant_sgd: SGD with gradients of size c/||w||, rather than updates of fixed size.

    Returns:
        The proof.
    """
    eta, c, n, start, square0 = sp.symbols("eta c n n_0 R_0", positive=True)
    t, s = sp.Symbol("t", positive=True), sp.Symbol("s", positive=True)
    norm = sp.Function("R")
    slope = eta**2 * c**2 / norm(t) if scale_invariant_sgd else eta**2 * c**2
    solution = sp.dsolve(sp.Eq(norm(t).diff(t), slope), norm(t), ics={norm(0): square0})
    squared = sp.factor((solution[-1] if isinstance(solution, list) else solution).rhs)
    worth = sp.solve(squared.subs({t: n, square0: 0}) - square0, n)[0]
    grown = sp.simplify(squared.subs(square0, squared.subs({t: start, square0: 0})).subs(t, n))
    stretch = sp.sqrt(sp.simplify(grown.subs(n, n + 1) / grown))
    drifting = adamw_drift_corrected_angle.derivation(measured=True)
    nu, drift = drifting.inputs["variance_ratio"], drifting.inputs["drift"]
    law = sp.cos(drifting.result["angle"]).subs(drifting.inputs["weight_decay"], 0)
    cosine = sp.simplify(law.subs(drift, sp.log(s)))
    value = cosine.subs(s, stretch)
    late = sp.Symbol("x", positive=True)
    leading = sp.simplify(2 * sp.limit((1 - value).subs(start, 0).subs(n, 1 / late) / late, late, 0))
    return Derivation(
        law="undecayed_angle",
        setting=r"No decay, white gradients: $R = E\|w\|^2$ grows by the long-run variance of the updates, "
        + (r"$\eta^2c^2/R$ for gradients of size $c/\|w\|$." if scale_invariant_sgd else r"$\eta^2c^2$ in every step."),
        steps=(
            Step("The norm's equation and its solution.", (sp.Eq(norm(t).diff(t), slope), sp.Eq(norm(t), squared))),
            Step(
                r"The initial norm is worth $n_0$ steps from nothing; write the norm in these.",
                (sp.Eq(start, worth), sp.Eq(sp.Symbol("R_n"), grown)),
            ),
            Step(r"One step stretches the norm by", (sp.Eq(s, stretch),)),
            Step(
                r"That is a drift $\ln s$ without decay: law `adamw\_drift\_corrected\_angle`, $\nu$ the share of the growth "
                r"that is one update's own square.",
                (sp.Eq(sp.Symbol("cos"), cosine), sp.Eq(sp.Symbol("cos"), value)),
            ),
            Step(
                r"For many steps the angle's square falls as $1/n$, whatever $\eta$.",
                (sp.Eq(n * sp.Symbol("theta_{lead}") ** 2, leading),),
            ),
        ),
        result={"angle": sp.acos(value)},
        inputs={"steps": n, "variance_ratio": nu, "start": start},
        source="derived here",
    )
