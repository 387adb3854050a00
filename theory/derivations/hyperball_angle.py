"""Weights projected to a sphere after every step: a decayed walk whose shrink factor solves a cubic."""

import sympy as sp

from theory.derivations import normalized_momentum_equilibrium
from theory.derivations.derivation import Derivation, Step, equilibrium_symbols


def derivation() -> Derivation:
    """Derive the shrink factor of the projection and the rotation of one step.

    Returns:
        The proof.
    """
    eta, lam = equilibrium_symbols()
    a, z, y, size, theta = sp.symbols("a z y A theta", positive=True)
    walk = normalized_momentum_equilibrium.derivation()
    beta = walk.inputs["momentum"]
    decay = sp.solve(sp.Eq(a, 1 - eta * lam), lam)[0]
    squared, cosine = (
        sp.factor(formula.subs(lam, decay)) for formula in (walk.result["norm"] ** 2, sp.cos(walk.result["angle"]))
    )
    unit = sp.Eq(1, squared.subs(eta, a * eta))
    cubic = sp.Poly(sp.numer(sp.together((unit.lhs - unit.rhs).subs(a, 1 / z))), z).monic()
    depressed = sp.Poly(cubic.as_expr().subs(z, y - cubic.coeff_monomial(z**2) / 3), y)
    p, q = (sp.factor(depressed.coeff_monomial(power)) for power in (y, 1))
    # with y = A cos(theta) and cos(3 theta) = 4 cos^3 - 3 cos, choose A such that both powers combine
    amplitude = sp.solve(sp.Eq(size**3 / 4, -p * size / 3), size)[0]
    tripled = -4 * q / amplitude**3
    root = -cubic.coeff_monomial(z**2) / 3 + amplitude * sp.cos(sp.acos(tripled) / 3)
    shrink = 1 / root
    return Derivation(
        law="hyperball_angle",
        setting=r"$w' = \mathrm{Normalize}(w - \eta u)$ on the unit sphere, $u = m/\|m\|$, $m$ an average of white noise "
        r"with coefficient $\beta$, many coordinates.",
        steps=(
            Step(
                r"In many dimensions the normalising factor is a constant $a$: a walk $w' = a(w-\eta u)$ of decay "
                r"$1-a$, step $a\eta$ and norm 1 (law `normalized\_momentum\_equilibrium`).",
                (unit,),
            ),
            Step(r"A cubic in $z = 1/a$.", (sp.Eq(cubic.as_expr(), 0),)),
            Step(
                r"Its square term goes with a shift to $y$.",
                (sp.Eq(z, y - cubic.coeff_monomial(z**2) / 3), sp.Eq(depressed.as_expr(), 0)),
            ),
            Step(
                r"All three roots are real (the cubic changes sign between $-\infty$, $-1$, $\beta$, 1 and $\infty$). Set "
                r"$y = A\cos\theta$ with $A$ such that $y^3$ and $y$ combine to $\cos3\theta = 4\cos^3\theta - 3\cos\theta$; "
                r"$\theta$ in $[0, \pi/3]$ is the largest root, the one with $a < 1$.",
                (
                    sp.Eq(size, amplitude),
                    sp.Eq(theta, sp.acos(y / size)),
                    sp.Eq(sp.cos(3 * theta), tripled),
                    sp.Eq(z, root),
                    sp.Eq(a, shrink),
                ),
            ),
            Step("The rotation is that of the walk.", (sp.Eq(sp.Symbol("cos"), cosine),)),
        ),
        result={"angle": sp.acos(cosine.subs(a, shrink)), "shrink": shrink},
        inputs={"lr": eta, "momentum": beta},
        source="derived here",
    )
