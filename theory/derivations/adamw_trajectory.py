"""AdamW step by step: the moments of weights and first moment, and a second moment that lags."""

import sympy as sp

from theory.derivations.adamw_equilibrium import corrections
from theory.derivations.derivation import Derivation, Step, equilibrium_symbols
from theory.derivations.sgd_trajectory import average


def derivation(steps: int = 3, scale_invariant: bool = True) -> Derivation:
    """Derive one step of AdamW's moments, and norm and rotation after several.

    Args:
        steps: Number of steps; the formulas hold for the last one.
        scale_invariant: Gradients that shrink as 1/||w|| rather than of a fixed size.

    Returns:
        The proof.
    """
    eta, lam = equilibrium_symbols()
    b1, b2 = sp.symbols("beta_1 beta_2", nonnegative=True)
    a, h, d, kurtosis, norm0 = sp.symbols("a h d kappa_4 r_0", positive=True)
    square, inner, first, second, noise, u, s = sp.symbols("W X M V q U S", positive=True)
    count = sp.Symbol("t", integer=True, positive=True)
    w, m, g = vectors = sp.symbols("w m g")
    moments = {(2, 0, 0): square, (1, 1, 0): inner, (0, 2, 0): first, (0, 0, 2): d * noise}
    new_m = b1 * m + (1 - b1) * g
    new_w = sp.expand(a * w - h * new_m)
    new_square, new_inner, new_first, overlap = (
        average(sp.expand(product), vectors, moments) for product in (new_w**2, new_w * new_m, new_m**2, w * new_w)
    )
    new_second = b2 * second + (1 - b2) * noise
    names = [sp.Symbol(name) for name in ("W'", "X'", "M'", "V'", r"E\langle w,w'\rangle")]

    step_size = eta / (1 - b1**count) / sp.sqrt(names[3] / (1 - b2**count)) * sp.sqrt(s)
    product = sp.Symbol("P")
    chord = sp.Eq(names[0] - 2 * a * product + a**2 * square, h**2 * names[2] * u / s)
    cosine = sp.solve(chord, product)[0] / sp.sqrt(square * names[0])

    _, one_step, long_run = corrections()
    factors = {sp.Symbol("q"): (kurtosis - 1) * (1 - b2)}
    rates = sp.symbols(f"eta_0:{steps}", positive=True)
    state = (norm0**2, sp.Integer(0), sp.Integer(0), sp.Integer(0))
    cosine_now = sp.Integer(1)
    for t, rate in enumerate(rates, start=1):
        now = {noise: d / state[0] if scale_invariant else sp.Integer(1)}
        now |= dict(zip((square, inner, first, second), state, strict=True))
        moved_second = new_second.subs(now, simultaneous=True)
        now |= {a: 1 - rate * lam, h: step_size.subs({count: t, eta: rate, names[3]: moved_second})}
        moved = [formula.subs(now, simultaneous=True) for formula in (new_square, new_inner, new_first)]
        cosine_now = cosine.subs({names[0]: moved[0], names[2]: moved[2]} | now, simultaneous=True)
        state = (*moved, moved_second)
    sizes = {u: one_step.subs(factors), s: long_run.subs(factors)}
    return Derivation(
        law="adamw_trajectory",
        setting=r"torch.optim.AdamW: $m' = \beta_1m + (1-\beta_1)g$, $v' = \beta_2v + (1-\beta_2)g^2$, "
        r"$w' = aw - hm'$ with $a = 1-\eta\lambda$ and $h$ what multiplies the first moment; white gradients, "
        r"$q = E g^2$ in each of $d$ coordinates; $W = E\|w\|^2$, $X = E\langle w,m\rangle$, $M = E\|m\|^2$, $V = E v$.",
        steps=(
            Step(
                r"Square and multiply $w'$ and $m'$ and average; new gradients know nothing of $w$ and $m$.",
                tuple(
                    sp.Eq(name, sp.expand(formula))
                    for name, formula in zip(
                        names, (new_square, new_inner, new_first, new_second, overlap), strict=True
                    )
                ),
            ),
            Step(
                r"In the $t$-th step, bias corrections included; its noise lengthens the long run's variance by $S$ (law "
                r"`adamw\_equilibrium`).",
                (sp.Eq(a, 1 - eta * lam), sp.Eq(h, step_size)),
            ),
            Step(
                "Scale-invariant gradients shrink as the norm grows."
                if scale_invariant
                else "The gradients' size is the unit in which Adam measures.",
                (sp.Eq(noise, d / square if scale_invariant else sp.Integer(1)),),
            ),
            Step(
                r"The step itself, $\|w'-aw\|^2$, has the one-step variance: $U/S$ times $h^2M'$. The law of cosines for "
                r"$P = E\langle w,w'\rangle$.",
                (chord, sp.Eq(sp.Symbol("cos"), cosine)),
            ),
        ),
        result={"norm": sp.sqrt(state[0]).subs(sizes), "angle": sp.acos(cosine_now).subs(sizes)},
        inputs={
            "schedule": sp.Tuple(*rates),
            "weight_decay": lam,
            "betas": sp.Tuple(b1, b2),
            "norm0": norm0,
            "d": d,
            "noise_kurtosis": kurtosis,
        },
        source="derived here",
    )
