"""Mean square of a rounded step: a sum over grid points, or a Fourier series."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step
from theory.derivations.rounding_drift_gain import coefficient, density, gain_term, wave


def error_series() -> tuple[sp.Expr, sp.Expr, sp.Expr]:
    """Mean squared error of rounding N(0, s^2) to the nearest grid point.

    Returns:
        Mean and n-th Fourier coefficient of the squared error, and the n-th term of its average.
    """
    x, half = sp.Symbol("x", real=True), sp.Rational(1, 2)
    mean = sp.integrate(x**2, (x, -half, half))
    term = coefficient(x**2, sp.cos)
    return mean, term, term * wave()


def derivation(terms: int = 40, fourier: bool = False) -> Derivation:
    """Derive the mean square of a step N(0, s^2) after rounding.

    Args:
        terms: Where the sums are cut.
        fourier: The Fourier series rather than the sum over grid points.

    Returns:
        The proof.
    """
    s, x = sp.Symbol("s", positive=True), sp.Symbol("x", real=True)
    k, n = sp.symbols("k n", integer=True, positive=True)
    half = sp.Rational(1, 2)
    edge = sp.Symbol("b", positive=True)
    tail = sp.simplify(sp.integrate(density(x, s), (x, edge, sp.oo))).rewrite(sp.erfc)
    cell = tail.subs(edge, k - half) - tail.subs(edge, k + half)
    points = sp.Sum(2 * k**2 * cell, (k, 1, sp.oo))
    weight = sp.expand(k**2 - (k - 1) ** 2)
    direct = sp.Sum(2 * weight * tail.subs(edge, k - half), (k, 1, sp.oo))
    mean, term, averaged = error_series()
    constant = 2 * s**2 - s**2 + mean
    series = constant + sp.Sum(sp.factor(2 * s**2 * gain_term() + averaged), (n, 1, sp.oo))
    chosen = series if fourier else direct
    return Derivation(
        law="rounding_diffusion",
        setting=r"A weight on a grid point moves by $x \sim N(0, s^2)$, in units of the grid's spacing, and is rounded to the "
        "nearest point, $k$ points away.",
        steps=(
            Step(
                r"$k \ge 1$ if $x$ lies between $k-\frac12$ and $k+\frac12$; with the normal's tail $Q_b$ beyond $b$, both "
                "signs together,",
                (sp.Eq(sp.Symbol("Q_b"), tail), sp.Eq(sp.Symbol("E[k^2]"), points)),
            ),
            Step(
                r"Every tail counts twice, in the cell that it begins and, negative, in the one before: with the weight",
                (sp.Eq(sp.Symbol("c_k"), weight), sp.Eq(sp.Symbol("E[k^2]"), direct)),
            ),
            Step(
                r"The other way round: the squared error $(x-RN x)^2$ is $x^2$ in every cell, of mean $a_0$ and Fourier "
                r"coefficients $a_n$.",
                (sp.Eq(sp.Symbol("a_0"), mean), sp.Eq(sp.Symbol("a_n"), term)),
            ),
            Step(
                r"$k^2 = (x-k)^2 - x^2 + 2xk$, and $E[xk] = s^2$ gain (Stein; law `rounding\_drift\_gain`).",
                (sp.Eq(sp.Symbol("E[k^2]"), series),),
            ),
        ),
        result={"diffusion": chosen.replace(sp.Sum, lambda f, limits: sp.Sum(f, (limits[0], 1, terms)))},
        inputs={"update_over_ulp": s},
        source="derived here",
    )
