"""SGD without decay that follows SGD with decay: compare coefficients of two recursions."""

import itertools
from typing import NamedTuple

import sympy as sp

from theory.derivations.derivation import Derivation, Step, equilibrium_symbols


class Twin(NamedTuple):
    """What the comparison of coefficients gives at one step."""

    steps: tuple[Step, ...]
    """From the update rules on."""
    rate: sp.Expr
    """The twin's eta'_t in eta_t, P_t and alpha_t."""
    alpha: sp.Expr
    """alpha_t in eta_t, eta_{t-1} and alpha_{t-1}."""
    first: sp.Expr
    """alpha_0."""


def names() -> dict[str, sp.Symbol]:
    """The symbols of one step.

    Returns:
        By name: rates and shrinks of this step and the last, size P_t, momentum and kappa = 1 - dampening.
    """
    now, before, size, alpha, old_alpha = sp.symbols("eta_t eta_{t-1} P_t alpha_t alpha_{t-1}", positive=True)
    mu, kappa = sp.Symbol("mu", nonnegative=True), sp.Symbol("kappa", nonnegative=True)
    return {
        "now": now,
        "before": before,
        "size": size,
        "alpha": alpha,
        "old_alpha": old_alpha,
        "mu": mu,
        "kappa": kappa,
    }


def second_order(rate: sp.Expr, before: sp.Expr, decay: sp.Expr, mu: sp.Expr, kappa: sp.Expr) -> tuple[sp.Expr, ...]:
    """Coefficients of w_t, w_{t-1} and g_t in w_{t+1} of heavy-ball SGD, the buffer eliminated.

    Args:
        rate: Learning rate of this step.
        before: That of the step before.
        decay: L2 coefficient.
        mu: Momentum.
        kappa: 1 - dampening.

    Returns:
        The three coefficients.
    """
    w, past, g, buffer = sp.symbols("w_t w_{t-1} g_t b_{t-1}")
    old = sp.solve(sp.Eq(w, past - before * buffer), buffer)[0]
    new = sp.expand((w - rate * (mu * buffer + kappa * (g + decay * w))).subs(buffer, old))
    return tuple(new.coeff(symbol) for symbol in (w, past, g))


def twin() -> Twin:
    """Compare SGD with decay and SGD without it, W_t = w_t/P_t, coefficient by coefficient.

    Returns:
        Steps and formulas.
    """
    _, lam = equilibrium_symbols()
    s = names()
    fast, old_fast = sp.symbols("eta'_t eta'_{t-1}", positive=True)
    w, g = sp.symbols("w_t g_t")
    ours = second_order(s["now"], s["before"], lam, s["mu"], s["kappa"])
    theirs = second_order(fast, old_fast, sp.Integer(0), s["mu"], s["kappa"])
    later, earlier = s["size"] * s["alpha"], s["size"] / s["old_alpha"]
    scaled = (
        theirs[0] * later / s["size"],
        theirs[1] * later / earlier,
        theirs[2] * later * s["size"],
    )
    conditions = [sp.Eq(sp.simplify(new), sp.expand(old)) for new, old in zip(scaled, ours, strict=True)]
    rate = sp.solve(conditions[2].subs(s["kappa"], 1), fast)[0]
    old_rate = rate.subs({s["now"]: s["before"], s["size"]: earlier, s["alpha"]: s["old_alpha"]}, simultaneous=True)
    rates = {fast: rate, old_fast: old_rate}
    momentum = sp.simplify(conditions[1].lhs.subs(rates) - conditions[1].rhs)
    alpha = sp.expand(sp.solve(sp.expand(sp.simplify(conditions[0].subs(rates))), s["alpha"])[0])
    first = sp.expand(w - s["now"] * (g + lam * w)).coeff(w)
    steps = (
        Step(
            r"The last step tells the old buffer; $w_{t+1}$ as a recursion with the coefficients of $w_t$, $w_{t-1}$, $g_t$:",
            tuple(sp.Eq(sp.Symbol(f"phi_{n}"), value) for n, value in enumerate(ours, start=1)),
        ),
        Step(
            r"The same for the twin. Put $W_t = w_t/P_t$, $P_{t+1} = \alpha_tP_t$; scale invariance makes its gradients "
            r"$P_tg_t$. Equal coefficients:",
            tuple(conditions),
        ),
        Step(
            "The gradient's tells the rates, at this step and the one before.", tuple(map(sp.Eq, rates, rates.values()))
        ),
        Step(
            "With them that of the past weights is right for the same momentum: the difference of its sides is",
            (sp.Eq(sp.Symbol("Delta"), momentum),),
        ),
        Step(
            r"and that of the present weights is a recursion for $\alpha_t$; the first step has no past and no dampening.",
            (sp.Eq(s["alpha"], alpha), sp.Eq(sp.Symbol("alpha_0"), first.subs(s["now"], sp.Symbol("eta_0")))),
        ),
    )
    return Twin(steps, rate, alpha, first)


def derivation(steps: int = 3) -> Derivation:
    """Derive the learning rates that replace decay in SGD with momentum under any schedule.

    Args:
        steps: Number of steps; the formulas hold for the last one.

    Returns:
        The proof.
    """
    _, lam = equilibrium_symbols()
    s, general = names(), twin()
    dampening = sp.Symbol("tau", nonnegative=True)
    rates = sp.symbols(f"eta_0:{steps}", positive=True)
    size, alpha = sp.Integer(1), general.first.subs(s["now"], rates[0])
    for before, now in itertools.pairwise(rates):
        size *= alpha
        past = {s["now"]: now, s["before"]: before, s["old_alpha"]: alpha, s["kappa"]: 1 - dampening}
        alpha = general.alpha.subs(past, simultaneous=True)
    last = {s["now"]: rates[-1], s["size"]: size, s["alpha"]: alpha}
    return Derivation(
        law="sgd_exponential_schedule",
        setting=r"torch.optim.SGD on scale-invariant weights: $b_t = \mu b_{t-1} + \kappa(g_t + \lambda w_t)$, "
        r"$w_{t+1} = w_t - \eta_tb_t$, $\kappa = 1-\tau$, empty buffer ($b_0 = g_0 + \lambda w_0$); its twin the same with "
        r"$\lambda = 0$ and rates $\eta'_t$.",
        steps=general.steps,
        result={"lr": general.rate.subs(last, simultaneous=True), "norm_ratio": size * alpha},
        inputs={"lrs": sp.Tuple(*rates), "weight_decay": lam, "momentum": s["mu"], "dampening": dampening},
        source="constant rate Li and Arora, arXiv 1910.07454; schedules derived here",
    )
