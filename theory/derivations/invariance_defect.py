"""Scale invariance: Euler's identities for gradient and Hessian."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step


def derivation() -> Derivation:
    """Derive that both defects vanish for every scale-invariant function, written in three coordinates.

    Returns:
        The proof.
    """
    x, p, q, s = sp.symbols("x p q s", positive=True)
    f = sp.Function("F")(p, q)
    w = sp.Matrix([x, x * p, x * q])

    def nabla(value: sp.Expr) -> sp.Matrix:  # d/dx, d/dy, d/dz of a function of x, p = y/x and q = z/x
        by_p, by_q = sp.diff(value, p), sp.diff(value, q)
        return sp.Matrix([sp.diff(value, x) - (p * by_p + q * by_q) / x, by_p / x, by_q / x])

    gradient = nabla(f)
    hessian = sp.Matrix.hstack(*(nabla(entry) for entry in gradient)).T
    radial = sp.simplify((gradient.T * w)[0])
    defect = sp.simplify(hessian * w + gradient)
    curvature = sp.simplify((w.T * hessian * w)[0])
    rescaling = sp.simplify(gradient.subs(x, s * x) - gradient / s)
    return Derivation(
        law="invariance_defect",
        setting=r"$f(sw) = f(w)$ for all $s > 0$: $f$ is a function $F$ of ratios of coordinates only. Three "
        r"coordinates $w = (x, y, z)$ with $x > 0$ stand for any number, $F$ for any smooth function of $p = y/x$ and "
        r"$q = z/x$, which $s$ leaves alone.",
        steps=(
            Step(
                r"The chain rule gives $g = \nabla f$; its inner product with $w$ cancels term by term.",
                (
                    sp.Eq(sp.Symbol("g"), gradient, evaluate=False),
                    sp.Eq(sp.Symbol(r"\langle g,w\rangle"), radial),
                ),
            ),
            Step(
                "Gradients shrink as the weights grow.",
                (sp.Eq(sp.Symbol("g(sw)-g(w)/s"), rescaling, evaluate=False),),
            ),
            Step(
                r"Differentiating $\langle g,w\rangle = 0$ in $w$: the Hessian maps $w$ to $-g$, and is flat along $w$.",
                (
                    sp.Eq(sp.Symbol("Hw+g"), defect, evaluate=False),
                    sp.Eq(sp.Symbol("w^THw"), curvature),
                ),
            ),
        ),
        result={"radial": sp.Abs(radial), "hessian": sp.sqrt((defect.T * defect)[0])},
        inputs={},
        source="van Laarhoven, arXiv 1706.05350; Arora et al., arXiv 1812.03981",
    )
