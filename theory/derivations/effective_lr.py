"""The learning rate that a direction feels: the one that turns weights on the unit sphere as far."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step
from theory.invariance import OptimizerName


def derivation(optimizer: OptimizerName = "sgd") -> Derivation:
    """Derive the effective learning rate from the rotation of one step.

    Args:
        optimizer: As in the law.

    Returns:
        The proof.
    """
    eta, norm, size, effective = sp.symbols("eta r gamma eta_e", positive=True)
    gradient = size / norm  # of weights of norm r; size is that on the unit sphere
    pull = gradient if optimizer == "sgd" else gradient / (size / norm) * size
    turned = sp.Matrix([norm, -eta * pull])
    tangent = sp.simplify(-turned[1] / turned[0])
    unit = tangent.subs({norm: 1, eta: effective}, simultaneous=True)
    same = sp.Eq(unit, tangent, evaluate=False)
    value = sp.solve(same, effective)[0]
    update = (
        r"the update is the gradient itself, of size $\gamma/r$"
        if optimizer == "sgd"
        else r"the update is a gradient of size $\gamma/r$ divided by a size that shrinks alike; $\gamma$ is what it "
        "has on the unit sphere"
    )
    return Derivation(
        law="effective_lr",
        setting=rf"One step of {optimizer.replace('_', ' ')} on scale-invariant weights of norm $r$, without decay, which "
        rf"does not turn them. Gradients are orthogonal to the weights and fall as $1/r$ (law `invariance\_defect`): {update}.",
        steps=(
            Step(
                "In the plane of weights and update, first axis along the weights, the step leads to",
                (sp.Eq(sp.Symbol("w'"), turned, evaluate=False),),
            ),
            Step(
                r"It turns the direction by the angle of tangent; on the unit sphere, at another rate $\eta_e$, by",
                (sp.Eq(sp.Symbol(r"\tan\theta"), tangent), sp.Eq(sp.Symbol(r"\tan\theta_1"), unit)),
            ),
            Step("Both are to be the same; solve.", (same, sp.Eq(effective, value))),
        ),
        result={"effective_lr": value},
        inputs={"lr": eta, "norm": norm},
        source="van Laarhoven, arXiv 1706.05350; Li and Arora, arXiv 1910.07454",
    )
