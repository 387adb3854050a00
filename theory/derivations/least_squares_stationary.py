"""Where one-pass SGD settles: every mode is driven by the risk of all."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step, equilibrium_symbols
from theory.derivations.least_squares_trajectory import names, one_step


def derivation(modes: int = 2) -> Derivation:
    """Derive the stationary excess risk at constant learning rate without decay.

    Args:
        modes: Number of eigenvalues in the result.

    Returns:
        The proof.
    """
    eta, lam = equilibrium_symbols()
    n = names(2)
    risk, total = sp.symbols("T S", positive=True)
    step = one_step(2)[0].second.subs(lam, 0)
    shared = sp.expand(sp.expand(step).subs(n.second[1], (risk - n.h[0] * n.second[0]) / n.h[1]))
    balance = sp.Eq(n.second[0], sp.collect(shared, n.second[0]))
    mode = sp.factor(n.h[0] * sp.solve(balance, n.second[0])[0])
    driven = sp.factor(mode / (risk + n.noise))
    closure = sp.Eq(risk, total * (risk + n.noise))
    twice = sp.factor(sp.solve(closure, risk)[0])
    eigenvalues = sp.symbols(f"h_1:{modes + 1}", positive=True)
    sum_ = sum((driven.subs(n.h[0], h) for h in eigenvalues), start=sp.Integer(0))
    one = driven.subs(n.h[0], sp.Symbol("h", positive=True))
    leading = sp.series(twice / 2 * (1 - total), total, 0, 2).removeO().subs(total, sp.series(one, eta, 0, 2).removeO())
    return Derivation(
        law="least_squares_stationary",
        setting=r"Law `least\_squares\_trajectory` with $\lambda = 0$ at constant $\eta$; two coordinates stand for any number, "
        r"$T = \sum_ih_iC_i$.",
        steps=(
            Step(r"The second moment stays; the other coordinates enter through $T$ alone.", (balance,)),
            Step(
                r"Solve: $h_1C_1$ is $T + \sigma^2$ times a number.",
                (sp.Eq(n.h[0] * n.second[0], mode), sp.Eq(sp.Symbol("S_1"), driven)),
            ),
            Step(
                r"Sum over all modes, $S = \sum_iS_i$, and solve for $T$; the excess risk is half of it.",
                (closure, sp.Eq(risk, twice), sp.Eq(sp.Symbol("excess"), twice / 2)),
            ),
            Step(
                r"To leading order in $\eta$ a mode adds to the excess",
                (sp.Eq(sp.Symbol("excess_h"), leading),),
            ),
        ),
        result={"excess": (twice / 2).subs(total, sum_)},
        inputs={"eigenvalues": sp.Tuple(*eigenvalues), "lr": eta, "noise_variance": n.noise, "batch_size": n.batch},
        source="derived here",
    )
