"""AdamW on a weight whose gradient has a mean: the pull of the signal, and where it outweighs the noise."""

import sympy as sp

from theory.derivations import normalized_momentum_equilibrium
from theory.derivations.decoupled_equilibrium import geometric
from theory.derivations.derivation import Derivation, Step, equilibrium_symbols


def derivation() -> Derivation:
    """Derive the mean weight to first order in 1-beta2, and the critical signal-to-noise ratio.

    Returns:
        The proof.
    """
    eta, lam = equilibrium_symbols()
    b1, b2 = sp.symbols("beta_1 beta_2", nonnegative=True)
    s, xi = sp.symbols("s xi", real=True)
    e, positive, shrink = sp.symbols("e s rho", positive=True)
    size, delta, weight, drift, noise = sp.symbols("x delta E[w] E[u] V_0")
    spread, mixed = sp.Symbol(r"E[\delta^2]"), sp.Symbol(r"E[\bar\xi\delta]")

    def mean(formula: sp.Expr) -> sp.Expr:
        """Average over the standard normal xi, power by power."""
        density = sp.exp(-(xi**2) / 2) / sp.sqrt(2 * sp.pi)
        powers = sp.Poly(formula, xi).terms()
        return sp.factor(sum(c * sp.integrate(xi**k * density, (xi, -sp.oo, sp.oo)) for (k,), c in powers))

    second = mean((s + xi) ** 2)
    surprise = sp.expand(((s + xi) ** 2 - second) / second)
    averages = {
        e: second,
        spread: geometric((1 - b2) ** 2 * mean(surprise**2), b2**2),
        mixed: geometric((1 - b1) * (1 - b2) * mean(xi * surprise), b1 * b2),
    }
    root = 1 / sp.sqrt(1 + size * delta)
    inverse = sp.series(root, size, 0, 3)
    orders = sp.Poly(inverse.removeO().subs(size, 1), delta)
    pull = (s + orders.coeff_monomial(delta) * mixed + orders.coeff_monomial(delta**2) * s * spread) / sp.sqrt(e)
    balance = sp.Eq(weight, (1 - eta * lam) * weight - eta * drift)
    stationary = sp.solve(balance, weight)[0]
    formula = stationary.subs(drift, pull).subs(averages)
    slope = sp.limit(formula.subs(b2, 1).subs(s, positive) / positive, positive, 0)
    walk = normalized_momentum_equilibrium.derivation()
    beta = walk.inputs["momentum"]
    skeleton = ((1 - beta) / (1 + beta) * walk.result["norm"] ** 2).subs(lam, shrink / eta)
    spread_of_w = sp.limit(sp.simplify(skeleton * shrink), shrink, 0).subs(shrink, eta * lam) / (eta * lam)
    balance_point = sp.Eq((slope * positive) ** 2, noise)
    critical = sp.solve(balance_point.subs(noise, spread_of_w), positive)[0]
    return Derivation(
        law="adamw_signal_noise",
        setting=r"torch.optim.AdamW on one weight that is not scale-invariant; in units of $\sigma$ its gradient is $s + \xi$, "
        r"$\xi$ white and standard normal, so that $m = s + \bar\xi$.",
        steps=(
            Step(
                r"The second moment is $v = e(1+\delta)$, $\delta$ the average with $\beta_2$ of the relative surprise $y$.",
                (sp.Eq(e, second), sp.Eq(sp.Symbol("y"), surprise)),
            ),
            Step(
                r"$\delta$ and $\bar\xi$ share gradients: geometric sums over their ages of $E y^2$ and $E\,\xi y$.",
                (
                    sp.Eq(sp.Symbol("E[y^2]"), mean(surprise**2)),
                    sp.Eq(sp.Symbol(r"E[\xi y]"), mean(xi * surprise)),
                    sp.Eq(spread, averages[spread]),
                    sp.Eq(mixed, averages[mixed]),
                ),
            ),
            Step(
                r"Expand $u = m/\sqrt{v}$ to second order in $\delta$ (first in $1-\beta_2$; $x = 1$ counts orders) and average.",
                (sp.Eq(root, inverse, evaluate=False), sp.Eq(drift, pull)),
            ),
            Step(
                "The mean of the weight is stationary.",
                (balance, sp.Eq(weight, stationary), sp.Eq(weight, formula)),
            ),
            Step(
                r"Small signals: for $\beta_2 \to 1$ the mean grows in proportion to $s$, while the variance is that of the "
                r"skeleton (law `normalized\_momentum\_equilibrium` times $E m^2$), to leading order in $\eta\lambda$.",
                (sp.Eq(sp.Symbol("E[w]/s"), slope), sp.Eq(noise, spread_of_w)),
            ),
            Step(
                "Signal and noise weigh the same where the squared mean equals the variance.",
                (sp.Eq(sp.Symbol("s_c"), critical),),
            ),
        ),
        result={"mean": formula, "critical_snr": critical},
        inputs={"lr": eta, "weight_decay": lam, "snr": s, "betas": sp.Tuple(b1, b2)},
        source="derived here; |w| <= 1/wd by Xie and Li, arXiv 2404.04454",
    )
