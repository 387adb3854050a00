"""Cautious decay: what of w and w^2 is decayed where update and weight agree, and the balance that follows."""

import sympy as sp

from theory.derivations import arcsine
from theory.derivations.derivation import Derivation, Step, equilibrium_symbols


def derivation(momentum: bool = True) -> Derivation:
    """Derive the equations of Signum with cautious decay.

    With momentum they are transcendental in the norm and `result` is empty; without, the norm has a formula.

    Args:
        momentum: Keep the momentum; otherwise `result` is that of signSGD.

    Returns:
        The proof.
    """
    eta, lam = equilibrium_symbols()
    r, d = sp.symbols("r d", positive=True)
    beta = sp.Symbol("beta", nonnegative=True)
    k = sp.Symbol("k", integer=True, positive=True)
    alpha, theta, x, half = sp.symbols("alpha theta x a", positive=True)
    c, presign, share, memory, u, w = sp.symbols("c c' E_2 P u w")

    # polar coordinates of the plane in which w is the first axis and the update before its sign leans by alpha
    radial = sp.exp(-(x**2) / 2) / (2 * sp.pi)
    wedge = (theta, -alpha, sp.pi / 2)
    share_wedge = 2 * sp.integrate(x**3 * radial, (x, 0, sp.oo)) * sp.integrate(sp.cos(theta) ** 2, wedge)
    sign_wedge = 2 * sp.integrate(x**2 * radial, (x, 0, sp.oo)) * sp.integrate(sp.cos(theta), wedge)
    absolute = sign_wedge.subs(alpha, sp.pi / 2)  # E|w| for variance 1: the wedge is the half plane
    of_presign = sp.expand_trig(sp.expand(2 * sign_wedge - absolute))
    covered = sp.expand(sp.expand_trig(sp.simplify(share_wedge))).subs(alpha, sp.asin(presign))
    presign_of_c = sp.solve(sp.Eq(c, of_presign.subs(sp.sin(alpha), presign)), presign)[0]

    sheppard = arcsine.derivation()
    lagged = sheppard.result["correlation"].subs(sheppard.inputs["rho"], beta**k)
    past = sp.Sum(half ** (k - 1) * lagged, (k, 1, sp.oo))
    moved = w - eta * u - eta * lam * w * (1 + sp.sign(w * u)) / 2
    agreed = sp.Symbol("|w|")
    linear = sp.collect(sp.expand(sp.expand(moved).subs(w * sp.sign(u * w), agreed * u)), [w, u])
    kick = -linear.coeff(u).subs(agreed, absolute * sp.sqrt(r))
    correlation = sp.expand(-kick * memory / sp.sqrt(r))

    flag = sp.Symbol("1")
    square = sp.Poly((w - eta * u - eta * lam * w * flag) ** 2, w, u, flag)
    means = {
        (2, 0, 0): r,
        (0, 2, 0): sp.Integer(1),
        (1, 1, 0): c * sp.sqrt(r),
        (2, 0, 1): share * r,
        (2, 0, 2): share * r,
    }
    means[1, 1, 1] = sp.sqrt(r) * (absolute + c) / 2  # w u 1 = (|w| + w u)/2
    balance = sp.Eq(r, sum(coefficient * means[powers] for powers, coefficient in square.terms()))
    rate = sp.factor((balance.rhs - r).coeff(share) / -r)
    growth = sp.expand(balance.rhs - r + rate * r * share)
    cross = sp.Poly(w * (w - eta * u - eta * lam * w * flag), w, u, flag)
    cosine = sp.expand(sum(coefficient * means[powers] for powers, coefficient in cross.terms()) / r)

    alone = {c: 0, share: covered.subs(presign, 0)}
    root = sp.Symbol("sqrt_r", positive=True)
    candidates = sp.solve(balance.subs(alone).subs(r, root**2), root)
    rms = next(value for value in candidates if value.subs({eta: 0.1, lam: 0.1}) > 0)
    formulas = {
        "norm": sp.sqrt(d) * rms,
        "rms": rms,
        "angle": sp.acos(cosine.subs(alone)),
        "effective_lr": eta / rms,
        "relative_update": eta / rms,
    }
    return Derivation(
        law="cautious_equilibrium",
        setting=r"$m$ averages white noise with $\beta$, $u = \mathrm{sign}(m)$, $w' = w - \eta(u + \lambda w\,1[uw > 0])$ in each "
        r"of $d$ coordinates, $r = E w^2$; $m$ and $w$ nearly Gaussian with correlation $c' = \sin\alpha$.",
        steps=(
            Step(
                r"In polar coordinates $w \propto x\cos\theta$, $m \propto x\sin(\theta+\alpha)$: both are positive for "
                r"$-\alpha < \theta < \pi/2$. Integrating over this wedge and its mirror image gives the share "
                r"$E_2 = E[w^2 1]/r$ of $w^2$ that is decayed,",
                (sp.Eq(share, covered),),
            ),
            Step(
                r"and, with $|w|1 = (|w| + uw)/2$, the correlation $c = E[uw]/\sqrt{r}$ after the sign.",
                (
                    sp.Eq(sp.Symbol(r"E|w|/\sqrt{r}"), absolute),
                    sp.Eq(c, of_presign.subs(sp.sin(alpha), presign)),
                    sp.Eq(presign, presign_of_c),
                ),
            ),
            Step(
                r"Since $1[uw>0] = (1 + \mathrm{sign}(uw))/2$ and $w\,\mathrm{sign}(uw) = |w|u$, half the decay acts always and "
                r"the other half lengthens the update.",
                (sp.Eq(sp.Symbol("w'"), linear),),
            ),
            Step(
                r"Unrolled over past updates, with $|w|$ replaced by its mean and the arcsine law for $E u_tu_{t-k}$,",
                (sp.Eq(half, linear.coeff(w)), sp.Eq(memory, past), sp.Eq(c, correlation)),
            ),
            Step(r"$E w^2$ is stationary: square the update and average term by term.", (balance,)),
            Step("Decay on the left, growth on the right.", (sp.Eq(rate * share * r, growth),)),
            Step(r"The cosine of the rotation is $E[ww']/r$.", (sp.Eq(sp.Symbol("cos"), cosine),)),
            Step(
                r"Without momentum $c = 0$, half of $w^2$ is decayed, and the balance is quadratic in $\sqrt{r}$.",
                (sp.Eq(sp.Symbol(r"\sqrt{r_0}"), rms),),
            ),
        ),
        result={} if momentum else formulas,
        inputs={"lr": eta, "weight_decay": lam, "d": d} | ({"momentum": beta} if momentum else {}),
        source="the rule, Chen et al., arXiv 2510.12402; equilibrium derived here",
    )
