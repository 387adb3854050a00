"""A small branch added to a rounded stream: the mean squared rounding error, averaged over the stream's binades."""

import sympy as sp

from theory.derivations.coupled_l2_survival import binade, over_binades
from theory.derivations.derivation import Derivation, Step
from theory.derivations.rounding_diffusion import error_series
from theory.derivations.rounding_drift_gain import density


def derivation(small: bool = True, terms: int = 256) -> Derivation:
    """Derive the relative error of a branch added to a stream in bfloat16.

    Args:
        small: A branch of less than 0.05 of the stream, whose sum is on the stream's grid; else the sum's own spacing
            counts.
        terms: Where the Fourier series is cut.

    Returns:
        The proof.
    """
    r, spacing, s = sp.symbols("r ulp s", positive=True)
    n, x = sp.Symbol("n", integer=True, positive=True), sp.Symbol("x", real=True)
    mean, term, averaged = error_series()
    series = mean + sp.Sum(averaged, (n, 1, sp.oo))
    finite = mean + sp.Sum(averaged, (n, 1, terms))
    share, ulp = binade()
    if small:
        error = sp.sqrt(over_binades(spacing**2 * finite.subs(s, r / spacing), spacing)) / r
        shown = sp.sqrt(over_binades(spacing**2 * series.subs(s, r / spacing), spacing)) / r
        last = Step(r"Average over the stream's binades, relative to the branch.", (sp.Eq(sp.Symbol("error"), shown),))
    else:
        e, size = sp.Symbol("e", integer=True), sp.sqrt(1 + r**2)
        wide = sp.simplify(2 * sp.integrate(density(x, size), (x, 2**e, 2 ** (e + 1))))
        error = sp.sqrt(mean * over_binades(spacing**2, spacing).xreplace({share: wide})) / r
        last = Step(
            r"A branch of the stream's order spreads over many cells: the waves average out, and the grid is that of the "
            r"sum, of variance $1 + r^2$.",
            (sp.Eq(sp.Symbol("p_e"), wide), sp.Eq(sp.Symbol("error"), error)),
        )
    return Derivation(
        law="residual_precision",
        setting=r"Stream $x \sim N(0,1)$ on its bfloat16 grid, branch $f \sim N(0,r^2)$, the sum rounded to nearest.",
        steps=(
            Step(
                r"In units of the spacing the branch has size $s$. In every cell the squared error is $x^2$: mean and Fourier "
                "coefficients,",
                (sp.Eq(sp.Symbol("a_0"), mean), sp.Eq(sp.Symbol("a_n"), term)),
            ),
            Step(
                r"and, averaged over the branch,",
                (sp.Eq(sp.Symbol("E_v"), series), sp.Eq(s, r / spacing)),
            ),
            Step(
                r"The stream is in the binade from $2^e$ to $2^{e+1}$ with probability $q_e$, and the spacing there is",
                (sp.Eq(sp.Symbol("q_e"), share), sp.Eq(spacing, ulp)),
            ),
            last,
        ),
        result={"relative_error": error},
        inputs={"ratio": r},
        source="derived here",
    )
