"""Lion without decay that follows Lion with decay: match the buffers, then the ratio inside the sign."""

from typing import NamedTuple

import sympy as sp

from theory.derivations.derivation import Derivation, Step, equilibrium_symbols


class Matched(NamedTuple):
    """An exponential average of the twin's gradients that is k A^p times ours."""

    conditions: tuple[sp.Eq, ...]
    """Equal weights of the old average and of the new gradient."""
    beta: sp.Expr
    """The twin's coefficient beta' in beta, a_{t-1} and the last k."""
    k: sp.Expr
    """The new k in beta and beta'."""


def symbols() -> dict[str, sp.Symbol]:
    """The symbols of one step.

    Returns:
        By name: last shrink factor a_{t-1}, size A_{t-1}, ours beta, theirs beta', new and last k.
    """
    names = {"a": "a_{t-1}", "size": "A_{t-1}", "beta": "beta", "fast": "beta'", "k": "k_t", "old_k": "k_{t-1}"}
    return {name: sp.Symbol(text, positive=True) for name, text in names.items()}


def match(power: int = 1) -> Matched:
    """Match m_t = beta m_{t-1} + (1-beta) g_t^p and M_t = beta' M_{t-1} + (1-beta') G_t^p with G_t = A_{t-1} g_t.

    Args:
        power: p, 1 for first moments, 2 for second ones.

    Returns:
        Conditions and solution for M_t = k_t A_{t-1}^p m_t at every step.
    """
    s = symbols()
    m, g = sp.symbols("m_{t-1} g_t")
    ours = s["k"] * s["size"] ** power * (s["beta"] * m + (1 - s["beta"]) * g)
    before = s["size"] / s["a"]
    theirs = s["fast"] * s["old_k"] * before**power * m + (1 - s["fast"]) * s["size"] ** power * g
    conditions = tuple(
        sp.Eq(*(sp.expand(side).coeff(v) / s["size"] ** power for side in (theirs, ours))) for v in (m, g)
    )
    conditions = tuple(sp.Eq(sp.factor(e.lhs), sp.factor(e.rhs)) for e in conditions)
    solution = sp.solve(conditions, (s["fast"], s["k"]), dict=True)[0]
    k = sp.solve(conditions[1], s["k"])[0]
    return Matched(conditions, sp.factor(solution[s["fast"]]), sp.factor(k))


def presign() -> tuple[tuple[Step, ...], Matched, sp.Expr]:
    """Derive both betas of Lion's twin at one step.

    Returns:
        Steps, the match of the buffer (beta_2), and beta_1' in beta_1, a_{t-1} and the last k.
    """
    s, buffer = symbols(), match()
    b1, fast1 = sp.symbols("beta_1 beta_1'", positive=True)
    m, g = sp.symbols("m_{t-1} g_t")
    ours = b1 * m + (1 - b1) * g
    theirs = fast1 * s["old_k"] * s["size"] / s["a"] * m + (1 - fast1) * s["size"] * g
    ratio = sp.Eq(
        sp.simplify(sp.expand(theirs).coeff(m) / sp.expand(theirs).coeff(g)),
        sp.expand(ours).coeff(m) / sp.expand(ours).coeff(g),
    )
    beta1 = sp.factor(sp.solve(ratio, fast1)[0])
    steps = (
        Step(
            r"The twin's weights are $W_t = w_t/A_{t-1}$, so scale invariance makes its gradients $A_{t-1}g_t$. Its buffer "
            r"is to be $k_tA_{t-1}$ times ours: equal weights of the old buffer and of the new gradient,",
            buffer.conditions,
        ),
        Step("which tell both unknowns.", (sp.Eq(s["fast"], buffer.beta), sp.Eq(s["k"], buffer.k))),
        Step(
            r"The sign forgets scale: only the ratio of past to present inside it has to be right.",
            (ratio, sp.Eq(fast1, beta1)),
        ),
    )
    return steps, buffer, beta1


def growing_rate() -> tuple[Step, sp.Expr, dict[str, sp.Symbol]]:
    """Derive the twin's rate where both signs agree.

    Returns:
        The step, the rate eta'_t in a_t, eta_t and A_{t-1}, and the symbols of a_t and eta_t.
    """
    size = symbols()["size"]
    a, eta, fast, w, u = sp.symbols("a_t eta_t eta'_t w_t u_t", positive=True)
    update = sp.Eq(w / size - fast * u, (a * w - eta * u) / (size * a))
    rate = sp.solve(update, fast)[0]
    step = Step(
        r"Where both signs agree, $W' = w'/A_t$ with $A_t = a_tA_{t-1}$ tells the rate.",
        (update, sp.Eq(fast, rate)),
    )
    return step, rate, {"a": a, "eta": eta}


def derivation(steps: int = 3) -> Derivation:
    """Derive rates and betas that replace decay in Lion under any schedule.

    Args:
        steps: Number of steps; the formulas hold for the last one.

    Returns:
        The proof.
    """
    _, lam = equilibrium_symbols()
    s = symbols()
    proof, buffer, beta1 = presign()
    b1, b2 = sp.symbols("beta_1 beta_2", positive=True)
    rates = sp.symbols(f"eta_0:{steps}", positive=True)
    growing, rate, now = growing_rate()

    first, second, k, size = b1, b2, sp.Integer(1), sp.Integer(1)
    for before in rates[:-1]:
        past = {s["a"]: 1 - before * lam, s["old_k"]: k, s["beta"]: b2}
        first, second = beta1.subs(past), buffer.beta.subs(past)
        k = buffer.k.subs({s["fast"]: second, s["beta"]: b2}, simultaneous=True)
        size *= 1 - before * lam
    shrink = 1 - rates[-1] * lam
    last = {now["a"]: shrink, now["eta"]: rates[-1], s["size"]: size}
    return Derivation(
        law="lion_exponential_schedule",
        setting=r"$u = \mathrm{sign}(\beta_1m + (1-\beta_1)g)$, $m' = \beta_2m + (1-\beta_2)g$, $w' = a_tw - \eta_tu$, "
        r"$a_t = 1-\eta_t\lambda_t$, $m = 0$ at first, scale-invariant weights; its twin without decay; $A_t = a_0\cdots a_t$.",
        steps=(
            *proof,
            Step(
                r"The first step has no past and may keep its betas; then the new gradient's weight gives",
                (sp.Eq(sp.Symbol("k_0"), buffer.k.subs(s["fast"], s["beta"])),),
            ),
            growing,
        ),
        result={
            "lr": rate.subs(last, simultaneous=True),
            "betas[0]": first,
            "betas[1]": second,
            "norm_ratio": size * shrink,
        },
        inputs={"lrs": sp.Tuple(*rates), "weight_decay": lam, "betas": sp.Tuple(b1, b2)},
        source="derived here",
    )
