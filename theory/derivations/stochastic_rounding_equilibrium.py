"""Stochastic rounding: unbiased, and the variance that it adds to a decayed walk."""

import sympy as sp

from theory.derivations.coupled_l2_survival import binade
from theory.derivations.derivation import Derivation, Step, equilibrium_symbols
from theory.derivations.rounding_drift_gain import density, wave


def derivation() -> Derivation:
    """Derive the equation of the rounded equilibrium; it is transcendental in the norm, so `result` is empty.

    Returns:
        The proof.
    """
    eta, lam = equilibrium_symbols()
    f = sp.Symbol("f", positive=True)
    n = sp.Symbol("n", integer=True, positive=True)
    s, r, a, u2, spacing = sp.symbols("s r a U_2 ulp", positive=True)
    exact = sp.Symbol("r_0", positive=True)
    bias = sp.simplify(f * (1 - f) + (1 - f) * (0 - f))
    variance = sp.factor(f * (1 - f) ** 2 + (1 - f) * (0 - f) ** 2)
    mean = sp.integrate(variance, (f, 0, 1))
    term = sp.simplify(2 * sp.integrate(variance * sp.cos(2 * sp.pi * n * f), (f, 0, 1)))
    series = mean + sp.Sum(term * wave(), (n, 1, sp.oo))
    below = sp.expand(sp.simplify(2 * sp.integrate(variance * density(f, s), (f, 0, sp.oo))))

    added = sp.Symbol("A", positive=True)
    noise = sp.Symbol("N", positive=True)
    unrounded = sp.solve(sp.Eq(exact, a**2 * exact + noise), noise)[0]
    balance = sp.Eq(r, a**2 * r + unrounded + added)
    excess = sp.factor(sp.simplify(sp.solve(balance, r)[0] - exact))
    _, ulp = binade()
    w = sp.Symbol("w", real=True)
    size = sp.sqrt(eta**2 * u2 + (eta * lam * w) ** 2) / spacing
    average = sp.Integral(spacing**2 * sp.Function("V")(size) * density(w, sp.sqrt(r)), (w, -sp.oo, sp.oo))
    return Derivation(
        law="stochastic_rounding_equilibrium",
        setting=r"AdamW computed exactly, $w' = aw - \eta u$ with $a = 1-\eta\lambda$, $U_2 = E u^2$ and $r_0 = E w^2$ in "
        r"equilibrium; then each weight is rounded up with probability $f$, its distance from the lower grid point.",
        steps=(
            Step(
                "In units of the spacing: rounding is right on average, and its variance is",
                (sp.Eq(sp.Symbol("E"), bias), sp.Eq(sp.Symbol("v"), variance)),
            ),
            Step(
                r"Its mean over a cell, and its Fourier coefficients.",
                (sp.Eq(sp.Symbol("a_0"), mean), sp.Eq(sp.Symbol("a_n"), term)),
            ),
            Step(
                r"Averaged over a step $N(0,s^2)$ from a grid point; and, for steps that stay within the first cells, where "
                r"$f = |x|$,",
                (sp.Eq(sp.Symbol("V"), series), sp.Eq(sp.Symbol("V_{s\\ll1}"), below)),
            ),
            Step(
                r"The variance $A$ that is added in each step is uncorrelated with the rest: $r = E w^2$ is stationary with it "
                r"if",
                (balance, sp.Eq(r - exact, excess)),
            ),
            Step(
                r"$A$ is the mean over weights $N(0,r)$, each with its own spacing and step.",
                (sp.Eq(added, average), sp.Eq(sp.Symbol("ulp_e"), ulp)),
            ),
        ),
        result={},
        inputs={"lr": eta, "weight_decay": lam},
        source="derived here",
    )
