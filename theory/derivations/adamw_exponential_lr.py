"""Adam without decay that follows AdamW: match both moments, then the step with eps and bias corrections."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step, equilibrium_symbols
from theory.derivations.lion_exponential_schedule import match, symbols


def derivation(steps: int = 3) -> Derivation:
    """Derive rates, betas and eps that replace decay in AdamW under any schedule.

    Args:
        steps: Number of steps; the formulas hold for the last one.

    Returns:
        The proof.
    """
    _, lam = equilibrium_symbols()
    s = symbols()
    b1, b2, eps = sp.symbols("beta_1 beta_2 epsilon", positive=True)
    fast1, fast2, k1, k2 = sp.symbols("beta_1' beta_2' k_1 k_2", positive=True)
    a, eta, fast, fast_eps, _w, m, root = sp.symbols("a_t eta_t eta'_t epsilon' w m z", positive=True)
    t = sp.Symbol("t", integer=True, positive=True)
    moments = [match(power) for power in (1, 2)]
    shown = []
    for n, (moment, ours, theirs) in enumerate(zip(moments, (b1, b2), (fast1, fast2), strict=True), start=1):
        own = {s["k"]: (k1, k2)[n - 1], s["old_k"]: sp.Symbol(f"k_{n}^-", positive=True)}
        own |= {s["beta"]: ours, s["fast"]: theirs}
        equations = (*moment.conditions, sp.Eq(s["fast"], moment.beta), sp.Eq(s["k"], moment.k))
        shown.append(tuple(equation.subs(own, simultaneous=True) for equation in equations))

    ours = root / sp.sqrt(1 - b2**t) + eps
    theirs = sp.sqrt(k2) * s["size"] * root / sp.sqrt(1 - fast2**t) + fast_eps
    factor = sp.Symbol("f", positive=True)
    proportional = [sp.Eq(sp.expand(theirs).coeff(root, n), factor * sp.expand(ours).coeff(root, n)) for n in (1, 0)]
    both = sp.solve(proportional, (factor, fast_eps), dict=True)[0]
    update = sp.Eq(
        fast * k1 * s["size"] * m / (1 - fast1**t) / (factor * root),
        eta * m / (1 - b1**t) / root / (s["size"] * a),
    )
    rate = sp.solve(update, fast)[0]

    constant_beta, constant_k, shrink = sp.symbols("beta' k a", positive=True)
    settled = []
    for moment, beta in zip(moments, (b1, b2), strict=True):
        names = {s["a"]: shrink, s["beta"]: beta, s["old_k"]: constant_k, s["k"]: constant_k, s["fast"]: constant_beta}
        fixed = [condition.subs(names) for condition in moment.conditions]
        settled.append(sp.solve(fixed, (constant_beta, constant_k), dict=True)[0][constant_beta])

    rates = sp.symbols(f"eta_0:{steps}", positive=True)
    size, betas, ks = sp.Integer(1), [b1, b2], [sp.Integer(1), sp.Integer(1)]
    for before in rates[:-1]:
        for n, (moment, beta) in enumerate(zip(moments, (b1, b2), strict=True)):
            past = {s["a"]: 1 - before * lam, s["old_k"]: ks[n], s["beta"]: beta}
            betas[n] = moment.beta.subs(past, simultaneous=True)
            ks[n] = moment.k.subs({s["fast"]: betas[n], s["beta"]: beta}, simultaneous=True)
        size *= 1 - before * lam
    last = {a: 1 - rates[-1] * lam, eta: rates[-1], s["size"]: size, t: steps}
    last |= {k1: ks[0], k2: ks[1], fast1: betas[0], fast2: betas[1]}
    return Derivation(
        law="adamw_exponential_lr",
        setting=r"torch.optim.AdamW on scale-invariant weights, $w' = a_tw - \eta_t\hat{m}/(\sqrt{\hat{v}}+\epsilon)$, "
        r"$a_t = 1-\eta_t\lambda_t$; its twin torch.optim.Adam without decay; $A_t = a_1\cdots a_t$, $t = 1, 2, \ldots$",
        steps=(
            Step(
                r"The twin's weights are $W = w/A_{t-1}$, its gradients $A_{t-1}g_t$. Its first moment is to be "
                r"$k_1A_{t-1}m_t$: equal weights of the old moment and of the new gradient; $k_1^-$ is that of the step before.",
                shown[0],
            ),
            Step(
                r"In the same way its second moment is to be $k_2A_{t-1}^2v_t$.",
                shown[1],
            ),
            Step(
                r"With $z = \sqrt{v_t}$ its denominator, bias correction included, is to be $f$ times ours, in the term with "
                r"$z$ and in that without.",
                (*proportional, *(sp.Eq(symbol, value) for symbol, value in both.items())),
            ),
            Step(r"$W' = w'/A_t$ tells the rate.", (update, sp.Eq(fast, rate))),
            Step(
                r"At constant rate the betas converge to (first moment, second moment)",
                tuple(sp.Eq(sp.Symbol(f"beta_{n}^*"), value) for n, value in enumerate(settled, start=1)),
            ),
        ),
        result={
            "lr": rate.subs(factor, both[factor]).subs(last, simultaneous=True),
            "betas[0]": betas[0],
            "betas[1]": betas[1],
            "eps": both[fast_eps].subs(last, simultaneous=True),
            "norm_ratio": size * last[a],
        },
        inputs={"lrs": sp.Tuple(*rates), "weight_decay": lam, "betas": sp.Tuple(b1, b2), "eps": eps},
        source="derived here",
    )
