"""Normalised momentum: the geometric sum, and the skeleton of AdamW."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step, equilibrium_symbols


def derivation() -> Derivation:
    """Derive norm and angle of decayed weights that step along a normalised exponential average of white noise.

    Returns:
        The proof.
    """
    eta, lam = equilibrium_symbols()
    a, r, sum_ = sp.Symbol("a", positive=True), sp.Symbol("R", positive=True), sp.Symbol("Sigma")
    beta = sp.Symbol("beta", nonnegative=True)
    recursion = sp.Eq(sum_, beta + a * beta * sum_)
    tail = sp.solve(recursion, sum_)[0]
    inner = -eta * tail
    balance = sp.Eq(r, a**2 * r - 2 * a * eta * inner + eta**2)
    squared = sp.factor(sp.solve(balance, r)[0])
    cosine = sp.simplify((a * squared - eta * inner) / squared)
    to_inputs = {a: 1 - eta * lam}
    return Derivation(
        law="normalized_momentum_equilibrium",
        setting=r"$w' = a w - \eta u$ with $a = 1-\eta\lambda$, $u = m/\|m\|$, $m$ an average of white noise with "
        r"coefficient $\beta$, many coordinates.",
        steps=(
            Step(
                r"Updates $k$ steps apart have $E\langle u_t, u_{t-k}\rangle = \beta^k$. Unrolling $w_t$ over the past "
                r"updates, its inner product with the present one is $-\eta\Sigma$, "
                r"$\Sigma = \sum_{k\ge1} a^{k-1}\beta^k$, a sum that repeats itself after its first term.",
                (recursion, sp.Eq(sum_, tail)),
            ),
            Step(
                "So the inner product of weights and update is",
                (sp.Eq(sp.Symbol(r"E\langle w,u\rangle"), inner),),
            ),
            Step(r"In equilibrium $R = E\|w\|^2$ is the same before and after the step.", (balance,)),
            Step("Solve for $R$.", (sp.Eq(r, squared),)),
            Step(
                r"The cosine of the rotation is $E\langle w, w'\rangle/R = a - \eta E\langle w,u\rangle/R$.",
                (sp.Eq(sp.Symbol("cos"), cosine),),
            ),
        ),
        result={
            "norm": sp.sqrt(squared).subs(to_inputs),
            "angle": sp.acos(sp.simplify(cosine.subs(to_inputs))),
        },
        inputs={"lr": eta, "weight_decay": lam, "momentum": beta},
        source="leading order Kosson et al., arXiv 2305.17212; exact form derived here",
    )
