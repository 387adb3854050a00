"""SGD with momentum: eliminate the buffer, solve the Yule-Walker equations, close the loop by scale invariance."""

from typing import NamedTuple

import sympy as sp

from theory.derivations.derivation import Derivation, Step, equilibrium_symbols


class Gain(NamedTuple):
    """The linear half of the proof."""

    steps: tuple[Step, ...]
    """From the update rule to the gain and the cosine."""
    gain: sp.Expr
    """K with E||w||^2 = K E||g||^2, in eta, lambda, mu and kappa = 1 - dampening."""
    cosine: sp.Expr
    """Lag-one correlation of the weights, in the same symbols."""
    momentum: sp.Symbol
    """mu."""
    kappa: sp.Symbol
    """kappa."""


def stationary_gain(nesterov: bool = False) -> Gain:
    """Derive stationary variance and lag-one correlation of weights that descend white gradients.

    Args:
        nesterov: Nesterov momentum.

    Returns:
        Steps and formulas.
    """
    eta, lam = equilibrium_symbols()
    mu, kappa = sp.Symbol("mu", positive=True), sp.Symbol("kappa", positive=True)
    w, past, g, g_past, buffer = sp.symbols("w_t w_{t-1} g_t g_{t-1} b_{t-1}")
    pull, pull_past = g + lam * w, g_past + lam * past
    if nesterov:
        present = w - eta * (pull + mu * (mu * buffer + pull))
        old_step = sp.Eq(w, past - eta * (pull_past + mu * buffer))
    else:
        present = w - eta * (mu * buffer + kappa * pull)
        old_step = sp.Eq(w, past - eta * buffer)
    old_buffer = sp.solve(old_step, buffer)[0]
    recursion = sp.expand(present.subs(buffer, old_buffer))
    coefficients = [sp.factor(recursion.coeff(symbol)) for symbol in (w, past, g, g_past)]

    phi1, phi2, b0, b1 = sp.symbols("phi_1 phi_2 b_0 b_1")
    g2, c0, c1, c2 = sp.symbols("g^2 gamma_0 gamma_1 gamma_2", positive=True)
    now = b0 * g2  # E<w_{t+1}, g_t>; gradients to come know nothing of the weights
    before = phi1 * now + b1 * g2  # E<w_{t+1}, g_{t-1}>
    yule_walker = (
        sp.Eq(c0, phi1 * c1 + phi2 * c2 + b0 * now + b1 * before),
        sp.Eq(c1, phi1 * c0 + phi2 * c1 + b1 * now),
        sp.Eq(c2, phi1 * c1 + phi2 * c0),
    )
    solution = sp.solve(yule_walker, (c0, c1, c2), dict=True)[0]
    names = dict(zip((phi1, phi2, b0, b1), coefficients, strict=True))
    gain = sp.factor(solution[c0].subs(names) / g2)
    cosine = sp.factor((solution[c1] / solution[c0]).subs(names))
    leading = sp.factor(sp.limit((1 - cosine) / lam, lam, 0))
    steps = (
        Step("The last step tells the buffer.", (old_step, sp.Eq(buffer, old_buffer))),
        Step(
            r"Insert it: $w_{t+1} = \phi_1 w_t + \phi_2 w_{t-1} + b_0 g_t + b_1 g_{t-1}$ with",
            tuple(sp.Eq(name, value) for name, value in names.items()),
        ),
        Step(
            r"Multiply by $w_{t+1}$, $w_t$, $w_{t-1}$ and average, $\gamma_k = E\langle w_t, w_{t-k}\rangle$. Gradients are "
            r"white and $E\langle g_t, w_s\rangle = 0$ for $s \le t$ (by orthogonality if the weights are scale-invariant).",
            yule_walker,
        ),
        Step(
            r"Solve. The stationary variance is $K$ times that of the gradients.",
            (
                *(sp.Eq(symbol, sp.factor(value)) for symbol, value in solution.items()),
                sp.Eq(sp.Symbol("K", positive=True), c0 / g2),
                sp.Eq(sp.Symbol("K", positive=True), gain),
                sp.Eq(sp.Symbol("cos"), c1 / c0),
                sp.Eq(sp.Symbol("cos"), cosine),
            ),
        ),
        Step(
            "For weak decay the rotation is, to leading order,",
            (sp.Eq(sp.Symbol(r"\lim_{\lambda\to0}(1-\cos)/\lambda"), leading),),
        ),
    )
    return Gain(steps, gain, cosine, mu, kappa)


def derivation(nesterov: bool = False, scale_invariant: bool = True) -> Derivation:
    """Derive norm and angle of SGD with momentum and coupled decay.

    Args:
        nesterov: Nesterov momentum, which torch allows without dampening only.
        scale_invariant: Gradients that shrink as 1/||w|| (input `c2`) rather than of a fixed size (input `g2`).

    Returns:
        The proof.
    """
    eta, lam = equilibrium_symbols()
    linear = stationary_gain(nesterov)
    dampening = sp.Symbol("tau", nonnegative=True)
    to_inputs = {linear.kappa: 1 - dampening}
    r, gain, second = sp.Symbol("R", positive=True), sp.Symbol("K", positive=True), sp.Symbol("c^2", positive=True)
    closure = sp.Eq(r, gain * second / r)
    text = r"Scale-invariant gradients have $E\|g\|^2 = c^2/R$: the equation closes."
    if not scale_invariant:
        second = sp.Symbol("g^2", positive=True)
        closure, text = sp.Eq(r, gain * second), r"Gradients of fixed size: nothing to solve."
    squared = next(root for root in sp.solve(closure, r) if root.is_positive)
    formula = squared.subs(gain, linear.gain.subs(to_inputs))
    return Derivation(
        law="sgd_equilibrium",
        setting=r"torch.optim.SGD with Nesterov momentum: $b_t = \mu b_{t-1} + g_t + \lambda w_t$, "
        r"$w_{t+1} = w_t - \eta(g_t + \lambda w_t + \mu b_t)$."
        if nesterov
        else r"torch.optim.SGD: $b_t = \mu b_{t-1} + \kappa(g_t + \lambda w_t)$, $w_{t+1} = w_t - \eta b_t$, "
        r"$\kappa = 1 - \tau$, $\tau$ the dampening.",
        steps=(*linear.steps, Step(text, (closure, sp.Eq(r, squared)))),
        result={
            "norm": sp.sqrt(formula),
            "angle": sp.acos(linear.cosine.subs(to_inputs)),
            "effective_lr": eta / formula,
        },
        inputs={"lr": eta, "weight_decay": lam, "momentum": linear.momentum}
        | ({} if nesterov else {"dampening": dampening})
        | {"c2" if scale_invariant else "g2": second},
        source="leading order Kosson et al., arXiv 2305.17212, and Wan et al., arXiv 2006.08419; exact form derived here",
    )
