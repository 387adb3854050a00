"""The rise of gradient norms while the learning rate falls: finite, with a power of kappa."""

import sympy as sp

from theory.derivations import closed_form_norm
from theory.derivations.derivation import Derivation, Step
from theory.errors import require


def derivation(kind: str = "linear") -> Derivation:
    """Derive how much gradient norms of scale-invariant weights rise over a decay to zero.

    Args:
        kind: linear or cosine.

    Returns:
        The proof.

    Raises:
        InputError: If the kind is unknown.
    """
    require(kind in ("linear", "cosine"), "kind", kind, "linear or cosine (both decay to zero)")
    kappa, r0, s = closed_form_norm.symbols()
    rate, formal, general, parameters = closed_form_norm.solution(kind)
    ends = {r0: 1, s: 1} | {symbol: 0 for symbol in parameters.values() if symbol != s}
    final = general.subs(ends)
    if kind == "linear":
        final = sp.expand(sp.simplify(final))
        scale = sp.Rational(1, 4)
        leading = sp.limit(final * sp.sqrt(kappa), kappa, sp.oo) / sp.sqrt(kappa)
        late = Step(r"For large $\kappa$.", (sp.Eq(sp.Symbol("r_{lead}"), leading),))
    else:
        z, y = sp.symbols("z y", positive=True)
        near = sp.series(rate.subs(ends | {s: 1 - z}), z, 0, 4).removeO()
        gone = sp.integrate(near.subs(z, y), (y, 0, z))
        leading = sp.simplify(sp.integrate(2 * kappa * near**2 * sp.exp(-2 * kappa * gone), (z, 0, sp.oo)))
        scale = sp.Rational(1, 3)
        late = Step(
            r"For large $\kappa$ only the end matters, $s = 1 - z$: expand the rate and the decay $\Lambda$ that is "
            r"still to come, and integrate.",
            (
                sp.Eq(sp.Symbol("x"), near),
                sp.Eq(sp.Symbol("Lambda"), gone),
                sp.Eq(sp.Symbol("r_{lead}"), leading),
            ),
        )
    rise = 1 / sp.sqrt(final)
    return Derivation(
        law="gradient_rise",
        setting=r"Scale-invariant weights, $\|g\| = c/\|w\|$ with constant $c$, Adam-like, in equilibrium at the peak "
        "rate, which then falls to zero.",
        steps=(
            Step(
                r"Law `closed\_form\_norm` from $r_0 = 1$ to the end.",
                (sp.Eq(sp.Symbol("r"), formal), sp.Eq(sp.Symbol("r_{end}"), final)),
            ),
            Step(r"$\|g\| \propto 1/\|w\| = r^{-1/2}$.", (sp.Eq(sp.Symbol("rise"), rise),)),
            late,
            Step(
                "So the rise grows with a power of it.",
                (sp.Eq(sp.Symbol("rise_{lead}") / kappa**scale, sp.simplify(1 / sp.sqrt(leading) / kappa**scale)),),
            ),
        ),
        result={"rise": rise},
        inputs={"kappa": kappa},
        source="the effect, Defazio, arXiv 2506.02285; formula derived here",
    )
