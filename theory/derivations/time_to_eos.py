"""How long decay takes to bring converged weights to the edge of stability."""

import sympy as sp

from theory.derivations import sphere_eos
from theory.derivations.derivation import Derivation, Step
from theory.derivations.sgd_exponential_schedule import second_order


def derivation() -> Derivation:
    """Derive the number of steps from a given norm to that of the edge.

    Returns:
        The proof.
    """
    orbit = sphere_eos.derivation()
    eta, lam, mu = (orbit.inputs[name] for name in ("lr", "weight_decay", "momentum"))
    start, steps, x, edge = sp.symbols("r_0 t x r_e", positive=True)
    present, past, _ = second_order(eta, eta, lam, mu, sp.Integer(1))
    characteristic = sp.Eq(x**2, sp.expand(present * x) + past)
    roots = sp.solve(characteristic, x)
    slow = next(root for root in roots if root.subs({mu: 0.25, eta: 0.1, lam: 0.1}) > 0.5)
    alpha = sp.Symbol("alpha", positive=True)
    reached = sp.Eq(sp.log(start) + steps * sp.log(alpha), sp.log(edge))
    time = sp.solve(reached, steps)[0]
    formula = time.subs({alpha: slow, edge: orbit.result["norm"]})
    z1, z2, rho = sp.symbols("z_1 z_2 rho", positive=True)
    gap = (characteristic.lhs - characteristic.rhs).subs(lam, rho / eta).subs(x, sp.exp(-rho * z1 - rho**2 * z2))
    orders = [sp.expand(sp.diff(gap, rho, n).subs(rho, 0)) for n in (1, 2)]
    first = sp.factor(sp.solve(orders[0], z1)[0])
    second = sp.factor(sp.solve(orders[1].subs(z1, first), z2)[0])
    return Derivation(
        law="time_to_eos",
        setting=r"Direction converged, gradient negligible, momentum settled: $w_{t+1}$ follows from decay and heavy ball "
        "alone.",
        steps=(
            Step(
                r"Eliminate the buffer (law `sgd\_exponential\_schedule`) and try $w_t = x^t$; the larger root stays.",
                (characteristic, sp.Eq(alpha, slow)),
            ),
            Step(r"The orbit's norm (law `sphere\_eos`).", (sp.Eq(edge, orbit.result["norm"]),)),
            Step(r"It is reached from $r_0$ when", (reached, sp.Eq(steps, time))),
            Step(
                r"For weak decay write $-\ln\alpha = z_1\rho + z_2\rho^2$, $\rho = \eta\lambda$, and compare powers. The short "
                r"form, with $z_1$ alone, is too long by the factor",
                (sp.Eq(z1, first), sp.Eq(z2, second), sp.Eq(sp.Symbol("f"), 1 + rho * sp.factor(second / first))),
            ),
        ),
        result={"steps": formula},
        inputs={"norm0": start} | dict(orbit.inputs),
        source="derived here",
    )
