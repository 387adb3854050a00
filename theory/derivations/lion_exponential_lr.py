"""The exponential twin of Lion: what the matched betas are at constant rate."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step, equilibrium_symbols
from theory.derivations.lion_exponential_schedule import growing_rate, presign, symbols


def derivation() -> Derivation:
    """Derive betas and growth of the rate with which Lion without decay follows Lion with decay.

    Returns:
        The proof.
    """
    eta, lam = equilibrium_symbols()
    b1, b2 = sp.symbols("beta_1 beta_2", positive=True)
    s = symbols()
    proof, buffer, beta1 = presign()
    a, fast1, fast2, k = sp.symbols("a beta_1' beta_2' k", positive=True)
    constant = {s["a"]: a, s["old_k"]: k, s["k"]: k, s["beta"]: b2, s["fast"]: fast2}
    fixed = [condition.subs(constant) for condition in buffer.conditions]
    solution = sp.solve(fixed, (fast2, k), dict=True)[0]
    of_k = beta1.subs(constant)
    first = sp.factor(of_k.subs(k, solution[k]))
    odds = sp.Eq(fast1 / (1 - fast1), sp.factor(first / (1 - first)))
    same = sp.factor(first.subs(b1, b2))
    growing, any_rate, names = growing_rate()
    now, later, time = sp.Symbol("eta'_t", positive=True), sp.Symbol("eta'_{t+1}", positive=True), sp.Symbol("t")
    rate = sp.powsimp(any_rate.subs({names["a"]: a, names["eta"]: eta, s["size"]: a**time}))
    growth = sp.simplify(rate.subs(time, time + 1) / rate)
    return Derivation(
        law="lion_exponential_lr",
        setting=r"Lion as in law `lion\_exponential\_schedule`, at constant rates, $a = 1-\eta\lambda$.",
        steps=(
            *proof,
            Step(
                r"At constant rate $k$ may be constant: a twin whose betas never change. (From an empty buffer both start "
                "the same.)",
                (*fixed, sp.Eq(fast2, solution[fast2]), sp.Eq(k, sp.factor(solution[k]))),
            ),
            Step(r"With this $k$ inside the sign,", (sp.Eq(fast1, first), odds)),
            Step(
                r"Signum has $\beta_1 = \beta_2$, and so has its twin.",
                (sp.Eq(sp.Symbol(r"\beta'_{\beta_1=\beta_2}"), same),),
            ),
            growing,
            Step(r"At constant rates $A_{t-1} = a^t$.", (sp.Eq(now, rate), sp.Eq(later / now, growth))),
        ),
        result={
            "betas[0]": first.subs(a, 1 - eta * lam),
            "betas[1]": solution[fast2].subs(a, 1 - eta * lam),
            "growth": growth.subs(a, 1 - eta * lam),
        },
        inputs={"lr": eta, "weight_decay": lam, "betas": sp.Tuple(b1, b2)},
        source="derived here",
    )
