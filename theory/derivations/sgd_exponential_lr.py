"""The exponential learning rate of SGD at constant rate, the buffer it needs, and why Nesterov has none."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step, equilibrium_symbols
from theory.derivations.sgd_exponential_schedule import names, twin


def without_nesterov() -> Step:
    """Show that Nesterov momentum has a twin only where there is no decay or no momentum.

    Returns:
        The step.
    """
    mu, fast_mu, ratio, alpha, a = sp.symbols("mu mu' c alpha a", positive=True)
    eta, fast = sp.symbols("eta eta'_t", positive=True)
    w, past, g, g_past, buffer = sp.symbols("w_t w_{t-1} g_t g_{t-1} b_{t-1}")

    def recursion(rate: sp.Expr, before: sp.Expr, momentum: sp.Expr, shrink: sp.Expr) -> list[sp.Expr]:
        pull, pull_past = (gradient + (1 - shrink) / rate * weight for gradient, weight in ((g, w), (g_past, past)))
        old = sp.solve(sp.Eq(w, past - before * (pull_past + momentum * buffer)), buffer)[0]
        new = sp.expand((w - rate * (pull + momentum * (momentum * buffer + pull))).subs(buffer, old))
        return [sp.factor(new.coeff(symbol)) for symbol in (w, past, g, g_past)]

    ours = recursion(eta, eta, mu, a)
    theirs = recursion(fast, fast / ratio, fast_mu, sp.Integer(1))
    size = sp.Symbol("P_t", positive=True)
    scales = (alpha, alpha**2, alpha * size**2, size**2)
    conditions = [sp.Eq(t * s, o) for t, o, s in zip(theirs, ours, scales, strict=True)]
    rate = sp.solve(conditions[3], fast)[0]
    growth = sp.simplify(rate / rate.subs(size, size / alpha))
    left = [conditions[n].subs(fast, rate).subs(ratio, growth) for n in range(3)]
    momentum = sp.solve(left[1], fast_mu)[0]
    alphas = sp.solve(left[2].subs(fast_mu, momentum), alpha)[0]
    rest = sp.factor(sp.together((left[0].lhs - left[0].rhs).subs(fast_mu, momentum).subs(alpha, alphas)))
    solutions = sp.solve(sp.Eq(sp.numer(rest), 0), a)
    return Step(
        r"Nesterov's recursion has $g_{t-1}$ besides, four coefficients for $\eta'_t$, $\mu'$ and $\alpha$ ($a = "
        r"1-\eta\lambda$, $c = \eta'_t/\eta'_{t-1}$). The last gives $\eta'_t$ and so $c$, the second $\mu'$, the third "
        r"$\alpha$; the first then holds for one positive $a$ only: without decay.",
        (
            *conditions,
            sp.Eq(ratio, growth),
            sp.Eq(fast_mu, momentum),
            sp.Eq(alpha, alphas),
            sp.Eq(sp.Symbol("Delta"), rest),
            *(sp.Eq(a, solution) for solution in solutions),
        ),
    )


def derivation() -> Derivation:
    """Derive the exponential rate's growth and the momentum buffer that starts it.

    Returns:
        The proof.
    """
    eta, lam = equilibrium_symbols()
    s, general = names(), twin()
    mu, alpha = s["mu"], sp.Symbol("alpha", positive=True)
    constant = {s["now"]: eta, s["before"]: eta, s["alpha"]: alpha, s["old_alpha"]: alpha, s["kappa"]: 1}
    stationary = sp.Eq(alpha, general.alpha.subs(constant))
    time, start = sp.Symbol("t", integer=True, nonnegative=True), sp.Symbol("rho_b")
    w, g = sp.symbols("w_0 g_0")
    rate = sp.powsimp(general.rate.subs(constant | {s["size"]: alpha**time}))
    ours = w - eta * (g + lam * w)
    theirs = w - rate.subs(time, 0) * (mu * start * w + g)
    buffer = sp.factor(sp.solve(sp.Eq(sp.expand(theirs).coeff(w), sp.expand(ours).coeff(w) / alpha), start)[0])
    roots = sp.solve(stationary, alpha)
    slow = next(root for root in roots if root.subs({mu: 0.25, eta: 0.1, lam: 0.1}) > 0.5)
    return Derivation(
        law="sgd_exponential_lr",
        setting=r"torch.optim.SGD on scale-invariant weights at constant rate: $b_t = \mu b_{t-1} + g_t + \lambda w_t$, "
        r"$w_{t+1} = w_t - \eta b_t$, $b_{-1} = 0$; its twin without decay.",
        steps=(
            *general.steps,
            Step(
                r"At constant rate and without dampening the recursion has a fixed point, $P_t = \alpha^t$; the larger root "
                "is the one that it converges to.",
                (stationary, sp.Eq(alpha, slow), sp.Eq(sp.Symbol("eta'_t"), rate)),
            ),
            Step(
                r"From step 0 on it is right only if the first step is, $W_1 = w_1/\alpha$: the twin has to start from the "
                r"buffer $\rho_bw_0$.",
                (sp.Eq(sp.Symbol("w_1"), ours), sp.Eq(sp.Symbol("W_1"), theirs), sp.Eq(start, buffer)),
            ),
            without_nesterov(),
        ),
        result={"alpha": slow, "buffer_coefficient": buffer.subs(alpha, slow)},
        inputs={"lr": eta, "weight_decay": lam, "momentum": mu},
        source="Li and Arora, arXiv 1910.07454; buffer derived here",
    )
