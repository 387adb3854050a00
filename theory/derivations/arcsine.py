"""Sheppard's formula: the correlation of the signs of two Gaussian variables."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step


def derivation() -> Derivation:
    """Derive the correlation of signs by Price's theorem: its slope in the correlation is a density at the origin.

    Returns:
        The proof.
    """
    x, y = sp.symbols("x y", real=True)
    t, rho = sp.symbols("t rho", real=True)
    density = sp.exp(-(x**2 - 2 * t * x * y + y**2) / (2 * (1 - t**2))) / (2 * sp.pi * sp.sqrt(1 - t**2))
    heat = sp.simplify((sp.diff(density, t) - sp.diff(density, x, y)) / density)
    jump = sp.diff(sp.sign(x), x) / sp.DiracDelta(x)
    slope = sp.simplify(jump**2 * density.subs({x: 0, y: 0}))
    correlation = sp.integrate(slope, t)
    correlation = sp.simplify(correlation.subs(t, rho) - correlation.subs(t, 0))
    c = sp.Function("c")
    return Derivation(
        law="arcsine",
        setting=r"$x, y$ jointly Gaussian, mean 0, variance 1, correlation $t$, density $p_t(x,y)$; "
        r"$c(t) = E\,\mathrm{sign}(x)\,\mathrm{sign}(y)$.",
        steps=(
            Step("The density.", (sp.Eq(sp.Symbol("p_t"), density),)),
            Step(
                r"It solves $\partial_t p_t = \partial_x\partial_y p_t$ (relative difference of the two sides below), so "
                r"integrating by parts moves the derivatives onto the signs.",
                (sp.Eq(sp.Symbol(r"(\partial_t p_t - \partial_x\partial_y p_t)/p_t"), heat),),
            ),
            Step(
                r"The derivative of each sign is a delta function of weight 2: what is left is the density at 0.",
                (sp.Eq(sp.Symbol(r"\mathrm{sign}'/\delta"), jump), sp.Eq(sp.Derivative(c(t), t), slope)),
            ),
            Step(r"Independent signs have $c(0) = 0$; integrate from 0 to $\rho$.", (sp.Eq(c(rho), correlation),)),
        ),
        result={"correlation": correlation},
        inputs={"rho": rho},
        source="Sheppard's formula, by Price's theorem",
    )
