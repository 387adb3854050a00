"""SGD on scale-invariant weights: the norms alone tell the rotation."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step, equilibrium_symbols


def derivation(steps: int = 2) -> Derivation:
    """Derive the rotation of the last of `steps` steps from the norms before and after each of them.

    Args:
        steps: Number of steps; the formula holds for the last of the law's angles.

    Returns:
        The proof.
    """
    eta, lam = equilibrium_symbols()
    mu = sp.Symbol("mu", nonnegative=True)
    w, past, g = sp.symbols("w_t w_{t-1} g_t")
    buffer = (past - w) / eta
    recursion = sp.collect(sp.expand(w - eta * (mu * buffer + g + lam * w)), [w, past, g])
    square, inner, inner_past = sp.symbols("R_t P_t P_{t-1}", positive=True)
    product = sp.Eq(inner, recursion.coeff(w) * square + recursion.coeff(past) * inner_past)
    stationary = sp.factor(sp.solve(product.subs(inner_past, inner), inner)[0] / square)

    norms = sp.symbols(f"r_0:{steps + 1}", positive=True)
    last = sp.expand(w - eta * (g + lam * w)).coeff(w) * norms[0] ** 2
    products = [last]
    for norm in norms[1:-1]:
        products.append(sp.expand(product.rhs.subs({square: norm**2, inner_past: products[-1]})))
    cosine = products[-1] / (norms[-2] * norms[-1])
    return Derivation(
        law="angle_from_norms",
        setting=r"SGD with heavy ball, $b_t = \mu b_{t-1} + g_t + \lambda w_t$, $w_{t+1} = w_t - \eta b_t$, $b_{-1} = 0$, "
        r"$\langle g_t, w_t\rangle = 0$; $R_t = r_t^2 = \|w_t\|^2$, $P_t = \langle w_t, w_{t+1}\rangle$.",
        steps=(
            Step(
                r"The old buffer is the old step, $b_{t-1} = (w_{t-1}-w_t)/\eta$; without it the update reads",
                (sp.Eq(sp.Symbol("w_{t+1}"), recursion),),
            ),
            Step(r"Inner product with $w_t$; the gradient drops out by scale invariance.", (product,)),
            Step(
                "The first step has no past; the recursion gives the others in turn.",
                tuple(sp.Eq(sp.Symbol(f"P_{t}"), value) for t, value in enumerate(products)),
            ),
            Step(
                "Where the norm is stationary, $P_t = P_{t-1}$: a rotation that no gradient enters.",
                (sp.Eq(sp.Symbol("cos"), stationary),),
            ),
            Step(
                "The cosine of the last step, from $P$ and the norms.", (sp.Eq(sp.Symbol(f"cos_{steps - 1}"), cosine),)
            ),
        ),
        result={"angle": sp.acos(cosine)},
        inputs={"norms": sp.Tuple(*norms), "lr": eta, "weight_decay": lam, "momentum": mu},
        source="derived here",
    )
