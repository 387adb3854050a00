"""SGD before a normalisation with finite eps: where the norm settles."""

import sympy as sp

from theory.derivations import finite_eps
from theory.derivations.derivation import Derivation, Step, equilibrium_symbols
from theory.derivations.sgd_trajectory import average


def derivation() -> Derivation:
    """Derive norm and rotation of plain SGD whose gradients stop growing at a floor of the norm.

    Returns:
        The proof.
    """
    eta, lam = equilibrium_symbols()
    square, floor, small, decay, noise, c2 = sp.symbols("R n_0 epsilon Lambda Q c^2", positive=True)
    pull = sp.Symbol("A", real=True)
    w, g = sp.symbols("w g")
    law = finite_eps.derivation()
    # at scale 1: V/eps is R over the squared floor
    at_floor = {law.inputs["scale"]: 1, law.inputs["eps"]: law.inputs["variance"] * floor**2 / square}
    gain, defect = (sp.simplify(law.result[name].subs(at_floor)) for name in ("gain", "defect"))
    moments = {(2, 0): square, (0, 2): small * noise}
    after = average(sp.expand(((1 - eta * small * decay) * w - eta * g) ** 2), (w, g), moments)
    slow = sp.limit((sp.expand(after) - square) / small, small, 0)
    size, leaning = sp.simplify(c2 / square * gain**2), sp.factor(lam + defect * pull / square)
    balance = sp.numer(sp.together(slow.subs({noise: size, decay: leaning})))
    polynomial = sp.factor(sp.expand(balance / eta))
    root = sp.solve(polynomial, square)
    positive = next(r for r in root if r.subs({pull: 0, eta: 1, lam: 1, c2: 1, floor: 1}) > 0)
    cosine = 1 - eta * leaning
    return Derivation(
        law="finite_eps_equilibrium",
        setting=r"$w' = w - \eta(g + \lambda w)$; $R = E\|w\|^2$, $n_0$ the norm at which variance and eps are equal, "
        r"$A = E\langle y, \partial L/\partial y\rangle$.",
        steps=(
            Step(
                r"Law `finite\_eps`, with $\epsilon/V = n_0^2/R$.",
                (sp.Eq(sp.Symbol("gain"), gain), sp.Eq(sp.Symbol("defect"), defect)),
            ),
            Step(
                r"Across the weights gradients have the size of an exact normalisation's times the gain; along them they "
                r"are a further decay of $E\langle w,g\rangle/R$.",
                (sp.Eq(noise, size), sp.Eq(decay, leaning)),
            ),
            Step(
                r"Square the update and average; decay and noise are slow, both of order $\epsilon$.",
                (sp.Eq(sp.Symbol("R'"), after), sp.Eq(sp.Symbol("dR/dt"), slow)),
            ),
            Step("Where it is 0.", (sp.Eq(polynomial, 0), sp.Eq(square, positive))),
            Step(
                r"The rotation at stationary norm is that of the whole decay (law `sgd\_equilibrium`).",
                (sp.Eq(sp.Symbol("cos"), cosine),),
            ),
        ),
        result={"norm": sp.sqrt(positive), "angle": sp.acos(cosine.subs(square, positive))},
        inputs={"lr": eta, "weight_decay": lam, "c2": c2, "floor": floor, "pull": pull},
        source="derived here",
    )
