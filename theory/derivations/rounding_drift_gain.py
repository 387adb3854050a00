"""What dither does for a drift below the grid: a sum over half-integers, or a Fourier series."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step


def density(x: sp.Expr, size: sp.Expr) -> sp.Expr:
    """Density of N(0, size^2).

    Args:
        x: Where.
        size: Standard deviation.

    Returns:
        The density.
    """
    return sp.exp(-(x**2) / (2 * size**2)) / (sp.sqrt(2 * sp.pi) * size)


def wave() -> sp.Expr:
    """Mean of cos(2 pi n x) over x ~ N(0, s^2).

    Returns:
        A formula in n and s.

    Example:
        >>> wave()
        exp(-2*pi**2*n**2*s**2)
    """
    x, n, s = sp.Symbol("x", real=True), sp.Symbol("n", integer=True, positive=True), sp.Symbol("s", positive=True)
    return sp.simplify(sp.integrate(sp.cos(2 * sp.pi * n * x) * density(x, s), (x, -sp.oo, sp.oo)))


def coefficient(function: sp.Expr, basis: type[sp.Function]) -> sp.Expr:
    """Fourier coefficient on the cell of a grid point, from -1/2 to 1/2.

    Args:
        function: A formula in x.
        basis: sp.sin or sp.cos.

    Returns:
        The coefficient of basis(2 pi n x).
    """
    x, n = sp.Symbol("x", real=True), sp.Symbol("n", integer=True, positive=True)
    half = sp.Rational(1, 2)
    return sp.simplify(2 * sp.integrate(function * basis(2 * sp.pi * n * x), (x, -half, half)))


def gain_term() -> sp.Expr:
    """n-th term of the gain's Fourier series.

    Returns:
        A formula in n and s.
    """
    x, n = sp.Symbol("x", real=True), sp.Symbol("n", integer=True, positive=True)
    saw = coefficient(x, sp.sin) * sp.sin(2 * sp.pi * n * x)
    return sp.simplify(-sp.diff(saw, x) / sp.cos(2 * sp.pi * n * x)) * wave()


def derivation(terms: int = 40, fourier: bool = False) -> Derivation:
    """Derive the share of a small drift that survives round-to-nearest under Gaussian dither.

    Args:
        terms: Where the sums are cut.
        fourier: The Fourier series rather than the sum over half-integers.

    Returns:
        The proof.
    """
    s, drift = sp.Symbol("s", positive=True), sp.Symbol("e", real=True)
    x, y, edge = sp.Symbol("x", real=True), sp.Symbol("y", real=True), sp.Symbol("b", positive=True)
    k, n = sp.symbols("k n", integer=True, positive=True)
    beyond = sp.Integral(density(y, s), (y, edge - drift, sp.oo))
    slope = sp.simplify(beyond.diff(drift).doit().subs(drift, 0))
    per_edge = slope.subs(edge, k - sp.Rational(1, 2))
    direct = sp.Sum(2 * per_edge, (k, 1, sp.oo))
    saw = coefficient(x, sp.sin)
    series = 1 + sp.Sum(gain_term(), (n, 1, sp.oo))
    chosen = series if fourier else direct
    return Derivation(
        law="rounding_drift_gain",
        setting=r"A weight on a grid point moves by $e + x$, $x \sim N(0, s^2)$, in units of the grid's spacing, and is rounded "
        "to the nearest point.",
        steps=(
            Step(
                r"Rounding adds 1 at every half-integer $b > 0$ that is passed, with probability $P_b$; a small drift $e$ changes "
                "it at the rate",
                (sp.Eq(sp.Symbol("P_b"), beyond), sp.Eq(sp.Symbol("dP_b/de"), slope)),
            ),
            Step(
                r"The half-integers below 0 do the same: twice the sum over $b = k-\frac12$.",
                (sp.Eq(sp.Symbol("gain"), direct),),
            ),
            Step(
                r"The other way round: $x - RN(x)$ is $x$ in every cell; its Fourier coefficients, and the mean of a wave,",
                (sp.Eq(sp.Symbol("b_n"), saw), sp.Eq(sp.Symbol(r"E[\cos2\pi nx]"), wave())),
            ),
            Step(
                r"$RN(x) = x - \sum_nb_n\sin2\pi nx$; its mean slope is the same gain.",
                (sp.Eq(sp.Symbol("gain"), series),),
            ),
        ),
        result={"gain": chosen.replace(sp.Sum, lambda term, limits: sp.Sum(term, (limits[0], 1, terms)))},
        inputs={"dither_over_ulp": s},
        source="derived here",
    )
