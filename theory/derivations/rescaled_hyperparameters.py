"""Scale invariance as a change of units: what the hyper-parameters become when the weights grow."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step, equilibrium_symbols
from theory.invariance import OptimizerName


def derivation(optimizer: OptimizerName = "adamw") -> Derivation:
    """Derive the hyper-parameters for which the run from s*w is s times the run from w.

    Args:
        optimizer: As in the law; `eps` is in the result where the optimizer has one.

    Returns:
        The proof.
    """
    eta, lam = equilibrium_symbols()
    eps, s, root = sp.symbols("epsilon s v", positive=True)
    eta_new, lam_new, eps_new = sp.symbols("eta' lambda' epsilon'", positive=True)
    w, g = sp.symbols("w g")

    def step(weight: sp.Expr, gradient: sp.Expr, size: sp.Expr, lr: sp.Expr, wd: sp.Expr, floor: sp.Expr) -> sp.Expr:
        if optimizer == "sgd":
            return weight - lr * (gradient + wd * weight)
        if optimizer == "adam_l2":
            return weight - lr * (gradient + wd * weight) / (size + floor)
        update = gradient / (size + floor) if optimizer == "adamw" else gradient / size
        return (1 - lr * wd) * weight - lr * update

    before = step(w, g, root, eta, lam, eps)
    after = step(s * w, g / s, root / s, eta_new, lam_new, eps_new)
    difference = sp.numer(sp.together(after - s * before))
    conditions = [sp.Eq(sp.factor(c), 0) for c in sp.Poly(difference, w, g, root).coeffs() if not c.equals(0)]
    unknowns = [u for u in (eta_new, lam_new, eps_new) if difference.has(u)]
    solution = sp.solve(conditions, unknowns, dict=True)[0]
    fields = {eta_new: "lr", lam_new: "weight_decay", eps_new: "eps"}
    sizes = {
        "sgd": "",
        "adam_l2": r" The denominator $v$, the root mean square of $g + \lambda w$, is of degree 1 in it.",
    }
    return Derivation(
        law="rescaled_hyperparameters",
        setting=f"One step of {optimizer.replace('_', ' ')}; $f(sw) = f(w)$, hence gradients at $sw$ are $g/s$."
        + sizes.get(optimizer, r" The update is $g$ over a size $v$ of degree 1 in the gradients.")
        + " Momentum is linear in the same quantities and scales with them.",
        steps=(
            Step("The step from $w$.", (sp.Eq(sp.Symbol("w_+"), before),)),
            Step("The step from $sw$ with other hyper-parameters.", (sp.Eq(sp.Symbol("(sw)_+"), after),)),
            Step(
                "The second must be $s$ times the first whatever $w$, $g$ and $v$ are: each coefficient vanishes.",
                tuple(conditions),
            ),
            Step("Solve.", tuple(sp.Eq(unknown, solution[unknown]) for unknown in unknowns)),
        ),
        result={fields[unknown]: solution[unknown] for unknown in unknowns},
        inputs={"lr": eta, "weight_decay": lam, "scale": s} | ({"eps": eps} if eps_new in unknowns else {}),
        source="van Laarhoven, arXiv 1706.05350; Li and Arora, arXiv 1910.07454",
    )
