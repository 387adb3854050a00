"""Label noise: each Hessian mode is an autoregression."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step
from theory.derivations.sgd_trajectory import average


def one_mode() -> tuple[tuple[Step, ...], sp.Expr, dict[str, sp.Symbol]]:
    """Derive the stationary excess loss of one mode.

    Returns:
        The steps, the excess, and its symbols lr, h, noise_variance and n.
    """
    eta, h, variance, n, spread = sp.symbols("eta h sigma^2 n V", positive=True)
    delta, noise = sp.symbols("delta zeta")
    x, x2, e, e2 = sp.symbols("x_1 x_2 epsilon_1 epsilon_2")
    moments = {(2, 0): variance, (0, 2): variance}
    pair = average(sp.expand((x * e + x2 * e2) ** 2), (e, e2), moments)
    per_sample = (
        sp.factor(pair).coeff(variance).subs({x**2: h, x2**2: h}) / 2
    )  # of two samples, each x^2 = h on average
    of_batch = sp.simplify(n * per_sample * variance / n**2)
    step = delta - eta * (h * delta - noise)
    balance = sp.Eq(spread, average(sp.expand(step**2), (delta, noise), {(2, 0): spread, (0, 2): of_batch}))
    stationary = sp.factor(sp.solve(balance, spread)[0])
    excess = h * stationary / 2
    leading = sp.series(excess, eta, 0, 2).removeO()
    symbols = {"lr": eta, "h": h, "noise_variance": variance, "n": n}
    steps = (
        Step(
            r"Gradient $h\delta - \zeta$ with $\zeta = \frac1n\sum_bx_b\epsilon_b$. Square, shown for two samples, and "
            r"average over the labels' noise: only $x_b^2$, on average $h$, is left, so that $E\zeta^2$ is",
            (sp.Eq(sp.Symbol(r"E(x_1\epsilon_1+x_2\epsilon_2)^2"), pair), sp.Eq(sp.Symbol("E[zeta^2]"), of_batch)),
        ),
        Step(
            r"Square one step and average; $\epsilon$ is drawn anew. The variance $V = E\delta^2$ is stationary.",
            (sp.Eq(sp.Symbol("delta'"), step), balance),
        ),
        Step(
            r"Solve. The mode's excess loss is $\frac12hV$; for small $\eta$ it is proportional to $h$.",
            (sp.Eq(spread, stationary), sp.Eq(sp.Symbol("L"), excess), sp.Eq(sp.Symbol("L_{lead}"), leading)),
        ),
    )
    return steps, excess, symbols


def derivation(modes: int = 2) -> Derivation:
    """Derive the stationary excess training loss under fresh label noise.

    Args:
        modes: Number of Hessian eigenvalues in the result.

    Returns:
        The proof.
    """
    steps, excess, symbols = one_mode()
    eigenvalues = sp.symbols(f"h_1:{modes + 1}", positive=True)
    total = sum((excess.subs(symbols["h"], h) for h in eigenvalues), start=sp.Integer(0))
    inputs = {"lr": symbols["lr"], "noise_variance": symbols["noise_variance"], "n": symbols["n"]}
    return Derivation(
        law="label_noise_excess",
        setting=r"Full-batch gradient descent on $\frac{1}{2n}\sum_b(x_b\delta - \epsilon_b)^2$ in one eigendirection of the "
        r"Hessian $h$; $\epsilon$ of variance $\sigma^2$, drawn anew at every step.",
        steps=(*steps, Step("Modes add up.", (sp.Eq(sp.Symbol("excess"), total),))),
        result={"excess": total},
        inputs={"eigenvalues": sp.Tuple(*eigenvalues)} | inputs,
        source="leading order Blanc et al., arXiv 1904.09080; exact form derived here",
    )
