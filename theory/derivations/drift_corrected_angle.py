"""Rotation under SGD from decay and the drift of the norm: the inner product with the weights."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step, equilibrium_symbols
from theory.derivations.sgd_trajectory import average


def derivation() -> Derivation:
    """Derive the rotation of scale-invariant weights whose norm drifts at a steady rate.

    Returns:
        The proof.
    """
    eta, lam = equilibrium_symbols()
    mu, tau = sp.symbols("mu tau", nonnegative=True)
    drift = sp.Symbol("delta", real=True)
    w, past, g = sp.symbols("w_t w_{t-1} g_t")
    square, pair, after, before = sp.symbols("R_t P_t R_{t+1} P_{t-1}", positive=True)
    kappa = 1 - tau
    buffer_before = (past - w) / eta
    following = sp.collect(sp.expand(w - eta * (mu * buffer_before + kappa * (g + lam * w))), [w, past, g])
    inner = {(2, 0, 0): square, (1, 1, 0): before}  # and <w,g> = 0
    recursion = average(sp.expand(following * w), (w, past, g), inner)
    steady = sp.Eq(pair, recursion.subs(before, pair * sp.exp(-2 * drift)))
    solved = sp.factor(sp.solve(steady, pair)[0] / square) * square
    cosine = sp.simplify((solved / sp.sqrt(square * after)).subs(after, square * sp.exp(2 * drift)))
    small = sp.Symbol("epsilon", positive=True)
    scaled = (1 - cosine).subs({lam: small * lam, drift: small * drift}, simultaneous=True)
    leading = sp.factor(2 * sp.diff(scaled, small).subs(small, 0))
    return Derivation(
        law="drift_corrected_angle",
        setting=r"SGD with heavy ball and coupled decay, $b_t = \mu b_{t-1} + (1-\tau)(g_t + \lambda w_t)$, "
        r"$w_{t+1} = w_t - \eta b_t$, $\langle g_t, w_t\rangle = 0$; $R_t = \|w_t\|^2$, $P_t = \langle w_t, w_{t+1}\rangle$.",
        steps=(
            Step(
                r"The buffer before the step is $(w_{t-1} - w_t)/\eta$: put it in.",
                (sp.Eq(sp.Symbol("w_{t+1}"), following),),
            ),
            Step(
                r"Take the inner product with $w_t$; the gradient drops out (law `invariance\_defect`).",
                (sp.Eq(pair, recursion),),
            ),
            Step(
                r"A norm that grows by $e^\delta$ in each step makes $R$ and $P$ grow by $e^{2\delta}$; solve for $P_t$.",
                (
                    sp.Eq(after, square * sp.exp(2 * drift)),
                    sp.Eq(before, pair * sp.exp(-2 * drift)),
                    sp.Eq(pair, solved),
                ),
            ),
            Step(
                r"The rotation is $P_t/\sqrt{R_tR_{t+1}}$.",
                (sp.Eq(sp.Symbol("cos"), pair / sp.sqrt(square * after)), sp.Eq(sp.Symbol("cos"), cosine)),
            ),
            Step(
                r"To first order in decay and drift, both of order $\epsilon$, twice $1 - \cos$ is",
                (sp.Eq(sp.Symbol("theta_{lead}") ** 2, leading),),
            ),
        ),
        result={"angle": sp.acos(cosine)},
        inputs={"drift": drift, "lr": eta, "weight_decay": lam, "momentum": mu, "dampening": tau},
        source="derived here; without drift Wan et al., arXiv 2006.08419",
    )
