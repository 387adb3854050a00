"""How fast a displaced norm comes back: the slowest eigenvalue of the moments' recursion."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step, equilibrium_symbols
from theory.derivations.sgd_trajectory import average
from theory.errors import require

OPTIMIZERS = ("sgd", "adamw", "adam")
SOURCE = "derived here"


def _cubic(scale_invariant: bool) -> Derivation:
    """SGD: linearise the three moments about their fixed point and solve the cubic of the eigenvalues."""
    eta, lam = equilibrium_symbols()
    mu = sp.Symbol("mu", positive=True)
    square, inner, buffer, noise = sp.symbols("W X B Q", positive=True)
    second, x, theta, amplitude = sp.symbols("c^2 x theta A", positive=True)
    w, b, g = vectors = sp.symbols("w b g")
    moments = {(2, 0, 0): square, (1, 1, 0): inner, (0, 2, 0): buffer, (0, 0, 2): noise}
    new_b = mu * b + g + lam * w
    new_w = w - eta * new_b
    state = (square, inner, buffer)
    after = [average(sp.expand(product), vectors, moments) for product in (new_w**2, new_w * new_b, new_b**2)]
    fixed = sp.solve([sp.Eq(old, new) for old, new in zip(state, after, strict=True)], state, dict=True)[0]
    gain = sp.factor(fixed[square] / noise)
    gradient = second / square if scale_invariant else noise
    jacobian = sp.Matrix([formula.subs(noise, gradient) for formula in after]).jacobian(state)
    symbol = sp.Symbol("K", positive=True)
    jacobian = jacobian.subs(second, square**2 / symbol)  # c^2 = Q W and W = K Q
    polynomial = sp.Poly(sp.expand((jacobian.subs(symbol, gain) - x * sp.eye(3)).det()), x)
    third, *lower = (sp.factor(coefficient) for coefficient in polynomial.all_coeffs())
    c2, c1, c0 = (sp.factor(coefficient / third) for coefficient in lower)

    p, q, n2, n1, n0 = sp.symbols("p q c_2 c_1 c_0", real=True)
    shifted = sp.Poly(sp.expand((x**3 + n2 * x**2 + n1 * x + n0).subs(x, x - n2 / 3)), x)
    depressed = {p: shifted.coeff_monomial(x), q: shifted.coeff_monomial(1)}
    tripled = sp.Symbol("z")  # cos 3 theta
    cosine = sp.solve(sp.Eq(sp.expand_trig(sp.cos(3 * theta)), tripled), sp.cos(theta) ** 3)[0]
    trigonometric = sp.expand(amplitude**3 * cosine + p * amplitude * sp.cos(theta) + q)
    size = next(r for r in sp.solve(trigonometric.coeff(sp.cos(theta)), amplitude) if r.subs(p, -3) > 0)
    angle = sp.acos(sp.solve(trigonometric.subs(sp.cos(theta), 0), tripled)[0].subs(amplitude, size)) / 3
    largest = size * sp.cos(angle) - n2 / 3
    eigenvalue = largest.subs(depressed).subs({n2: c2, n1: c1, n0: c0})
    steps = -1 / sp.log(eigenvalue)
    return Derivation(
        law="relaxation_time",
        setting=r"torch.optim.SGD at constant rates: $b' = \mu b + g + \lambda w$, $w' = w - \eta b'$, white gradients"
        + (" of scale-invariant weights." if scale_invariant else " of fixed size.")
        + r" $W = E\|w\|^2$, $X = E\langle w,b\rangle$, $B = E\|b\|^2$, $Q = E\|g\|^2$.",
        steps=(
            Step(
                "One step of the moments (law `sgd\\_trajectory`).",
                tuple(sp.Eq(sp.Symbol(f"{old}'"), sp.expand(new)) for old, new in zip(state, after, strict=True)),
            ),
            Step(
                "Their fixed point is linear in $Q$.",
                (sp.Eq(symbol, square / noise), sp.Eq(symbol, gain)),
            ),
            Step(
                r"A displacement is multiplied by the derivative of the step"
                + (r", in which $Q = c^2/W$ falls as $W$ grows: $dQ/dW = -Q/W = -1/K$." if scale_invariant else "."),
                (sp.Eq(sp.Symbol("J"), jacobian, evaluate=False),),
            ),
            Step(
                r"Its eigenvalues solve $x^3 + c_2x^2 + c_1x + c_0 = 0$ with",
                (sp.Eq(n2, c2), sp.Eq(n1, c1), sp.Eq(n0, c0)),
            ),
            Step(
                r"Shift $x$ by $c_2/3$ and write $x = A\cos\theta$: $\cos3\theta$ takes the place of the cube, and $A$ is "
                r"chosen so that $\cos\theta$ itself drops out of what must be zero.",
                (
                    *(sp.Eq(name, value) for name, value in depressed.items()),
                    sp.Eq(amplitude, size),
                    sp.Eq(theta, angle),
                ),
            ),
            Step(
                r"If all roots are real the largest has the smallest angle; a displacement falls by $e$ in $-1/\ln x$ steps.",
                (sp.Eq(x, largest), sp.Eq(sp.Symbol("steps"), -1 / sp.log(x))),
            ),
        ),
        result={"steps": steps},
        inputs={"lr": eta, "weight_decay": lam, "momentum": mu},
        source=SOURCE,
    )


def _decoupled() -> Derivation:
    """AdamW and its like: decay alone brings a displacement back."""
    eta, lam = equilibrium_symbols()
    square, source, shift = sp.symbols("R N delta", positive=True)
    n, time = sp.symbols("n t", positive=True)
    step = sp.expand((1 - eta * lam) ** 2 * square + source)
    fixed = sp.solve(sp.Eq(square, step), square)[0]
    factor = sp.factor(sp.simplify(step.subs(square, fixed + shift) - fixed) / shift)
    left = sp.Function("y")
    unrolled = sp.rsolve(left(n + 1) - factor * left(n), left(n), {left(0): 1})
    efolding = sp.simplify(sp.solve(sp.Eq(sp.expand_log(sp.log(unrolled), force=True), -1), n)[0])
    return Derivation(
        law="relaxation_time",
        setting=r"$w' = (1-\eta\lambda)w - \eta u$, $u$ of a size that does not depend on the weights' and with a memory "
        r"that is short against $1/\eta\lambda$: AdamW, Lion, Signum, Muon, normalised momentum.",
        steps=(
            Step(
                r"One step of $R = E\|w\|^2$; $N$ is what the updates add.",
                (sp.Eq(sp.Symbol("R'"), step), sp.Eq(sp.Symbol("R_*"), fixed)),
            ),
            Step(r"A displacement $\delta$ from the fixed point is multiplied by", (sp.Eq(sp.Symbol("f"), factor),)),
            Step(
                "What is left of it after $n$ steps, and when that is $1/e$.",
                (sp.Eq(left(n), unrolled), sp.Eq(time, efolding)),
            ),
        ),
        result={"steps": efolding},
        inputs={"lr": eta, "weight_decay": lam},
        source=SOURCE,
    )


def _adam() -> Derivation:
    """Adam with coupled decay: the decay itself grows with the norm."""
    eta, _ = equilibrium_symbols()
    square, noise, size, decay, effective, eps = sp.symbols("R c s lambda_0 lambda epsilon", positive=True)
    w, g = sp.symbols("w g")
    update = w - eta * (g + decay * w) / (size / sp.sqrt(square))
    moments = {(2, 0): square, (0, 2): noise * size**2 / square}  # the update without decay has variance c
    after = average(sp.expand(update**2), (w, g), moments)
    change = sp.expand((after - square).subs({decay: eps * decay, noise: eps * noise}, simultaneous=True))
    drift = sp.limit(change / eps, eps, 0)
    fixed = sp.solve(sp.Eq(drift, 0), noise)[0]
    returning = sp.diff(drift, square)
    slope = sp.simplify(returning.subs(decay, effective * size / sp.sqrt(square)))
    return Derivation(
        law="relaxation_time",
        setting=r"Adam with coupled decay, $w' = w - \eta(g + \lambda_0w)/v$: the denominator is the gradient's size, which "
        r"falls with the norm, $v = s/\|w\|$; $R = \|w\|^2$, $u = g/v$ of variance $c$.",
        steps=(
            Step(
                "The update, squared and averaged.",
                (sp.Eq(sp.Symbol("w'"), update), sp.Eq(sp.Symbol("R'"), sp.collect(after, eta))),
            ),
            Step(
                r"Decay and noise are slow, $\epsilon\lambda_0$ and $\epsilon c$ in place of $\lambda_0$ and $c$: to first order "
                r"in $\epsilon$ the norm changes by, and in equilibrium that is 0,",
                (sp.Eq(sp.Symbol("R'-R"), change), sp.Eq(sp.Symbol("dR"), drift), sp.Eq(noise, fixed)),
            ),
            Step(
                r"A small displacement changes by the derivative in $R$ times itself. The decay that acts on $w$ in equilibrium "
                r"is $\lambda = \lambda_0\|w\|/s$.",
                (sp.Eq(sp.Symbol("d(dR)/dR"), returning), sp.Eq(effective, decay * sp.sqrt(square) / size)),
            ),
            Step(
                "Minus the derivative is the rate of return; a displacement falls by $e$ in its reciprocal.",
                (sp.Eq(sp.Symbol("d(dR)/dR"), slope), sp.Eq(sp.Symbol("steps"), -1 / slope)),
            ),
        ),
        result={"steps": -1 / slope},
        inputs={"lr": eta, "weight_decay": effective},
        source=SOURCE,
    )


def derivation(optimizer: str = "sgd", scale_invariant: bool = True) -> Derivation:
    """Derive the e-folding time of a small displacement of ||w||^2.

    Args:
        optimizer: sgd (exact; where no eigenvalue oscillates, lr*weight_decay well below (1-sqrt(momentum))^2), adamw (and every decoupled one) or adam (coupled; `weight_decay` is the effective one).
        scale_invariant: Of SGD: gradients shrink as 1/||w||.

    Returns:
        The proof.

    Raises:
        InputError: If the optimizer is unknown.
    """
    require(optimizer in OPTIMIZERS, "optimizer", optimizer, f"one of {', '.join(OPTIMIZERS)}")
    if optimizer == "sgd":
        return _cubic(scale_invariant)
    return _decoupled() if optimizer == "adamw" else _adam()
