"""AdamW: the skeleton of an exponential average, and what the noise of the second moment does to it."""

import sympy as sp

from theory.derivations import angle_from_relative_update
from theory.derivations.decoupled_equilibrium import geometric
from theory.derivations.derivation import Derivation, Step, equilibrium_symbols


def corrections() -> tuple[tuple[Step, ...], sp.Expr, sp.Expr]:
    """Derive how a noisy second moment changes one step's variance and the long-run variance of the update.

    Returns:
        The steps, and the factors U and S in beta_1, beta_2 and q = (kurtosis-1)(1-beta_2).
    """
    b1, b2 = sp.symbols("beta_1 beta_2", nonnegative=True)
    q, size, now, then = sp.symbols("q x delta delta'")
    excess = q / (1 - b2)
    square, spread, shared, lags, lags_shared, lags_product = sp.symbols(
        r"E[m^2] E[\delta^2] E[m^2\delta] \Sigma_{mm'} \Sigma_{mm'\delta} \Sigma_{mm'\delta\delta'}", positive=True
    )
    averages = {
        square: geometric((1 - b1) ** 2, b1**2),
        spread: geometric((1 - b2) ** 2 * excess, b2**2),
        shared: geometric((1 - b1) ** 2 * (1 - b2) * excess, b1**2 * b2),
        lags: geometric(1 - b1, b1) ** 2,
        lags_shared: geometric((1 - b1) * (1 - b2) * excess, b1 * b2) * geometric(1 - b1, b1),
    }
    averages[lags_product] = averages[square] * averages[spread] * (1 + 2 * geometric(b1 * b2, b1 * b2))
    denominators = (1 / (1 + size * now), 1 / sp.sqrt((1 + size * now) * (1 + size * then)))
    expansions = [sp.series(denominator, size, 0, 3) for denominator in denominators]
    inverse, roots = (sp.Poly(expansion.removeO().subs(size, 1), now, then) for expansion in expansions)
    moments_one = {(0, 0): square, (1, 0): shared, (2, 0): square * spread}
    one_step = sum(c * moments_one[powers] for powers, c in inverse.terms())
    moments_all = {(0, 0): lags, (1, 0): lags_shared, (0, 1): lags_shared, (1, 1): lags_product}
    moments_all |= {(2, 0): lags * spread, (0, 2): lags * spread}
    long_run = sum(c * moments_all[powers] for powers, c in roots.terms())
    factors = [
        sp.collect(sp.expand((value / base).subs(averages)), q, sp.factor)
        for value, base in ((one_step, square), (long_run, lags))
    ]
    u, s = sp.symbols("U S", positive=True)
    steps = (
        Step(
            r"In units of $E g^2$ write $v = 1+\delta$ and expand $u_t^2 = m_t^2/v_t$ and "
            r"$u_tu_{t-k} = m_tm_{t-k}/\sqrt{v_tv_{t-k}}$ to second order; primes mark time $t-k$, $x = 1$ counts orders.",
            tuple(sp.Eq(*pair, evaluate=False) for pair in zip(denominators, expansions, strict=True)),
        ),
        Step(
            r"Averages to first order in $q$, each a geometric sum over the ages of the gradients that both factors share: "
            r"$g^2$ and $g^2-1$ of one gradient have covariance $q/(1-\beta_2)$. $\Sigma$ stands for the sum over all lags "
            r"$k\in\mathbb{Z}$; second-order terms factorise.",
            tuple(sp.Eq(name, sp.factor(value)) for name, value in averages.items()),
        ),
        Step(
            r"Insert: one step's variance is $U\,E m^2$, the long-run variance $S\,\Sigma_{mm'}$.",
            (
                sp.Eq(u, sp.expand(one_step / square)),
                sp.Eq(u, factors[0]),
                sp.Eq(s, sp.expand(long_run / lags)),
                sp.Eq(s, factors[1]),
            ),
        ),
    )
    return steps, factors[0], factors[1]


def derivation() -> Derivation:
    """Derive norm and angle of AdamW, exact in lr*weight_decay and of first order in (kurtosis-1)(1-beta2).

    Returns:
        The proof.
    """
    eta, lam = equilibrium_symbols()
    b1, b2 = sp.symbols("beta_1 beta_2", nonnegative=True)
    d, kurtosis, a, r, u, s = sp.symbols("d kappa_4 a R U S", positive=True)
    q = sp.Symbol("q")
    inner, rho = sp.Symbol(r"E\langle w,m\rangle"), sp.Symbol("rho", positive=True)
    noise, one_step, long_run = corrections()
    definitions = {a: 1 - eta * lam, q: (kurtosis - 1) * (1 - b2)}
    square = geometric((1 - b1) ** 2, b1**2)
    tail = -eta * d * square * geometric(b1, a * b1)
    balance = sp.Eq(r, a**2 * r - 2 * a * eta * inner + eta**2 * d * square)
    skeleton = sp.factor(sp.solve(balance.subs(inner, tail), r)[0])
    relative = eta * sp.sqrt(d * u * square / r)
    cosines = angle_from_relative_update.derivation()
    squared = (s * skeleton).subs({s: long_run}).subs(definitions)
    update = relative.subs({u: one_step}).subs(definitions).subs(r, squared)
    return Derivation(
        law="adamw_equilibrium",
        setting=r"torch.optim.AdamW: $w' = aw - \eta m/\sqrt{v}$, $m$ and $v$ the averages of $g$ and $g^2$ with "
        r"$\beta_1$, $\beta_2$; gradients white, independent in each of $d$ coordinates, of kurtosis $\kappa_4$; "
        r"$q = (\kappa_4-1)(1-\beta_2)$ small.",
        steps=(
            *noise,
            Step(
                r"Skeleton: were $v$ constant, $u = m$ with $E m_tm_{t-k} = \beta_1^kE m^2$, and over the past updates",
                (
                    *(sp.Eq(name, value) for name, value in definitions.items()),
                    sp.Eq(inner, tail),
                ),
            ),
            Step(r"In equilibrium $E\|w\|^2$ is the same before and after the step.", (balance.subs(r, r / s),)),
            Step(
                r"Weights are a slow average of updates: their variance follows the long-run variance, $S$ times the "
                "skeleton's.",
                (sp.Eq(r, s * skeleton),),
            ),
            Step(
                r"The relative update, and the cosine by law `angle\_from\_relative\_update`.",
                (sp.Eq(rho, relative), sp.Eq(sp.Symbol("cos"), sp.cos(cosines.result["angle"]))),
            ),
        ),
        result={
            "norm": sp.sqrt(squared),
            "rms": sp.sqrt(squared / d),
            "angle": cosines.result["angle"].subs(cosines.inputs["relative_update"], update),
            "effective_lr": eta / sp.sqrt(squared / d),
            "relative_update": update,
        },
        inputs={
            "lr": eta,
            "weight_decay": lam,
            "betas": sp.Tuple(b1, b2),
            "d": d,
            "noise_kurtosis": kurtosis,
        },
        source="leading order Kosson et al., arXiv 2305.17212; correction derived here",
    )
