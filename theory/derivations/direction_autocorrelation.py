"""Memory of direction: an autoregression of second order with roots a and beta."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step, equilibrium_symbols


def derivation(equal: bool = False) -> Derivation:
    """Derive the mean cosine between the weights of two steps in equilibrium.

    Args:
        equal: The case lr*weight_decay = 1 - momentum, in which the two roots coincide.

    Returns:
        The proof.
    """
    eta, lam = equilibrium_symbols()
    a, beta = sp.symbols("a beta", positive=True)
    k = sp.Symbol("k", integer=True, nonnegative=True)
    w, past, m, g, x = sp.symbols("w_t w_{t-1} m_{t-1} g_t x")
    second, fast, slow = sp.symbols("cos_1 C_beta C_a")
    old = sp.solve(sp.Eq(w, a * past - eta * m), m)[0]
    new = sp.collect(sp.expand(a * w - eta * (beta * old + (1 - beta) * g)), [w, past, g])
    phi1, phi2 = new.coeff(w), new.coeff(past)
    yule_walker = sp.Eq(second, phi1 + phi2 * second)
    lag_one = sp.factor(sp.solve(yule_walker, second)[0])
    characteristic = sp.Eq(x**2, phi1 * x + phi2)
    roots = sp.solve(characteristic, x)
    starts = [sp.Eq(slow + fast, 1), sp.Eq(slow * a + fast * beta, second)]
    constants = sp.solve([e.subs(second, lag_one) for e in starts], [slow, fast], dict=True)[0]
    constants = {symbol: sp.factor(value) for symbol, value in constants.items()}
    formula = sp.simplify(constants[slow] * a**k + constants[fast] * beta**k)
    together = sp.simplify(sp.limit(formula, beta, a))
    result = together if equal else formula
    cosine = sp.Function("cos")
    return Derivation(
        law="direction_autocorrelation",
        setting=r"$m_t = \beta m_{t-1} + (1-\beta)g_t$, $w_{t+1} = aw_t - \eta m_t$ with $a = 1-\eta\lambda$, white noise, in "
        r"equilibrium, many coordinates; $\cos_k$ between $w_t$ and $w_{t+k}$.",
        steps=(
            Step(
                "The last step tells the momentum; insert it.",
                (sp.Eq(m, old), sp.Eq(sp.Symbol("w_{t+1}"), new)),
            ),
            Step(
                r"Multiply by past weights, which know nothing of $g_t$: correlations obey the same recursion, and at lag "
                r"one, with $\cos_{-1} = \cos_1$,",
                (yule_walker, sp.Eq(second, lag_one)),
            ),
            Step(
                "Powers solve the recursion if",
                (characteristic, *(sp.Eq(sp.Symbol(f"x_{n}"), root) for n, root in enumerate(roots, start=1))),
            ),
            Step(
                "The two that start at 1 and at the lag-one cosine have the coefficients",
                (*starts, *(sp.Eq(symbol, value) for symbol, value in constants.items())),
            ),
            Step("Together.", (sp.Eq(cosine(k), formula),)),
            Step(r"Where $\beta = a$ the limit is", (sp.Eq(sp.Limit(formula, beta, a), together, evaluate=False),)),
        ),
        result={"cos": result.subs(a, 1 - eta * lam)},
        inputs={"lr": eta, "weight_decay": lam, "lags": k} | ({} if equal else {"momentum": beta}),
        source="derived here",
    )
