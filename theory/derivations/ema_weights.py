"""How much of the final weights each step wrote: the weights of the average sum to one."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step, equilibrium_symbols


def derivation(unrolled: int = 3) -> Derivation:
    """Derive the weights of every step under any schedule, and their statistics at constant rates.

    Args:
        unrolled: Number of steps that are unrolled with rates of their own.

    Returns:
        The proof.
    """
    eta, lam = equilibrium_symbols()
    steps = sp.Symbol("T", integer=True, positive=True)
    t = sp.Symbol("t", integer=True)
    a = sp.Symbol("a", positive=True)
    start, total, rho = sp.symbols("w_0 Sigma rho")
    rates, targets = sp.symbols(f"rho_0:{unrolled}"), sp.symbols(f"z_0:{unrolled}")
    w = start
    for shrink, target in zip(rates, targets, strict=True):
        w = (1 - shrink) * w + shrink * target
    linear = sp.expand(w)
    weights = [sp.factor(linear.coeff(target)) for target in targets]
    initial = sp.factor(linear.coeff(start))
    induction = sp.Eq(sp.Symbol("Sigma'"), (1 - rho) * total + rho)

    partial = sp.Function("G")
    series = sp.Eq(partial(t + 1), a * partial(t) + 1)
    geometric = sp.rsolve(series, partial(t), {partial(0): 0})
    summed = sp.simplify(geometric.subs(t, steps))
    left = a**steps
    written = sp.simplify((1 - a) * summed)
    squares = sp.factor((1 - a) ** 2 * summed.subs(a, a**2))
    ages = sp.simplify((1 - a) * a * sp.diff(summed, a))
    n_eff, mean_age = sp.factor(written**2 / squares), sp.simplify(ages / written)
    values = {a: 1 - eta * lam}
    sums = {r"\sum c_j": written, r"\sum c_j^2": squares, r"\sum jc_j": ages}
    return Derivation(
        law="ema_weights",
        setting=r"Decoupled decay, $w' = (1-\rho_t)w + \rho_tz_t$ with $\rho_t = \eta_t\lambda_t$ and $z_t = -u_t/\lambda_t$.",
        steps=(
            Step("The first steps, unrolled.", (sp.Eq(sp.Symbol(f"w_{unrolled}"), w),)),
            Step(
                "So step $t$ enters with its rate times all later survivals, and what is left of the start is",
                (
                    *(sp.Eq(sp.Symbol(f"c_{n}"), weight) for n, weight in enumerate(weights)),
                    sp.Eq(sp.Symbol("c_{init}"), initial),
                ),
            ),
            Step(
                r"A further step takes the sum $\Sigma$ of all weights, the start's included, to $\Sigma'$: from 1 to 1.",
                (induction, sp.Eq(total, sp.solve(induction.subs(sp.Symbol("Sigma'"), total), total)[0])),
            ),
            Step(
                r"Constant rates, $a = 1-\rho$: a step that is $j$ steps old has $c_j = (1-a)a^j$. The geometric sum over "
                "all $T$ steps,",
                (series, sp.Eq(partial(steps), summed)),
            ),
            Step(
                r"gives the sum of the weights, with $a^2$ in place of $a$ that of their squares, and by $a\,d/da$ that of "
                "ages.",
                tuple(sp.Eq(sp.Symbol(name), value) for name, value in sums.items()),
            ),
            Step(
                "Effective number of steps and mean age.",
                (sp.Eq(sp.Symbol("n_{eff}"), n_eff), sp.Eq(sp.Symbol("age"), mean_age)),
            ),
            Step(
                r"In a long run $a^T$ is forgotten.",
                (sp.Eq(sp.Symbol(r"n_\infty"), sp.factor(n_eff.subs(left, 0)).subs(a, 1 - rho)),),
            ),
        ),
        result={
            "total": sp.simplify(written + left).subs(values),
            "initial": left.subs(values),
            "n_eff": n_eff.subs(values),
            "mean_age": mean_age.subs(values),
        },
        inputs={"peak": eta, "steps": steps, "weight_decay": lam},
        source="Wang and Aitchison, arXiv 2405.13698; statistics derived here",
    )
