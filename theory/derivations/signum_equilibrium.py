"""Signum: the sign of an exponential average has arcsine correlations."""

import sympy as sp

from theory.derivations import angle_from_relative_update, arcsine
from theory.derivations.derivation import Derivation, Step, equilibrium_symbols


def of_signs(presign: sp.Expr, lag: sp.Symbol, lags: int) -> tuple[tuple[Step, ...], dict[str, sp.Expr]]:
    """Derive norm and angle of weights that step along signs with given correlations before the sign.

    Args:
        presign: Correlation rho_k before the sign, a formula in `lag`.
        lag: k.
        lags: Where the result cuts the sum over lags.

    Returns:
        The steps from rho_k on, and the formula of each field.
    """
    eta, lam = equilibrium_symbols()
    a, r, d = sp.symbols("a R d", positive=True)
    inner = sp.Symbol(r"E\langle aw,u\rangle")
    sheppard = arcsine.derivation()
    covariance = sheppard.result["correlation"].subs(sheppard.inputs["rho"], presign)
    memory = sp.Sum(a**lag * covariance, (lag, 1, sp.oo))
    balance = sp.Eq(r, a**2 * r - 2 * eta * inner + eta**2 * d)
    squared = sp.factor(sp.solve(balance, r)[0]).subs(inner, -eta * d * memory)
    cosines = angle_from_relative_update.derivation()
    relative = eta * sp.sqrt(d / r)
    steps = (
        Step(
            r"Gaussian variables keep $\frac{2}{\pi}\arcsin\rho$ of their correlation under the sign (law `arcsine`); "
            r"unrolling the weights over their past updates,",
            (sp.Eq(a, 1 - eta * lam), sp.Eq(inner, -eta * d * memory)),
        ),
        Step(r"In equilibrium $R = E\|w\|^2$ is the same before and after the step.", (balance,)),
        Step("Solve for $R$.", (sp.Eq(r, squared),)),
        Step(
            r"The relative update, and the cosine by law `angle\_from\_relative\_update`.",
            (
                sp.Eq(cosines.inputs["relative_update"], relative),
                sp.Eq(sp.Symbol("cos"), sp.cos(cosines.result["angle"])),
            ),
        ),
    )
    finite = squared.subs(memory, memory.func(memory.function, (lag, 1, lags))).subs(a, 1 - eta * lam)
    relative = relative.subs(r, finite)
    formulas = {
        "norm": sp.sqrt(finite),
        "rms": sp.sqrt(finite / d),
        "angle": cosines.result["angle"].subs(cosines.inputs["relative_update"], relative),
        "effective_lr": eta / sp.sqrt(finite / d),
        "relative_update": relative,
    }
    return steps, formulas


def derivation(lags: int = 3_000) -> Derivation:
    """Derive norm and angle of Signum.

    Args:
        lags: Where the result cuts the sum over lags; the rest is below ((1-lr*wd) momentum)^lags.

    Returns:
        The proof.
    """
    eta, lam = equilibrium_symbols()
    beta, d = sp.Symbol("beta", nonnegative=True), sp.Symbol("d", positive=True)
    k, second = sp.Symbol("k", integer=True, positive=True), sp.Symbol("E[m^2]", positive=True)
    cross = sp.Function("c")
    stationary = sp.Eq(second, beta**2 * second + (1 - beta) ** 2)
    variance = sp.factor(sp.solve(stationary, second)[0])
    recursion = sp.Eq(cross(k + 1), beta * cross(k))
    covariance = sp.rsolve(recursion, cross(k), {cross(0): variance})
    presign = sp.simplify(covariance / variance)
    steps, formulas = of_signs(presign, k, lags)
    alone = steps[2].equations[0].rhs.subs(beta, 0).doit()
    return Derivation(
        law="signum_equilibrium",
        setting=r"$m_t = \beta m_{t-1} + (1-\beta)g_t$, $w' = aw - \eta\,\mathrm{sign}(m)$ with $a = 1-\eta\lambda$; "
        r"gradients white with mean 0 and variance 1, $m$ nearly Gaussian, in each of $d$ coordinates.",
        steps=(
            Step("The variance of $m$ is stationary, and new gradients know nothing of old ones.", (stationary,)),
            Step("Solve.", (sp.Eq(second, variance),)),
            Step(r"For the same reason $c_k = E[m_{t+k}m_t]$ shrinks with each lag.", (recursion,)),
            Step(
                r"Solve; the correlation before the sign is $\rho_k = c_k/E[m^2]$.",
                (sp.Eq(cross(k), covariance), sp.Eq(sp.Symbol("rho_k"), presign)),
            ),
            *steps,
            Step(r"Without momentum (signSGD) the sum is empty.", (sp.Eq(sp.Symbol(r"R_{\beta=0}"), alone),)),
        ),
        result=formulas,
        inputs={"lr": eta, "weight_decay": lam, "momentum": beta, "d": d},
        source="derived here",
    )
