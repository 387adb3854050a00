"""Two factors under noise: the difference of their squares shrinks by an exact factor."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step, equilibrium_symbols


def derivation() -> Derivation:
    """Derive how fast noise and decay balance the two layers of f = u v.

    Returns:
        The proof.
    """
    eta, lam = equilibrium_symbols()
    u, v, target, r = sp.symbols("u v y r", real=True)
    a, square, steps = sp.symbols("a r^2 T", positive=True)
    loss = (u * v - target) ** 2 / 2
    gradient = [sp.diff(loss, weight).subs(target, u * v - r) for weight in (u, v)]
    new = [a * weight - eta * pull for weight, pull in zip((u, v), gradient, strict=True)]
    after = sp.expand(new[0] ** 2 - new[1] ** 2)
    factor = sp.factor(after) / (u**2 - v**2)
    factor = sp.expand(sp.simplify(factor))
    left = sp.Function("D")
    t = sp.Symbol("t", integer=True)
    mean = factor.subs(r**2, square)
    per_step = sp.Symbol("f", positive=True)
    decay = sp.rsolve(left(t + 1) - per_step * left(t), left(t), {left(0): 1}).subs(t, steps)
    ratio = decay.subs(per_step, mean)
    return Derivation(
        law="label_noise_balance",
        setting=r"Loss $\frac12(uv-y)^2$ with a fresh label $y$ at every step, coupled decay, $a = 1-\eta\lambda$; residual "
        r"$r = uv - y$.",
        steps=(
            Step(
                "One step of gradient descent.",
                (sp.Eq(sp.Symbol("u'"), new[0]), sp.Eq(sp.Symbol("v'"), new[1])),
            ),
            Step(
                "Take the difference of the squares; the mixed terms cancel, and what is left is proportional to what was.",
                (sp.Eq(sp.Symbol("D'"), after), sp.Eq(sp.Symbol("D'/D"), factor)),
            ),
            Step(
                r"Over $T$ steps with residuals that are uncorrelated in time $r^2$ may be averaged.",
                (sp.Eq(per_step, mean), sp.Eq(sp.Symbol("ratio"), decay)),
            ),
        ),
        result={"ratio": ratio.subs(a, 1 - eta * lam)},
        inputs={"lr": eta, "weight_decay": lam, "mean_square_residual": square, "steps": steps},
        source="derived here",
    )
