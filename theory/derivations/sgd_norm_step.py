"""One plain SGD step on scale-invariant weights: Pythagoras."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step, equilibrium_symbols


def derivation() -> Derivation:
    """Derive the norm after one step of plain SGD with coupled decay.

    Returns:
        The proof.
    """
    eta, lam = equilibrium_symbols()
    norm, grad_norm = sp.symbols("r gamma", positive=True)
    along = sp.Symbol(r"\langle\hat{w},g\rangle", real=True)
    w = sp.Matrix([norm, 0])
    g = sp.Matrix([along, sp.sqrt(grad_norm**2 - along**2)])
    stepped = w - eta * (g + lam * w)
    squared = sp.collect(sp.expand((stepped.T * stepped)[0]), [norm, along, grad_norm])
    orthogonal = sp.expand(squared.subs(along, 0))
    after = sp.factor(orthogonal.coeff(grad_norm, 0)) + orthogonal.coeff(grad_norm, 2) * grad_norm**2
    square = sp.Symbol(r"\|w'\|^2")
    return Derivation(
        law="sgd_norm_step",
        setting=r"Plain SGD with coupled decay, $w' = w - \eta(g + \lambda w)$, $f(sw) = f(w)$; $r = \|w\|$, "
        r"$\gamma = \|g\|$.",
        steps=(
            Step(
                "In the plane of $w$ and $g$, first axis along $w$, the step is",
                (sp.Eq(sp.Symbol("w'"), stepped, evaluate=False),),
            ),
            Step("Its squared length.", (sp.Eq(square, squared),)),
            Step(
                r"Scale invariance makes the gradient orthogonal to the weights (law `invariance\_defect`), so the "
                "part along the weights is 0.",
                (sp.Eq(along, 0), sp.Eq(square, after)),
            ),
        ),
        result={"norm": sp.sqrt(after)},
        inputs={"norm": norm, "grad_norm": grad_norm, "lr": eta, "weight_decay": lam},
        source="van Laarhoven, arXiv 1706.05350",
    )
