"""A gradient that leans on the weights: the norm's differential equation, its equilibrium and its solution."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step, equilibrium_symbols
from theory.derivations.sgd_trajectory import average


def derivation(scale_invariant_sgd: bool = False) -> Derivation:
    """Derive what a mean radial gradient does to the norm at constant rates.

    Args:
        scale_invariant_sgd: SGD with gradients of size c/||w|| rather than updates of fixed size (AdamW).

    Returns:
        The proof.
    """
    eta, lam = equilibrium_symbols()
    rho, drop = sp.Symbol("rho", real=True), sp.Symbol("j", integer=True, nonnegative=True)
    beta, eps, x, x0, s = sp.symbols("beta_1 epsilon x x_0 S", positive=True)
    t, x1, q = sp.symbols("t x_1 q", positive=True)
    w, u = sp.symbols("w u")
    unit, noise, square = sp.symbols("g c R", positive=True)
    passed = sp.simplify((1 - beta) * sp.summation(beta**drop, (drop, 0, sp.oo)).args[0][0])
    if scale_invariant_sgd:  # x = R/c, ||g|| = c/sqrt(R)
        size, to_square = noise / sp.sqrt(square), noise * x
        variance, per_size, fluctuation = size**2, 1 / noise, sp.Integer(1)
    else:  # x = norm/||g||, all of ||g|| = 1 per coordinate after the second moment
        size, to_square = unit, unit**2 * x**2
        variance, per_size, fluctuation = s * unit**2, 1 / (2 * unit**2 * x), s
    decay = lam + rho * passed * size / sp.sqrt(square)
    after = average(
        sp.expand(((1 - eta * eps * sp.Symbol("Lambda")) * w - eta * u) ** 2),
        (w, u),
        {(2, 0): square, (0, 2): eps * variance},
    )
    change = sp.expand((after - square).subs(sp.Symbol("Lambda"), decay))
    slow = sp.limit(change / eps, eps, 0)
    slope = sp.expand(sp.simplify(slow.subs(square, to_square) * per_size))
    rate = sp.Function("x")(t)
    stationary = sp.Eq(sp.expand(slope * x / eta), 0)
    root = next(r for r in sp.solve(stationary, x) if r.subs({rho: 0}).subs({eta: 1, lam: 1, s: 1}) > 0)
    z = sp.Symbol("z", real=True)
    ratio = sp.simplify((root / root.subs(rho, 0)).subs(rho, z * sp.sqrt(2 * eta * lam * fluctuation)))
    implicit = x1 * sp.log((x0 - x1) / (x - x1)) + q * sp.log((x0 + q) / (x + q))
    roots = {rho: lam * (q - x1)} | ({eta: 2 * lam * q * x1} if scale_invariant_sgd else {s: 2 * lam * q * x1 / eta})
    pace = sp.factor(sp.simplify(sp.diff(implicit, x) * slope.subs(roots)))
    pace = pace.subs(q * x1, eta / (2 * lam)) if scale_invariant_sgd else pace
    return Derivation(
        law="radial_gradient",
        setting=(
            r"SGD, gradients of size $c/\|w\|$: $w' = w - \eta(g + \lambda w)$, "
            if scale_invariant_sgd
            else r"AdamW, $w' = (1-\eta\lambda)w - \eta m/\sqrt v$, whose second moment gives every coordinate the same size, "
        )
        + r"$g$ = white noise plus the mean $\rho\|g\|w/\|w\|$; $R = E\|w\|^2$.",
        steps=(
            Step(
                r"The mean points the same way in every step, and momentum passes it whole: its weights sum to",
                (sp.Eq(sp.Sum((1 - beta) * beta**drop, (drop, 0, sp.oo)), passed),),
            ),
            Step(
                r"It acts as a further decay: in all $\Lambda$ per unit of the rate.",
                (sp.Eq(sp.Symbol("Lambda"), decay),),
            ),
            Step(
                r"Noise $u$ moves the weights by its long-run variance; $\Lambda$ and noise are slow, both of order "
                r"$\epsilon$: square, average, and keep the first order.",
                (sp.Eq(sp.Symbol("R'-R"), change), sp.Eq(sp.Derivative(sp.Function("R")(t), t), slow)),
            ),
            Step(
                r"Measure the norm in the unit that clears the equation, "
                + (r"$x = R/c$." if scale_invariant_sgd else r"$x = \sqrt R/g$ ($g = \sqrt d$ for AdamW)."),
                (sp.Eq(sp.Derivative(rate, t), slope),),
            ),
            Step(
                r"It stands still at the positive root; against the root without a radial gradient only "
                r"$z = \rho/\sqrt{2\eta\lambda S}$ counts.",
                (stationary, sp.Eq(x1, root), sp.Eq(sp.Symbol("x_1/x_1(0)"), ratio)),
            ),
            Step(
                r"With the roots $x_1$ and $-q$ the equation separates. The function on the left grows at a constant "
                r"pace, by its derivative in $x$ times $dx/dt$; $\lambda(x_1+q) = \sqrt{\rho^2+2\eta\lambda S}$.",
                (sp.Eq(sp.Derivative(implicit, t), pace),),
            ),
        ),
        result={"size": root, "extra_decay": rho / root},
        inputs={"radial": rho, "lr": eta, "weight_decay": lam} | ({} if scale_invariant_sgd else {"long_run": s}),
        source="derived here",
    )
