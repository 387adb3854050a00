"""SGD step by step: three second moments close under the update."""

from collections.abc import Mapping

import sympy as sp

from theory.derivations.derivation import Derivation, Step, equilibrium_symbols

Moments = Mapping[tuple[int, ...], sp.Expr]


def average(product: sp.Expr, variables: tuple[sp.Symbol, ...], moments: Moments) -> sp.Expr:
    """Average a polynomial in random variables, monomial by monomial.

    Args:
        product: The polynomial.
        variables: Its random variables.
        moments: Average of each monomial by its exponents; those left out are 0.

    Returns:
        The average.

    Example:
        >>> x = sp.Symbol("x")
        >>> average(sp.expand((x + 2) ** 2), (x,), {(0,): sp.Integer(1), (2,): sp.Integer(3)})
        7
    """
    terms = sp.Poly(product, *variables).terms()
    return sum((c * moments.get(powers, sp.Integer(0)) for powers, c in terms), start=sp.Integer(0))


def derivation(steps: int = 3, nesterov: bool = False, scale_invariant: bool = True) -> Derivation:
    """Derive one step of the second moments of SGD, and norm and rotation after several.

    Args:
        steps: Number of steps; the formulas hold for the last one.
        nesterov: Nesterov momentum.
        scale_invariant: Gradients that shrink as 1/||w|| (input `c2`) rather than of a fixed size (input `g2`).

    Returns:
        The proof.
    """
    eta, lam = equilibrium_symbols()
    mu, tau = sp.symbols("mu tau", nonnegative=True)
    k, m, norm0 = sp.symbols("k m r_0", positive=True)
    second = sp.Symbol("c^2" if scale_invariant else "g^2", positive=True)
    w, b, g = vectors = sp.symbols("w b g")
    square, inner, buffer, noise = sp.symbols("W X B Q", positive=True)
    moments = {(2, 0, 0): square, (1, 1, 0): inner, (0, 2, 0): buffer, (0, 0, 2): noise}

    new_b = sp.expand(m * b + k * (g + lam * w))
    new_w = sp.expand(w - eta * (g + lam * w + mu * new_b if nesterov else new_b))
    products = (new_w**2, new_w * new_b, new_b**2, w * new_w)
    after = [average(product, vectors, moments) for product in products]
    names = [sp.Symbol(name) for name in ("W'", "X'", "B'", r"E\langle w,w'\rangle")]

    rates = sp.symbols(f"eta_0:{steps}", positive=True)
    state = (norm0**2, sp.Integer(0), sp.Integer(0))
    cosine = sp.Integer(1)
    for t, rate in enumerate(rates):
        q = second / state[0] if scale_invariant else second
        weights = {k: 1, m: 0} if t == 0 else {k: 1 if nesterov else 1 - tau, m: mu}
        present = dict(zip((square, inner, buffer), state, strict=True)) | {noise: q, eta: rate}
        *moved, overlap = (formula.subs(weights).subs(present, simultaneous=True) for formula in after)
        cosine = overlap / sp.sqrt(state[0] * moved[0])
        state = tuple(moved)
    return Derivation(
        law="sgd_trajectory",
        setting=r"torch.optim.SGD: $b' = mb + k(g + \lambda w)$ with $(k, m) = (1, 0)$ in the first step and "
        r"$(1-\tau, \mu)$ later, "
        + (r"$w' = w - \eta(g + \lambda w + \mu b')$." if nesterov else r"$w' = w - \eta b'$.")
        + r" White gradients; $W = E\|w\|^2$, $X = E\langle w,b\rangle$, $B = E\|b\|^2$, $Q = E\|g\|^2$.",
        steps=(
            Step(
                "Weights and buffer after the step, in terms of those before.",
                (sp.Eq(sp.Symbol("b'"), new_b), sp.Eq(sp.Symbol("w'"), new_w)),
            ),
            Step(
                r"Multiply out and average. $E\langle g,w\rangle = 0$ (whiteness or scale invariance) and "
                r"$E\langle g,b\rangle = 0$, so that nothing but $W$, $X$, $B$ and $Q$ is left.",
                tuple(sp.Eq(name, sp.expand(formula)) for name, formula in zip(names, after, strict=True)),
            ),
            Step(
                r"Scale-invariant gradients have $Q = c^2/W$ (mean field), others a fixed $Q = g^2$; the cosine of the "
                "rotation is",
                (
                    sp.Eq(noise, second / square if scale_invariant else second),
                    sp.Eq(sp.Symbol("cos"), names[3] / sp.sqrt(square * names[0])),
                ),
            ),
        ),
        result={"norm": sp.sqrt(state[0]), "angle": sp.acos(cosine)},
        inputs={
            "schedule": sp.Tuple(*rates),
            "weight_decay": lam,
            "momentum": mu,
            "norm0": norm0,
            "c2" if scale_invariant else "g2": second,
        }
        | ({} if nesterov else {"dampening": tau}),
        source="derived here",
    )
