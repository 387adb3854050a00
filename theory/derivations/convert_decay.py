"""One convention of decay in terms of another: equal shrink of a step without gradient."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step, equilibrium_symbols
from theory.derivations.timescale import long_run_shrink
from theory.errors import require

CONVENTIONS = ("coupled", "decoupled", "independent", "corrected", "cautious", "scheduled")


def derivation(source: str = "decoupled", target: str = "corrected") -> Derivation:
    """Derive the coefficient that shrinks the weights equally in another convention, at one learning rate.

    Args:
        source: Convention of the given coefficient.
        target: Convention wanted, another one.

    Returns:
        The proof.

    Raises:
        InputError: If a convention is unknown or both are the same.
    """
    for field, name in (("source", source), ("target", target)):
        require(name in CONVENTIONS, field, name, f"one of {', '.join(CONVENTIONS)}")
    require(source != target, "target", target, "another convention than the source")
    eta, lam = equilibrium_symbols()
    peak, new, w, agree = sp.symbols("eta_max lambda' w p", positive=True)
    stepped = {
        "decoupled": w - eta * lam * w,
        "scheduled": w - eta * lam * w,
        "independent": w - lam * w,
        "corrected": w - eta**2 / peak * lam * w,
        "cautious": w - eta * lam * w * agree,
    }
    shrinks = {name: sp.factor(sp.simplify(1 - after / w)) for name, after in stepped.items()}
    share = sp.integrate(sp.exp(-(w**2) / 2) / sp.sqrt(2 * sp.pi), (w, 0, sp.oo))
    shrinks["cautious"] = shrinks["cautious"].subs(agree, share)
    proof, shrinks["coupled"], momenta = long_run_shrink()
    equal = sp.Eq(shrinks[target].subs(lam, new), shrinks[source])
    value = sp.factor(sp.solve(equal, new)[0])
    coupled = "coupled" in (source, target)
    cautious = "cautious" in (source, target)
    sentences = [
        Step(
            "What a step without gradient makes of the weights.",
            tuple(sp.Eq(sp.Symbol(f"w_{name}"), stepped[name]) for name in (source, target) if name in stepped),
        )
    ]
    if cautious:
        sentences.append(
            Step(
                r"Cautious decay acts where update and weight agree in sign, for symmetric updates a share $p$ of them.",
                (sp.Eq(agree, share),),
            )
        )
    if coupled:
        sentences.extend(proof)
    present = (shrinks[source] + shrinks[target]).free_symbols
    return Derivation(
        law="convert_decay",
        setting=rf"From {source} to {target} decay at learning rate $\eta$, peak $\eta_{{max}}$; the coefficient $\lambda$ "
        r"becomes $\lambda'$; coupled decay is SGD's, with momentum $\mu$ and dampening $\tau$.",
        steps=(
            *sentences,
            Step(
                "The shrink per step of each.",
                (
                    sp.Eq(sp.Symbol(f"rho_{source}"), shrinks[source]),
                    sp.Eq(sp.Symbol(f"rho_{target}"), shrinks[target].subs(lam, new)),
                ),
            ),
            Step("They are to be equal; solve.", (equal, sp.Eq(new, value))),
        ),
        result={"value": value, "shrink": shrinks[source]},
        inputs={"value": lam, "lr": eta} | ({"lr_max": peak} if peak in present else {}) | (momenta if coupled else {}),
        source="a definition; independent Loshchilov and Hutter, arXiv 1711.05101; corrected Defazio, arXiv 2506.02285; "
        "cautious Chen et al., arXiv 2510.12402",
    )
