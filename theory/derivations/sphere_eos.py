"""The edge of stability on the sphere: an exact orbit of period two."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step, equilibrium_symbols


def planar_step() -> tuple[sp.Matrix, sp.Expr, dict[str, sp.Symbol]]:
    """One step of gradient descent with decay in the plane of w, in polar coordinates.

    Returns:
        The new weights, the loss, and the symbols eta, a, L, R, phi.
    """
    eta, a, top, square = sp.symbols("eta a L R", positive=True)
    phi = sp.Symbol("phi", positive=True)
    x, y = sp.symbols("x y", real=True)
    loss = top * y**2 / (2 * (x**2 + y**2))
    polar = {x: sp.sqrt(square) * sp.cos(phi), y: sp.sqrt(square) * sp.sin(phi)}
    new = sp.Matrix([a * weight - eta * sp.diff(loss, weight) for weight in (x, y)])
    stepped = new.subs(polar, simultaneous=True).applyfunc(sp.simplify)
    names = {"eta": eta, "a": a, "L": top, "R": square, "phi": phi}
    return stepped, sp.simplify(loss.subs(polar)), names


def derivation() -> Derivation:
    """Derive norm, rotation and excess loss of the orbit, heavy ball included.

    Returns:
        The proof.
    """
    _, lam = equilibrium_symbols()
    stepped, loss, s = planar_step()
    eta, a, top, square, phi = (s[name] for name in ("eta", "a", "L", "R", "phi"))
    mu, half = sp.Symbol("mu", nonnegative=True), sp.Symbol("eta'", positive=True)
    s2 = sp.Symbol("S", positive=True)  # sin^2 phi
    radial = [sp.simplify(v / t) for v, t in zip(stepped, (sp.cos(phi), sp.sin(phi)), strict=True)]
    radial = [sp.expand(sp.expand(v).subs(sp.cos(phi) ** 2, 1 - s2).subs(sp.sin(phi) ** 2, s2)) for v in radial]
    back = sp.Eq(radial[1], -radial[0])
    returned = sp.factor(sp.solve(back, s2)[0])
    length = sp.expand((1 - s2) * radial[0] ** 2 + s2 * radial[1] ** 2)
    stays = sp.Eq(length, square)
    squared = next(r for r in sp.solve(stays.subs(s2, returned), square) if r.is_positive)
    share = sp.factor(returned.subs(square, squared))
    doubled = sp.simplify(sp.expand_trig(sp.cos(2 * phi)).subs(sp.cos(phi) ** 2, 1 - share))
    excess = sp.factor(loss.subs(sp.sin(phi) ** 2, share))

    w, w_next, g = sp.symbols("w w' g")
    heavy = sp.Eq(w_next, w - eta * (g + lam * w) + mu * (w - w_next))
    move = sp.factor(sp.solve(heavy, w_next)[0] - w)
    effective = sp.factor(-sp.expand(move).coeff(g))
    definitions = {a: 1 - half * lam, eta: half}
    values = {half: effective}
    return Derivation(
        law="sphere_eos",
        setting=r"Gradient descent with coupled decay, $w' = aw - \eta\nabla f$, $a = 1-\eta\lambda$, on the scale-invariant "
        r"$f = \frac{L}{2}\sin^2\varphi$, $\varphi$ the angle to the minimum; $R = \|w\|^2$.",
        steps=(
            Step(
                r"One step in the plane of $w$ and the minimum.",
                (sp.Eq(sp.Symbol("w'"), stepped, evaluate=False), sp.Eq(sp.Symbol("f"), loss)),
            ),
            Step(
                r"To come back to $-\varphi$ both coordinates must change by opposite factors; with $S = \sin^2\varphi$",
                (back, sp.Eq(s2, returned)),
            ),
            Step(r"and the norm must stay.", (stays, sp.Eq(square, squared))),
            Step(
                r"So the step turns by $2\varphi$ and the loss is above its minimum by",
                (
                    sp.Eq(s2, share),
                    sp.Eq(sp.cos(2 * phi), doubled, evaluate=False),
                    sp.Eq(sp.Symbol("excess"), excess),
                ),
            ),
            Step(
                r"Heavy ball adds $\mu$ times the last step, which on the orbit led from $w'$ to $w$: as plain descent with",
                (heavy, sp.Eq(w_next - w, move), sp.Eq(half, effective)),
            ),
        ),
        result={
            "norm": sp.sqrt(squared.subs(definitions).subs(values)),
            "angle": sp.acos(doubled.subs(definitions).subs(values)),
            "excess_loss": excess.subs(definitions).subs(values),
        },
        inputs={"lr": eta, "weight_decay": lam, "sharpness": top, "momentum": mu},
        source="Li et al., arXiv 2010.02916; Lyu et al., arXiv 2206.07085; orbit derived here",
    )
