"""Small cycles around the edge of stability: the linearised step turns slowly."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step, equilibrium_symbols
from theory.derivations.sphere_eos import planar_step


def derivation() -> Derivation:
    """Derive the period of small oscillations of norm and loss about the orbit.

    Returns:
        The proof.
    """
    lr, lam = equilibrium_symbols()
    stepped, _, s = planar_step()
    eta, a, top, square, phi = (s[name] for name in ("eta", "a", "L", "R", "phi"))
    share, odds, size, shrink = sp.symbols("S q x rho", positive=True)
    radial = [sp.expand(sp.simplify(v / t)) for v, t in zip(stepped, (sp.cos(phi), sp.sin(phi)), strict=True)]
    radial = [sp.expand(v.subs(sp.cos(phi) ** 2, 1 - share).subs(sp.sin(phi) ** 2, share)) for v in radial]
    norm = sp.factor(((1 - share) * radial[0] ** 2 + share * radial[1] ** 2) / square)
    tangent = sp.factor((radial[1] / radial[0]) ** 2)

    # x = ln R and q = ln tan^2 phi: the step adds ln of the two ratios
    variables = {square: sp.exp(size), share: sp.exp(odds) / (1 + sp.exp(odds))}
    fixed = {square: eta * top / 2, share: (1 - a) / 2}
    growth, turn = (sp.log(value.subs(variables, simultaneous=True)) for value in (norm, tangent))
    back = {sp.exp(size): square, sp.exp(odds): share / (1 - share)}
    jacobian = sp.Matrix([growth, turn]).jacobian([size, odds]).subs(back)
    jacobian = jacobian.subs(fixed, simultaneous=True).applyfunc(lambda e: sp.factor(sp.simplify(e)))
    unchanged = [sp.simplify(value.subs(fixed, simultaneous=True)) for value in (norm, tangent)]
    leading = jacobian.subs(a, 1 - shrink).applyfunc(lambda e: sp.factor(sp.series(e, shrink, 0, 2).removeO()))
    square_rate = sp.factor(sp.limit(leading.det() / shrink, shrink, 0)) * shrink
    damping = sp.limit(leading.trace() / sp.sqrt(shrink), shrink, 0)
    period = 2 * sp.pi / sp.sqrt(square_rate)
    return Derivation(
        law="eos_period",
        setting=r"Gradient descent with decay at $\rho = \eta\lambda = 1-a$ near the orbit of law `sphere\_eos`; $x = \ln R$, "
        r"$q = \ln\tan^2\varphi$, $S = \sin^2\varphi$.",
        steps=(
            Step(
                "One step multiplies $R$ and $\\tan^2\\varphi$ by",
                (sp.Eq(sp.Symbol("R'/R"), norm), sp.Eq(sp.Symbol(r"\tan^2\varphi'/\tan^2\varphi"), tangent)),
            ),
            Step(
                "The orbit leaves both alone.",
                tuple(sp.Eq(symbol, value) for symbol, value in fixed.items())
                + tuple(sp.Eq(sp.Symbol(n), v, evaluate=False) for n, v in zip(("f_R", "f_S"), unchanged, strict=True)),
            ),
            Step(
                r"The change of $(x, q)$ in a step, linear in their displacement: exact, and for weak decay.",
                (sp.Eq(sp.Symbol("J"), jacobian, evaluate=False), sp.Eq(sp.Symbol("J_0"), leading, evaluate=False)),
            ),
            Step(
                r"Its eigenvalues solve $z^2 - z\,\mathrm{tr}J + \det J = 0$; to leading order the trace does not count, and "
                r"$z = \pm i\omega$.",
                (sp.Eq(sp.Symbol("omega") ** 2, square_rate), sp.Eq(sp.Symbol("tr/omega"), damping)),
            ),
            Step(r"A turn takes $2\pi/\omega$ steps.", (sp.Eq(sp.Symbol("steps"), period),)),
        ),
        result={"steps": period.subs(shrink, lr * lam)},
        inputs={"lr": lr, "weight_decay": lam},
        source="periods seen by Lobacheva et al., arXiv 2106.15739; formula derived here",
    )
