"""Coupled decay added to a rounded gradient: the drift gain, averaged over the gradient's binades."""

from functools import cache

import sympy as sp

from theory.derivations.derivation import Derivation, Step
from theory.derivations.rounding_drift_gain import density, gain_term

BINADES = (-25, 3)
"""Exponents of |x| that a standard normal can have: 2^-25 is missed with probability 2^-25, 2^4 with e^-128."""


@cache
def binade(bits: int = 8) -> tuple[sp.Expr, sp.Expr]:
    """Probability of a binade under N(0, 1), and its grid's spacing.

    Args:
        bits: Significant bits, the leading one included.

    Returns:
        Both, in the exponent e of 2^e <= |x| < 2^(e+1).
    """
    e, x = sp.Symbol("e", integer=True), sp.Symbol("x", real=True)
    share = 2 * sp.integrate(density(x, sp.Integer(1)), (x, 2**e, 2 ** (e + 1)))
    return sp.simplify(share), sp.Integer(2) ** (e - (bits - 1))


def over_binades(function: sp.Expr, spacing: sp.Symbol) -> sp.Expr:
    """Average over the spacing at a standard normal number.

    Args:
        function: A formula in the spacing.
        spacing: Its symbol.

    Returns:
        The sum over binades.
    """
    e = sp.Symbol("e", integer=True)
    share, ulp = binade()
    return sp.Sum(share * function.subs(spacing, ulp), (e, *BINADES))


def derivation(terms: int = 256) -> Derivation:
    """Derive the share of weight_decay*w that survives its addition to the gradient in bfloat16.

    Args:
        terms: Where the Fourier series is cut.

    Returns:
        The proof.
    """
    ratio, spacing, s = sp.symbols("r ulp s", positive=True)
    z = sp.Symbol("z", real=True)
    n = sp.Symbol("n", integer=True, positive=True)
    by_parts = sp.simplify(sp.diff(density(z, sp.Integer(1)), z) / density(z, sp.Integer(1)))
    gain = 1 + sp.Sum(gain_term(), (n, 1, terms))
    at_ratio = gain.subs(s, ratio / spacing)
    averaged = over_binades(at_ratio, spacing)
    share, ulp = binade()
    return Derivation(
        law="coupled_l2_survival",
        setting=r"Gradient $g \sim N(0,1)$ on its bfloat16 grid, decay term $rz$, $z \sim N(0,1)$, the sum rounded to nearest; "
        r"in units of the spacing at $g$ the term is $sz$.",
        steps=(
            Step(
                r"The share is the regression of what the sum moves by on the term, $E[z\,RN(sz)]/s$. Because of",
                (sp.Eq(sp.Symbol("phi'/phi"), by_parts),),
            ),
            Step(
                r"integration by parts turns $z$ into a derivative (Stein): it is the mean slope of $RN$, the gain of law "
                r"`rounding\_drift\_gain`.",
                (sp.Eq(sp.Symbol("gain"), gain.subs(terms, sp.oo)), sp.Eq(s, ratio / spacing)),
            ),
            Step(
                r"A gradient is in the binade from $2^e$ to $2^{e+1}$ with probability $p_e$, and the spacing there is",
                (sp.Eq(sp.Symbol("p_e"), share), sp.Eq(spacing, ulp)),
            ),
            Step("Average.", (sp.Eq(sp.Symbol("fraction"), averaged.subs(terms, sp.oo)),)),
        ),
        result={"fraction": averaged},
        inputs={"ratio": ratio},
        source="derived here",
    )
