"""Noise as a regulariser: the lift of the loss by noise, and the drift down that lift."""

import sympy as sp

from theory.derivations import label_noise_balance
from theory.derivations.derivation import Derivation, Step
from theory.derivations.label_noise_excess import one_mode


def derivation() -> Derivation:
    """Derive the coefficient of tr H in the effective loss, and check its drift where the balance law is exact.

    Returns:
        The proof.
    """
    steps, excess, symbols = one_mode()
    eta, h, batch = symbols["lr"], symbols["h"], sp.Symbol("B", positive=True)
    coefficient = sp.series(excess, eta, 0, 2).removeO().subs(symbols["n"], batch) / h
    u, v = sp.symbols("u v", real=True)
    c, eps = sp.symbols("c epsilon", positive=True)
    loss = (u * v - sp.Symbol("y")) ** 2 / 2
    trace = sum(sp.diff(loss, weight, 2) for weight in (u, v))
    drift = [weight - eta * c * sp.diff(trace, weight) for weight in (u, v)]
    change = sp.factor(sp.expand((drift[0] ** 2 - drift[1] ** 2).subs(c, eps * c)).coeff(eps) / (u**2 - v**2))
    predicted = sp.simplify(change.subs(c, coefficient.subs(batch, 1)))
    balance = label_noise_balance.derivation()
    factor = balance.result["ratio"].subs({balance.inputs["steps"]: 1, balance.inputs["weight_decay"]: 0})
    square = balance.inputs["mean_square_residual"]
    exact = sp.expand(factor - 1).subs(square, symbols["noise_variance"])
    return Derivation(
        law="noise_regulariser",
        setting=r"Squared loss near interpolation, small $\eta$; residuals of variance $\sigma^2$ in batches of $B$ (law "
        r"`label\_noise\_excess` with $n = B$).",
        steps=(
            *steps,
            Step(
                r"Summed over modes the loss is lifted by $c\,\mathrm{tr}H$ with",
                (sp.Eq(c, coefficient),),
            ),
            Step(
                r"Along the manifold of interpolating solutions the weights descend that lift. For $f = uv$ the trace, and "
                r"what its descent does to $D = u^2-v^2$ in a step, to first order:",
                (
                    sp.Eq(sp.Symbol("tr H"), trace),
                    sp.Eq(sp.Symbol("dD/D"), change),
                    sp.Eq(sp.Symbol("dD/D"), predicted),
                ),
            ),
            Step(r"Law `label\_noise\_balance` says the same, exactly.", (sp.Eq(sp.Symbol("dD/D"), exact),)),
        ),
        result={"coefficient": coefficient},
        inputs={"lr": eta, "batch_size": batch, "residual_variance": symbols["noise_variance"]},
        source="Blanc et al., arXiv 1904.09080; HaoChen et al., arXiv 2006.08680; Damian et al., arXiv 2106.06530; Li et "
        "al., arXiv 2110.06914",
    )
