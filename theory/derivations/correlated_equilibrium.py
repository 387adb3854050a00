"""Gradients with memory: stationary second moments of gradient, momentum and weights."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step, equilibrium_symbols


def derivation(scale_invariant: bool = True) -> Derivation:
    """Derive norm and angle of weights that follow an exponential average of AR(1) gradients, with decoupled decay.

    Args:
        scale_invariant: Gradients orthogonal to the weights, correlated in the frame that turns with them.

    Returns:
        The proof.
    """
    eta, lam = equilibrium_symbols()
    beta, rho = sp.Symbol("beta", nonnegative=True), sp.Symbol("rho", real=True)
    a, momentum, norm = sp.symbols("a M R", positive=True)
    g, m, w, xi = sp.symbols("g m w xi")
    gm, wg, wm = (sp.Symbol(rf"E\langle {pair}\rangle") for pair in ("g,m", "w,g", "w,m"))
    products = {g**2: 1, xi**2: 1, m**2: momentum, w**2: norm, g * m: gm, w * g: wg, w * m: wm}

    def mean(product: sp.Expr) -> sp.Expr:
        """Average of a quadratic form; the innovation xi is new to g, m and w."""
        terms = sp.Poly(product, g, m, w, xi).as_dict()
        monomials = (
            (sp.prod(x**e for x, e in zip((g, m, w, xi), powers, strict=True)), c) for powers, c in terms.items()
        )
        return sum((c * products.get(monomial, 0) for monomial, c in monomials), start=sp.Integer(0))

    g_new = rho * g + sp.sqrt(1 - rho**2) * xi
    m_new = beta * m + (1 - beta) * g_new
    w_new = a * w - eta * m
    wg_new = sp.Integer(0) if scale_invariant else mean(w_new * g_new)
    stationary = (
        sp.Eq(gm, mean(g_new * m_new)),
        sp.Eq(momentum, mean(m_new**2)),
        sp.Eq(wg, wg_new),
        sp.Eq(wm, sp.expand(beta * mean(w_new * m) + (1 - beta) * wg)),
        sp.Eq(norm, mean(w_new**2)),
    )
    solution = sp.solve(stationary, (gm, momentum, wg, wm, norm), dict=True)[0]
    squared = sp.factor(solution[norm])
    cosine = sp.expand(mean(w * w_new) / norm)
    value = sp.factor(cosine.subs(solution))
    to_inputs = {a: 1 - eta * lam}
    known = (
        r"scale invariance makes $E\langle w,g\rangle = 0$ at every step, whatever the past"
        if scale_invariant
        else r"$E\langle w,g\rangle$ builds up, because the gradient remembers what moved the weights"
    )
    return Derivation(
        law="correlated_equilibrium",
        setting=r"$g' = \rho g + \sqrt{1-\rho^2}\,\xi$ with $E\|g\|^2 = E\|\xi\|^2 = 1$, $\xi$ new; $m' = \beta m + (1-\beta)g'$; "
        r"$w' = aw - \eta m$ with $a = 1-\eta\lambda$; $g$, $m$, $w$ of the same step.",
        steps=(
            Step(
                r"Write the next step in terms of this one; $M = E\|m\|^2$, $R = E\|w\|^2$.",
                (
                    sp.Eq(sp.Symbol("g'"), g_new),
                    sp.Eq(sp.Symbol("m'"), m_new),
                    sp.Eq(sp.Symbol("w'"), w_new),
                    sp.Eq(a, 1 - eta * lam),
                ),
            ),
            Step(f"Multiply in pairs and average: every second moment is stationary, and {known}.", stationary),
            Step(
                "The equations are linear; solve them.",
                tuple(sp.Eq(name, sp.factor(formula)) for name, formula in solution.items()),
            ),
            Step(
                r"The cosine of the rotation is $E\langle w, w'\rangle/R$.",
                (sp.Eq(sp.Symbol("cos"), cosine), sp.Eq(sp.Symbol("cos"), value)),
            ),
        ),
        result={
            "norm": sp.sqrt(squared.subs(to_inputs)),
            "angle": sp.acos(value.subs(to_inputs)),
            "effective_lr": eta / sp.sqrt(squared.subs(to_inputs)),
            "relative_update": eta * sp.sqrt((sp.factor(solution[momentum]) / squared).subs(to_inputs)),
        },
        inputs={"lr": eta, "weight_decay": lam, "rho": rho, "momentum": beta},
        source="derived here",
    )
