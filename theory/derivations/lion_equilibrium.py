"""Lion: correlations before the sign, then the arcsine law."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step, equilibrium_symbols
from theory.derivations.signum_equilibrium import of_signs


def derivation(lags: int = 3_000) -> Derivation:
    """Derive norm and angle of Lion.

    Args:
        lags: Where the result cuts the sum over lags; the rest is below ((1-lr*wd) beta2)^lags.

    Returns:
        The proof.
    """
    eta, lam = equilibrium_symbols()
    b1, b2 = sp.symbols("beta_1 beta_2", nonnegative=True)
    d, second = sp.symbols("d E[m^2]", positive=True)
    k, m, g = sp.Symbol("k", integer=True, positive=True), sp.Symbol("m_{t-1}"), sp.Symbol("g_t")
    presign, stored = b1 * m + (1 - b1) * g, b2 * m + (1 - b2) * g

    def mean(product: sp.Expr) -> sp.Expr:
        """Average, the gradient being of variance 1 and new to the stored momentum."""
        moments = {(2, 0): second, (1, 1): 0, (0, 2): 1}
        return sum((c * moments[powers] for powers, c in sp.Poly(product, m, g).terms()), start=sp.Integer(0))

    stationary = sp.Eq(second, mean(stored**2))
    variance = {second: sp.factor(sp.solve(stationary, second)[0])}
    size, overlap = mean(presign**2), mean(stored * presign)
    carried = sp.Function("c")
    recursion = sp.Eq(carried(k + 1), b2 * carried(k))
    memory = sp.rsolve(recursion, carried(k), {carried(0): overlap})
    correlation = sp.factor((b1 * memory.subs(k, k - 1) / size).subs(variance))
    steps, formulas = of_signs(correlation, k, lags)
    return Derivation(
        law="lion_equilibrium",
        setting=r"$c_t = \beta_1m_{t-1} + (1-\beta_1)g_t$, $m_t = \beta_2m_{t-1} + (1-\beta_2)g_t$, "
        r"$w' = aw - \eta\,\mathrm{sign}(c)$ with $a = 1-\eta\lambda$; gradients white with mean 0 and variance 1, "
        r"$c$ nearly Gaussian, in each of $d$ coordinates.",
        steps=(
            Step(
                r"The variance of $m$ is stationary, and new gradients know nothing of old ones.",
                (stationary, sp.Eq(second, variance[second])),
            ),
            Step(
                r"In the same way, the variance $G$ before the sign, and, with $c(j) = E[m_{t+j}c_t]$, what the stored "
                "momentum keeps of it.",
                (
                    sp.Eq(sp.Symbol("G"), size),
                    sp.Eq(carried(0), overlap),
                ),
            ),
            Step(
                "From then on it only shrinks.",
                (recursion, sp.Eq(carried(k), memory)),
            ),
            Step(
                r"$E[c_{t+k}c_t] = \beta_1E[m_{t+k-1}c_t]$: the correlation before the sign.",
                (sp.Eq(sp.Symbol("rho_k"), correlation),),
            ),
            *steps,
        ),
        result=formulas,
        inputs={"lr": eta, "weight_decay": lam, "betas": sp.Tuple(b1, b2), "d": d},
        source="linear form Kosson et al., arXiv 2305.17212; arcsine form derived here",
    )
