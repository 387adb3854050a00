"""The law of cosines: rotation from the relative size of the update."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step, equilibrium_symbols


def derivation() -> Derivation:
    """Derive the rotation at stationary norm from the relative update.

    Returns:
        The proof.
    """
    eta, lam = equilibrium_symbols()
    a, r, rho = sp.symbols("a R rho", positive=True)
    inner = sp.Symbol(r"\langle w,hu\rangle", real=True)
    balance = sp.Eq(r, a**2 * r - 2 * a * inner + rho**2 * r)
    solved = sp.solve(balance, inner)[0]
    cosine = sp.expand((a * r - solved) / r)
    chord = sp.factor(1 - cosine)
    shrink = sp.Eq(a, 1 - eta * lam)
    return Derivation(
        law="angle_from_relative_update",
        setting=r"$w' = aw - hu$ with $a = 1-\eta\lambda$, $\rho = \|hu\|/\|w\|$, $R = \|w\|^2 = \|w'\|^2$.",
        steps=(
            Step("The squared norm is the same before and after the step.", (shrink, balance)),
            Step("So the inner product of weights and update is", (sp.Eq(inner, solved),)),
            Step(
                r"The cosine of the rotation is $\langle w, w'\rangle/R = a - \langle w,hu\rangle/R$.",
                (sp.Eq(sp.Symbol("cos"), cosine), sp.Eq(1 - sp.Symbol("cos"), chord)),
            ),
        ),
        result={"angle": sp.acos(cosine.subs(a, shrink.rhs))},
        inputs={"relative_update": rho, "lr": eta, "weight_decay": lam},
        source="derived here",
    )
