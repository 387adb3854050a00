"""The generic decoupled law: from the autocovariance of the update to norm and rotation."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step, equilibrium_symbols


def geometric(first: sp.Expr, ratio: sp.Expr) -> sp.Expr:
    """Sum of a convergent geometric series, which repeats itself after its first term.

    Args:
        first: First term.
        ratio: Factor from term to term, below 1 in size.

    Returns:
        The sum.

    Example:
        >>> geometric(sp.Integer(1), sp.Rational(1, 2))
        2
    """
    total = sp.Dummy()
    return sp.factor(sp.solve(sp.Eq(total, first + ratio * total), total)[0])


def derivation(lags: int = 2) -> Derivation:
    """Derive norm and angle of weights that shrink and subtract a stationary update.

    Args:
        lags: Number K of lags in the result, whose input `update_autocovariance` is (C_0, ..., C_K).

    Returns:
        The proof.
    """
    eta, lam = equilibrium_symbols()
    a, h, r = sp.symbols("a h R", positive=True)
    k, covariance = sp.Symbol("k", integer=True, positive=True), sp.Function("C")
    inner = sp.Symbol(r"E\langle aw,u\rangle", real=True)
    memory = sp.Sum(a**k * covariance(k), (k, 1, sp.oo))
    shrink, unrolled = sp.Eq(a, 1 - eta * lam), sp.Eq(inner, -h * memory)
    balance = sp.Eq(r, a**2 * r - 2 * h * inner + h**2 * covariance(0))
    squared = sp.factor(sp.solve(balance, r)[0])
    cosine = sp.expand((a * r - h * inner / a) / r)

    values = sp.symbols(f"C_0:{lags + 1}")
    finite = -h * memory.func(memory.function, (k, 1, lags)).doit()
    r_finite, cos_finite = (
        formula.subs(inner, finite).replace(covariance, lambda lag: values[int(lag)]) for formula in (squared, cosine)
    )
    to_inputs = {a: shrink.rhs}
    formulas = {
        "norm": sp.sqrt(r_finite),
        "angle": sp.acos(cos_finite.subs(r, r_finite)),
        "effective_lr": h / sp.sqrt(r_finite),
        "relative_update": h * sp.sqrt(values[0] / r_finite),
    }
    return Derivation(
        law="decoupled_equilibrium",
        setting=r"$w' = aw - hu$ with $a = 1-\eta\lambda$, $u$ stationary, $C_k = E\langle u_t, u_{t-k}\rangle$, and "
        "weights that know the update through its past alone.",
        steps=(
            Step(
                r"Unrolled, $aw_t = -h\sum_{k\ge1} a^k u_{t-k}$; its inner product with the present update is",
                (shrink, unrolled),
            ),
            Step(r"In equilibrium $R = E\|w\|^2$ is the same before and after the step; solve for it.", (balance,)),
            Step(
                "Solve for $R$, insert the inner product.",
                (sp.Eq(r, squared), sp.Eq(r, squared.subs(inner, unrolled.rhs))),
            ),
            Step(
                r"The cosine of the rotation is $E\langle w, w'\rangle/R$.",
                (sp.Eq(sp.Symbol("cos"), cosine),),
            ),
        ),
        result={field: formula.subs(to_inputs) for field, formula in formulas.items()},
        inputs={"lr": eta, "weight_decay": lam, "update_autocovariance": sp.Tuple(*values), "lr_update": h},
        source="derived here",
    )
