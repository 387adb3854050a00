"""AdamW under Gaussian noise: write both roots of the second moment as integrals, average gradient by gradient."""

import sympy as sp

from theory.derivations.derivation import Derivation, Step


def derivation() -> Derivation:
    """Derive the autocovariance of m/sqrt(v) as an integral; law `decoupled_equilibrium` makes norm and angle of it.

    Norm and angle are sums of such integrals over all lags, so `result` is empty.

    Returns:
        The proof.
    """
    b1, b2 = sp.symbols("beta_1 beta_2", positive=True)
    x, y, past, z, weight = sp.symbols("x y y' z theta", positive=True)
    g = sp.Symbol("g", real=True)
    i, j, k = sp.symbols("i j k", integer=True, nonnegative=True)
    root_integral = sp.Integral(2 / sp.sqrt(sp.pi) * sp.exp(-x * y**2), (y, 0, sp.oo))
    inverse_integral = sp.Integral(sp.exp(-x * z), (z, 0, sp.oo))

    normal = sp.exp(-(g**2) / 2) / sp.sqrt(2 * sp.pi)
    line = (g, -sp.oo, sp.oo)
    lone = sp.simplify(sp.integrate(normal * sp.exp(-weight * g**2), line))
    paired = sp.simplify(sp.integrate(normal * g**2 * sp.exp(-weight * g**2), line))
    odd = sp.integrate(normal * g * sp.exp(-weight * g**2), line)
    ratio = sp.simplify(paired / lone)

    # weight of the gradient of age j in y^2 v_t + y'^2 v_{t-k}; older ones, of age k + i, are in both
    recent = lone.subs(weight, y**2 * (1 - b2) * b2**j)
    shared = y**2 * (1 - b2) * b2 ** (k + i) + past**2 * (1 - b2) * b2**i
    of_z = sp.factor(shared.subs(y, sp.sqrt((z - past**2) / b2**k)))
    laplace = sp.Product(lone.subs(weight, of_z), (i, 0, sp.oo))
    pairs = sp.Sum((1 - b1) ** 2 * b1 ** (k + i) * b1**i * ratio.subs(weight, of_z), (i, 0, sp.oo))
    at_z = {z: y**2 * b2**k + past**2}
    integrand = (2 / sp.sqrt(sp.pi)) ** 2 * sp.Product(recent, (j, 0, k - 1)) * (laplace * pairs).subs(at_z)
    covariance = sp.Integral(integrand, (y, 0, sp.oo), (past, 0, sp.oo))

    transform = sp.Function("P")(z)
    log_slope = sp.diff(sp.log(laplace.function), z)  # of one factor; the logarithm of the product is their sum
    tied = {b2: b1**2}
    proportion = sp.simplify((pairs.function.subs(k, 0) / log_slope).subs(tied))
    ends = sp.limit(laplace.function, z, sp.oo) - laplace.function.subs(z, 0)
    exact = sp.factor(proportion * ends)
    moment = sp.Symbol("C_0")
    return Derivation(
        law="adamw_equilibrium_gaussian",
        setting=r"$u = m/\sqrt{v}$, $m$ and $v$ the averages of $g$ and $g^2$ with $\beta_1$, $\beta_2$; $g$ white and standard "
        r"normal in each coordinate; $C_k = E u_tu_{t-k}$.",
        steps=(
            Step(
                "An inverse root is an average of exponentials.",
                (sp.Eq(root_integral, root_integral.doit(), evaluate=False),),
            ),
            Step(
                r"With it for $v_t$ (variable $y$) and $v_{t-k}$ (variable $y'$) the average over each gradient is Gaussian: "
                r"for one that no $m$ takes part in, one that both do, one that only one does (with $\theta$ its weight).",
                (
                    sp.Eq(sp.Symbol(r"E e^{-\theta g^2}"), lone),
                    sp.Eq(sp.Symbol(r"E g^2e^{-\theta g^2}"), paired),
                    sp.Eq(sp.Symbol(r"E g\,e^{-\theta g^2}"), odd),
                ),
            ),
            Step(
                r"So the two $m$ must take the same gradient. Of those before $t-k$, the one of age $i$ at that time has weight "
                r"$\theta_i$ with $z = y^2\beta_2^k + y'^2$; all of them give $P$, the pairs a factor $N_k$.",
                (
                    sp.Eq(sp.Symbol("theta_i"), of_z),
                    sp.Eq(transform, laplace),
                    sp.Eq(sp.Symbol("N_k"), pairs),
                ),
            ),
            Step(
                r"The $k$ gradients since then are in $v_t$ alone.",
                (sp.Eq(sp.Symbol("C_k"), covariance, evaluate=False),),
            ),
            Step(
                r"Check: $C_0 = E[m^2/v] = \int_0^\infty N_0P\,dz$ by the integral for $1/v$. For $\beta_2 = \beta_1^2$ each pair "
                r"is a fixed multiple of a term of $(\ln P)'$, so that $N_0P$ is that multiple of $P'$ and integrates to",
                (
                    sp.Eq(inverse_integral, inverse_integral.doit(), evaluate=False),
                    sp.Eq(sp.Symbol(r"N_0/(\ln P)'"), proportion),
                    sp.Eq(moment, exact),
                ),
            ),
        ),
        result={},
        inputs={"betas": sp.Tuple(b1, b2)},
        source="derived here",
    )
