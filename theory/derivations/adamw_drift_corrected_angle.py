"""Rotation under AdamW from decay and the drift of the norm: how much of the growth is one step's own."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step, equilibrium_symbols
from theory.derivations.sgd_trajectory import average


def derivation(measured: bool = False) -> Derivation:
    """Derive the rotation of weights whose norm drifts, under an average of white noise with decoupled decay.

    Args:
        measured: Leave the ratio of one-step to long-run variance as it is rather than derive it for an average of
            signs (kurtosis 1: no correction for a noisy second moment).

    Returns:
        The proof.
    """
    eta, lam = equilibrium_symbols()
    beta = sp.Symbol("beta_1", nonnegative=True)
    a, square, update, inner, nu, c = sp.symbols("a R U X nu c", positive=True)
    drift = sp.Symbol("delta", real=True)
    w, u = sp.symbols("w u")
    following = a * w - u
    squared = average(sp.expand(following**2), (w, u), {(2, 0): square, (1, 1): inner, (0, 2): update})
    lag = sp.Symbol("k", integer=True, positive=True)
    correlation = update * (beta * sp.exp(drift)) ** lag
    geometric = sp.Sum(a ** (lag - 1) * correlation, (lag, 1, sp.oo))
    term = sp.Symbol("y", positive=True)  # a beta e^delta, below 1
    total = sp.summation(term**lag, (lag, 1, sp.oo)).args[0][0]
    summed = -update * sp.simplify(total.subs(term, a * beta * sp.exp(drift)) / a)
    growth = sp.factor(sp.expand(squared - a**2 * square).subs(inner, summed))
    share = sp.factor(sp.simplify(update / growth).subs(beta, c * sp.exp(-drift) / a))
    balance = sp.Eq(update, nu * (sp.exp(2 * drift) - a**2) * square)
    overlap = sp.expand(a * square - inner)
    from_norms = sp.solve(sp.Eq(sp.exp(2 * drift) * square, squared), inner)[0]
    cosine = sp.factor(sp.simplify(overlap.subs(inner, from_norms).subs(update, balance.rhs) / square / sp.exp(drift)))
    small = sp.Symbol("epsilon", positive=True)
    scaled = (1 - cosine).subs({a: 1 - small * eta * lam, drift: small * drift}, simultaneous=True)
    leading = sp.factor(2 * sp.diff(scaled, small).subs(small, 0))
    value = cosine if measured else cosine.subs(nu, share.subs(c, a * beta * sp.exp(drift)))
    return Derivation(
        law="adamw_drift_corrected_angle",
        setting=r"$w' = aw - u$ with $a = 1-\eta\lambda$, $u = \eta m/\sqrt v$, $m$ an average of white noise with "
        r"coefficient $\beta_1$; $R = E\|w\|^2$, $U = E\|u\|^2$, $X = E\langle w,u\rangle$, and $\|w'\| = e^\delta\|w\|$.",
        steps=(
            Step(
                r"Square the update: what decay leaves unexplained of the norm is $U - 2aX$.",
                (sp.Eq(sp.Symbol("w'"), following, evaluate=False), sp.Eq(sp.exp(2 * drift) * square, squared)),
            ),
            Step(
                r"The weights hold past updates, shrunk by $a$ per step; today's repeats the one $k$ steps ago by "
                r"$\beta_1^k$, enlarged by $e^{\delta k}$ because the gradients remembered from smaller weights are larger "
                r"(for gradients of fixed size without that factor).",
                (sp.Eq(inner, -geometric, evaluate=False), sp.Eq(inner, summed)),
            ),
            Step(
                r"So one update's own square is the share $\nu$ of the growth, with $c = a\beta_1e^\delta$.",
                (sp.Eq(sp.Symbol(r"R'-a^2R"), growth), sp.Eq(nu, share), sp.Eq(c, a * beta * sp.exp(drift))),
            ),
            Step(
                r"Read backwards, the drift of the norm says how large the updates are, and $X$ with them.",
                (balance, sp.Eq(inner, from_norms)),
            ),
            Step(
                r"The rotation is $E\langle w,w'\rangle/(R e^\delta)$ with $E\langle w,w'\rangle = aR - X$.",
                (sp.Eq(sp.Symbol("cos"), cosine),),
            ),
            Step(
                r"To first order in decay and drift, both of order $\epsilon$, twice $1-\cos$ is",
                (sp.Eq(sp.Symbol("theta_{lead}") ** 2, leading),),
            ),
        ),
        result={"angle": sp.acos(value.subs(a, 1 - eta * lam))},
        inputs={"drift": drift, "lr": eta, "weight_decay": lam}
        | ({"variance_ratio": nu} if measured else {"betas": sp.Tuple(beta, sp.Symbol("beta_2"))}),
        source="derived here",
    )
