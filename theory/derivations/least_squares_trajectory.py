"""One-pass SGD on Gaussian inputs: means and second moments close, by the Gaussian's fourth moments."""

from typing import NamedTuple

import sympy as sp

from theory.derivations.derivation import Derivation, Step, equilibrium_symbols
from theory.derivations.sgd_trajectory import average


class MomentStep(NamedTuple):
    """One step of coordinate i."""

    mean: sp.Expr
    """E delta_i after the step."""
    second: sp.Expr
    """E delta_i^2 after the step."""
    sample: sp.Expr
    """E s_i^2 of one sample's gradient at given delta."""
    batch: sp.Expr
    """E g_i^2 of the batch at given delta."""


class Names(NamedTuple):
    """Symbols of the coordinates."""

    h: tuple[sp.Symbol, ...]
    """Eigenvalues."""
    target: tuple[sp.Symbol, ...]
    """True weights."""
    delta: tuple[sp.Symbol, ...]
    """Deviations from them."""
    mean: tuple[sp.Symbol, ...]
    """E delta_i."""
    second: tuple[sp.Symbol, ...]
    """E delta_i^2."""
    noise: sp.Symbol
    """sigma^2 of the labels."""
    batch: sp.Symbol
    """B."""


def names(dimensions: int) -> Names:
    """Symbols for that many coordinates.

    Args:
        dimensions: Number of coordinates.

    Returns:
        The symbols.
    """
    numbered = lambda name, **kind: tuple(sp.Symbol(f"{name}_{n}", **kind) for n in range(1, dimensions + 1))
    return Names(
        numbered("h", positive=True),
        numbered("w*", real=True),
        numbered("delta", real=True),
        numbered("m", real=True),
        numbered("C", positive=True),
        sp.Symbol("sigma^2", positive=True),
        sp.Symbol("B", positive=True),
    )


def gaussian_moment(power: int, variance: sp.Expr) -> sp.Expr:
    """Moment of a centred Gaussian, by integration.

    Args:
        power: Which.
        variance: Its variance.

    Returns:
        The moment.

    Example:
        >>> gaussian_moment(4, sp.Symbol("h", positive=True))
        3*h**2
    """
    x, unit = sp.Symbol("x", real=True), sp.exp(-(sp.Symbol("x", real=True) ** 2) / 2) / sp.sqrt(2 * sp.pi)
    return sp.integrate(x**power * unit, (x, -sp.oo, sp.oo)) * variance ** sp.Rational(power, 2)


def one_step(dimensions: int) -> tuple[MomentStep, ...]:
    """Derive one step of every coordinate's mean and second moment, in eta and lambda.

    Args:
        dimensions: Number of coordinates.

    Returns:
        The steps.
    """
    eta, lam = equilibrium_symbols()
    n = names(dimensions)
    x, xi = sp.symbols(f"x_1:{dimensions + 1}", real=True), sp.Symbol("xi", real=True)
    even = {k: gaussian_moment(k, sp.Integer(1)) for k in (0, 2, 4)}
    variances = (*n.h, n.noise)
    moments = {(): sp.Integer(1)}
    for variance in variances:
        moments = {
            (*powers, k): value * size * variance ** (k // 2)
            for powers, value in moments.items()
            for k, size in even.items()
        }
    error = sum((a * b for a, b in zip(x, n.delta, strict=True)), start=-xi)
    of_delta = {}
    for i, (mean, second) in enumerate(zip(n.mean, n.second, strict=True)):
        unit = tuple(int(j == i) for j in range(dimensions))
        of_delta |= {unit: mean, tuple(2 * u for u in unit): second, (0,) * dimensions: sp.Integer(1)}
    coordinates = []
    for i in range(dimensions):
        gradient = x[i] * error
        first = average(sp.expand(gradient), (*x, xi), moments)
        square = average(sp.expand(gradient**2), (*x, xi), moments)
        of_batch = sp.collect(sp.expand(square / n.batch + (1 - 1 / n.batch) * first**2), n.batch)
        kept = (1 - eta * lam) * n.delta[i] - eta * lam * n.target[i]
        after = sp.expand(kept**2 - 2 * eta * kept * first + eta**2 * of_batch)
        coordinates.append(
            MomentStep(
                average(sp.expand(kept - eta * first), n.delta, of_delta),
                average(after, n.delta, of_delta),
                square,
                of_batch,
            )
        )
    return tuple(coordinates)


def derivation(dimensions: int = 2, steps: int = 2) -> Derivation:
    """Derive the excess risk of the last and of the averaged iterate.

    Args:
        dimensions: Number of coordinates, 1 or more.
        steps: Number of steps; the formulas hold after the last one.

    Returns:
        The proof.
    """
    eta, lam = equilibrium_symbols()
    n, coordinates = names(dimensions), one_step(dimensions)
    total, delta, product, square, sum_mean, new_second = sp.symbols("S delta Z Y s C'", real=True)
    q, pull = sp.symbols("q p", real=True)
    joint = {(1, 1): product, (1, 0): sum_mean}
    cross = average(sp.expand(total * (q * delta - pull)), (total, delta), joint)  # the rest of the step is new noise
    cross_after = cross + new_second
    square_after = square + 2 * cross + new_second
    kept = {q: 1 - eta * (lam + n.h[0]), pull: eta * lam * n.target[0]}
    mean_form = sp.expand(coordinates[0].mean - (q * n.mean[0] - pull).subs(kept))

    rates = sp.symbols(f"eta_0:{steps}", positive=True)
    mean, second = [-w for w in n.target], [w**2 for w in n.target]
    products, squares, sums = ([sp.Integer(0)] * dimensions for _ in range(3))
    for rate in rates:
        now = dict(zip((*n.mean, *n.second), (*mean, *second), strict=True)) | {eta: rate}
        mean, second = (
            [getattr(c, part).subs(now, simultaneous=True) for c in coordinates] for part in ("mean", "second")
        )
        for i, (h, w) in enumerate(zip(n.h, n.target, strict=True)):
            values = {q: 1 - rate * (lam + h), pull: rate * lam * w, new_second: second[i]}
            values |= {product: products[i], square: squares[i], sum_mean: sums[i]}
            products[i], squares[i] = (f.subs(values, simultaneous=True) for f in (cross_after, square_after))
            sums[i] += mean[i]
    risk = lambda moments: sum((h * c for h, c in zip(n.h, moments, strict=True)), start=sp.Integer(0)) / 2
    return Derivation(
        law="least_squares_trajectory",
        setting=r"$y = \langle w^*,x\rangle + \xi$, $x$ Gaussian with independent coordinates of variance $h_i$, $\xi$ of "
        r"variance $\sigma^2$; fresh batches of $B$; $w' = w - \eta(g + \lambda w)$ from 0; $\delta = w - w^*$, "
        r"$m = E\delta$, $C = E\delta^2$.",
        steps=(
            Step(
                r"One sample's gradient is $s_i = x_i(\langle x,\delta\rangle - \xi)$. At given $\delta$ its mean is "
                r"$h_i\delta_i$; its square needs the Gaussian's fourth moment, $E x^4 = 3h^2$.",
                tuple(sp.Eq(sp.Symbol(f"E[s_{i}^2]"), c.sample) for i, c in enumerate(coordinates, start=1)),
            ),
            Step(
                r"In the mean of $B$ independent samples a share $1/B$ of all pairs is of a sample with itself.",
                tuple(sp.Eq(sp.Symbol(f"E[g_{i}^2]"), c.batch) for i, c in enumerate(coordinates, start=1)),
            ),
            Step(
                r"Square $\delta' = (1-\eta\lambda)\delta - \eta\lambda w^* - \eta g$ and average over $\delta$ as well: no "
                "product of different coordinates is left.",
                tuple(
                    equation
                    for i, c in enumerate(coordinates, start=1)
                    for equation in (sp.Eq(sp.Symbol(f"m_{i}'"), c.mean), sp.Eq(sp.Symbol(f"C_{i}'"), c.second))
                ),
            ),
            Step(
                r"In short, with $q = 1-\eta(\lambda+h)$ and $p = \eta\lambda w^*$, $m' = qm - p$; the difference is",
                (sp.Eq(sp.Symbol("Delta"), mean_form),),
            ),
            Step(
                r"The sum $S$ of the iterates, $S' = S + \delta'$, needs $Z = E[S\delta]$ and $Y = E[S^2]$ ($s = E S$): new "
                "noise knows nothing of old iterates.",
                (
                    sp.Eq(sp.Symbol(r"E[S\delta']"), cross),
                    sp.Eq(sp.Symbol("Z'"), cross_after),
                    sp.Eq(sp.Symbol("Y'"), square_after),
                ),
            ),
            Step(
                r"The risk, of the last iterate and of the mean of $t$.",
                (
                    sp.Eq(sp.Symbol("excess"), risk(n.second)),
                    sp.Eq(sp.Symbol("average"), risk(sp.symbols(f"Y_1:{dimensions + 1}")) / sp.Symbol("t") ** 2),
                ),
            ),
        ),
        result={"excess": risk(second), "excess_average": risk(squares) / steps**2},
        inputs={
            "eigenvalues": sp.Tuple(*n.h),
            "schedule": sp.Tuple(*rates),
            "weight_decay": lam,
            "w_star": sp.Tuple(*n.target),
            "noise_variance": n.noise,
            "batch_size": n.batch,
        },
        source="Dieuleveut and Bach, arXiv 1408.0361; Zou et al., arXiv 2103.12692; recursion derived here",
    )
