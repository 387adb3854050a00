"""Norms under the common schedules: one linear equation, solved by its integrating factor."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step, equilibrium_symbols
from theory.derivations.sgd_trajectory import average
from theory.errors import require

KINDS = ("constant", "linear", "warmup", "cosine", "invsqrt", "wsd")


def symbols() -> tuple[sp.Symbol, sp.Symbol, sp.Symbol]:
    """The symbols of every schedule.

    Returns:
        kappa, r_0 and the time s.

    Example:
        >>> symbols()
        (kappa, r_0, s)
    """
    return sp.Symbol("kappa", positive=True), sp.Symbol("r_0", nonnegative=True), sp.Symbol("s", positive=True)


def equation() -> tuple[tuple[Step, ...], sp.Expr]:
    """Derive the equation of the relative squared norm from one step of decayed weights.

    Returns:
        The steps, and dr/ds in x (rate over peak), l (decay over its nominal value), r and kappa.
    """
    kappa, _, _ = symbols()
    eta, lam = equilibrium_symbols()
    peak, square, c, eps, x, duration, r, share = sp.symbols("eta_max R c epsilon x T r l", positive=True)
    w, u = sp.symbols("w u")
    update = (1 - eta * lam) * w - eta * u
    after = average(sp.expand(update**2), (w, u), {(2, 0): square, (0, 2): c})
    change = sp.expand((after - square).subs({lam: eps * lam, c: eps * c}, simultaneous=True))
    slow = sp.limit(change / eps, eps, 0)
    star = sp.solve(slow.subs(eta, peak), square)[0]
    scaled = slow.subs(lam, share * lam).subs({eta: x * peak, square: r * star})
    rate = sp.factor(sp.simplify(scaled * duration / star).subs(lam, kappa / (peak * duration)))
    steps = (
        Step(
            r"Square the update and average: $u$ is white, of variance $c$, and knows nothing of $w$; $R = E\|w\|^2$.",
            (
                sp.Eq(sp.Symbol("w'"), update),
                sp.Eq(sp.Symbol("R'"), sp.factor(after.coeff(square)) * square + eta**2 * c),
            ),
        ),
        Step(
            r"Decay and noise are slow, $\epsilon\lambda$ and $\epsilon c$ in place of $\lambda$ and $c$; to first order in "
            r"$\epsilon$, in units of $1/\epsilon$ steps, the change in a step is a derivative.",
            (
                sp.Eq(sp.Symbol("R'-R"), change),
                sp.Eq(sp.Derivative(sp.Function("R")(sp.Symbol("t")), sp.Symbol("t")), slow),
            ),
        ),
        Step("It vanishes at the peak rate for", (sp.Eq(sp.Symbol("R_*"), star),)),
        Step(
            r"In units $r = R/R_*$, $x = \eta/\eta_{max}$, $l = \lambda_t/\lambda$, $s = t/T$ one number is left, "
            r"$\kappa = \eta_{max}\lambda T$.",
            (sp.Eq(sp.Derivative(sp.Function("r")(sp.Symbol("s")), sp.Symbol("s")), rate),),
        ),
    )
    return steps, rate


def relaxed(x: sp.Expr, share: sp.Expr, start: sp.Expr) -> tuple[sp.Expr, sp.Integral]:
    """Solve dr/ds = 2 kappa (x^2 - x l r) from r = r_0 by the integrating factor.

    Args:
        x: Rate over peak as a formula in s.
        share: Decay coefficient over its nominal value, a formula in s.
        start: Where s begins.

    Returns:
        Integral of the decay x*l from `start` to s, and the integral that the source leaves in r(s).

    Example:
        >>> one = sp.Integer(1)
        >>> relaxed(one, one, sp.Integer(0))[0]
        s
    """
    kappa, _, s = symbols()
    q = sp.Symbol("q", positive=True)
    rate = equation()[1].subs({sp.Symbol("x", positive=True): x, sp.Symbol("l", positive=True): share})
    r = sp.Symbol("r", positive=True)
    decay, source = -rate.expand().coeff(r), rate.expand().coeff(r, 0)
    past = sp.Symbol("sigma", positive=True)
    total = sp.expand(sp.integrate(sp.simplify(decay / (2 * kappa)).subs(s, past), (past, start, s)))
    weight = sp.exp(-2 * kappa * (total - total.subs(s, q)))
    return total, sp.Integral(source.subs(s, q) * weight, (q, start, s))


def _closed(integral: sp.Integral, substitution: sp.Expr | None) -> sp.Expr:
    """Evaluate an integral over q, after a substitution y = substitution(q) if there is one."""
    y = sp.Symbol("y", positive=True)
    changed = integral.transform(substitution, y) if substitution is not None else integral
    (limits,) = changed.limits
    outer, inner = sp.powsimp(sp.expand(changed.function)).as_independent(limits[0], as_Add=False)
    separated = sp.expand(inner, power_exp=True).as_independent(limits[0], as_Add=False)
    return outer * separated[0] * sp.integrate(sp.powsimp(separated[1]), limits)


def solution(kind: str) -> tuple[sp.Expr, sp.Expr, sp.Expr, dict[str, sp.Symbol]]:
    """Solve the equation for one kind of schedule other than `wsd`.

    Args:
        kind: constant, linear, warmup, cosine or invsqrt.

    Returns:
        x(s), r before the integral is evaluated, r after, and the kind's own parameters.
    """
    kappa, r0, s = symbols()
    x, floor, y = sp.Symbol("x", nonnegative=True), sp.Symbol("f", nonnegative=True), sp.Symbol("y_1", positive=True)
    q = sp.Symbol("q", positive=True)
    cosine = floor + (1 - floor) * (1 + sp.cos(sp.pi * s)) / 2
    rates = {"constant": 1, "linear": 1 - s, "warmup": s, "cosine": cosine, "invsqrt": 1 / sp.sqrt(s)}
    ends = {"constant": 1, "linear": 1 - x, "warmup": x, "cosine": s, "invsqrt": y}
    parameters = {"linear": {"x": x}, "warmup": {"x": x}, "cosine": {"floor": floor, "s": s}, "invsqrt": {"y": y}}
    changes = {"linear": 1 - q, "invsqrt": sp.sqrt(q)}
    rate, end = sp.sympify(rates[kind]), sp.sympify(ends[kind])
    total, integral = relaxed(rate, sp.Integer(1), sp.Integer(1 if kind == "invsqrt" else 0))
    left = r0 * sp.exp(-2 * kappa * total)
    formal = left + integral
    if kind == "cosine":
        return rate, formal, formal, parameters[kind]
    value = (left + _closed(integral, changes.get(kind))).subs(s, end)
    return rate, formal, sp.powsimp(sp.expand(value)), parameters.get(kind, {})


def derivation(kind: str = "linear") -> Derivation:
    """Derive the squared norm under a schedule, relative to its equilibrium at the peak rate.

    Args:
        kind: constant, linear (1 to 0), warmup (0 to 1), cosine (an integral), invsqrt or wsd.

    Returns:
        The proof.

    Raises:
        InputError: If the kind is unknown.
    """
    require(kind in KINDS, "kind", kind, f"one of {', '.join(KINDS)}")
    kappa, r0, _ = symbols()
    r, x = sp.Symbol("r"), sp.Symbol("x")
    steps, _ = equation()
    if kind == "wsd":
        fraction = sp.Symbol("f", nonnegative=True)
        plateau = solution("constant")[2].subs(kappa, (1 - fraction) * kappa)
        falling = solution("linear")
        end = falling[2].subs(falling[3]["x"], 0)
        formula = end.subs({r0: plateau, kappa: fraction * kappa}, simultaneous=True)
        parameters = {"decay_fraction": fraction}
        steps += (
            Step(
                r"Constant for a share $1-f$ of the steps: $\kappa$ shrinks by it.",
                (sp.Eq(sp.Symbol("r_{1-f}"), plateau),),
            ),
            Step(r"Then linear to zero from there, with $f\kappa$.", (sp.Eq(r, formula),)),
        )
    else:
        rate, formal, formula, parameters = solution(kind)
        steps += (
            Step("The schedule, and the solution by its integrating factor.", (sp.Eq(x, rate), sp.Eq(r, formal))),
        )
        if kind != "cosine":
            steps += (Step("Evaluate the integral where the law is asked for.", (sp.Eq(r, formula),)),)
    return Derivation(
        law="closed_form_norm",
        setting=r"$w' = (1-\eta\lambda)w - \eta u$ with $u$ white, of variance $c$: Adam-like and without momentum; "
        r"SGD on scale-invariant weights obeys the same for $r = (R/R_*)^2$ with $2\kappa/(1-\mu)$.",
        steps=steps,
        result={"r": formula},
        inputs={"kappa": kappa, "r0": r0} | parameters,
        source="derived here",
    )
