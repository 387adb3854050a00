"""The arcsine law of matrices: modes of a rectangular Gaussian matrix, and what a polar factor keeps of them."""

import sympy as sp

from theory.derivations.decoupled_equilibrium import geometric
from theory.derivations.derivation import Derivation, Step


def _given_first_matrix(c: sp.Symbol, rho: sp.Symbol) -> sp.Expr:
    """Average of G'G'^T G' over a large G' = rho G + sqrt(1-rho^2) H, in the singular value x of G."""
    x, fresh, one = sp.Symbol("x"), sp.sqrt(1 - rho**2), sp.Integer(1)
    g, gt, h, ht = sp.symbols("G G^T H H^T", commutative=False)
    words = {g * gt * g: x**3, h * ht * g: x, g * ht * h: c * x}  # entries of variance 1/max(n, m)
    product = sp.expand((rho * g + fresh * h) * (rho * gt + fresh * ht) * (rho * g + fresh * h))
    parts = (term.args_cnc() for term in sp.Add.make_args(product))
    return sp.expand(sum((sp.Mul(*scalars) * words.get(sp.Mul(*word), 0) for scalars, word in parts), start=0 * one))


def derivation() -> Derivation:
    """Derive the correlation of the polar factors of two large correlated Gaussian matrices.

    Returns:
        The proof.
    """
    c, y = sp.symbols("c y", positive=True)
    s, t, theta, rho, x = sp.symbols("s t theta rho x", real=True)
    rows, columns = sp.symbols("n m", positive=True)
    j, gap = sp.Symbol("j", integer=True, nonnegative=True), sp.Symbol("l", integer=True, positive=True)

    low, high = (1 - sp.sqrt(c)) ** 2, (1 + sp.sqrt(c)) ** 2
    of_angle = 1 + c + 2 * sp.sqrt(c) * sp.cos(t)
    inside = sp.trigsimp(sp.factor(sp.expand((high - of_angle) * (of_angle - low))))
    root = sp.sqrt(inside).subs(sp.Abs(sp.sin(t)), sp.sin(t))  # positive between 0 and pi
    weight = sp.cancel(root / (2 * sp.pi * c) * -sp.diff(of_angle, t))
    mode = sp.sin((j + 1) * t) / sp.sin(t)
    norm = sp.simplify(sp.integrate(sp.expand(weight * mode**2), (t, 0, sp.pi)))
    overlap = sp.integrate(sp.expand(weight * mode * mode.subs(j, j + gap)), (t, 0, sp.pi))

    cubic = _given_first_matrix(c, rho)
    second = sp.expand(x * sp.expand_trig(mode.subs(j, 1)).subs(sp.cos(t), (x**2 - 1 - c) / (2 * sp.sqrt(c))))
    second_after = second.coeff(x, 3) * cubic.subs(sp.Symbol("x"), x) + second.coeff(x, 1) * rho * x
    eigenvalue = sp.factor(second_after) / sp.factor(second)

    profile = sp.sin(t) / sp.sqrt(of_angle)
    coefficient = sp.Integral(weight * mode / sp.sin(t) * profile, (t, 0, sp.pi))
    series = geometric(rho**2 * sp.exp(sp.I * theta), rho**2 * sp.exp(sp.I * theta))
    above, below = (sp.expand(part.rewrite(sp.cos)) for part in sp.fraction(series))
    square_below = sp.trigsimp(sp.expand(below * sp.conjugate(below)))
    real = sp.factor(sp.trigsimp(sp.re(sp.expand(above * sp.conjugate(below))))) / square_below
    kernel = real.subs(theta, s - t) / (2 * rho) - real.subs(theta, s + t) / (2 * rho)
    double = sp.Integral(4 / sp.pi**2 * profile * profile.subs(t, s) * kernel, (s, 0, sp.pi), (t, 0, sp.pi))

    half_angle = sp.sin(t / 2)  # sin(t)/sqrt(2 + 2 cos(t)), both halves positive
    square = sp.simplify(profile.subs(c, 1) ** 2 - half_angle**2)
    of_square = sp.simplify(sp.integrate(sp.expand(weight * mode / sp.sin(t) * half_angle), (t, 0, sp.pi)))
    energies = sp.Add.make_args(sp.apart(sp.simplify(of_square**2), j))
    convergent = [term for term in energies if sp.degree(sp.denom(term), j) > 1]
    telescope = sp.together(sum(term for term in energies if term not in convergent))
    total = sp.simplify(sum(sp.summation(term, (j, 0, sp.oo)) for term in (*convergent, telescope)))
    thin = sp.integrate(coefficient.function.subs({c: 0, j: 0}), (t, 0, sp.pi))
    amplitude = sp.Symbol("A_j")
    return Derivation(
        law="matrix_arcsine",
        setting=r"$G' = \rho G + \sqrt{1-\rho^2}\,H$ with $G, H$ independent $n\times m$ Gaussian matrices, entries of "
        r"variance $1/\max(n,m)$, $c = \min(n,m)/\max(n,m)$, $n, m \to \infty$; $\varphi$ odd, applied to singular values.",
        steps=(
            Step(
                r"Squared singular values $y = x^2$ follow Marchenko and Pastur's law; their weight $y\,\mathrm{MP}(dy)$ in "
                r"the angle $t$ of $y$ is",
                (sp.Eq(y, of_angle), sp.Eq((high - y) * (y - low), inside), sp.Eq(sp.Symbol("y MP(dy)/dt"), weight)),
            ),
            Step(
                r"Under it the odd functions $xU_j$, $U_j = \sin((j+1)t)/\sin t$ (Chebyshev), are orthonormal.",
                (
                    sp.Eq(sp.Symbol(r"\langle U_j,U_j\rangle"), norm),
                    sp.Eq(sp.Symbol(r"\langle U_j,U_{j+l}\rangle"), overlap),
                ),
            ),
            Step(
                r"Average $G'$ and $G'G'^TG'$ over $H$: $HH^T \to 1$, $H^TH \to c$, $HG^TH \to 0$. So $x \to \rho x$, and the "
                r"cubic turns into",
                (sp.Eq(sp.Symbol("E x'^3"), cubic),),
            ),
            Step(
                r"$xU_0$ and $xU_1$ come back multiplied by $\rho$ and $\rho^3$; by the same contractions (the free analogue "
                r"of Mehler's formula) $xU_j$ by $\rho^{2j+1}$.",
                (sp.Eq(sp.Symbol("xU_1"), second), sp.Eq(sp.Symbol("(E x'U_1')/xU_1"), eigenvalue)),
            ),
            Step(
                r"The polar factor is $\varphi = 1$; its coefficient in $xU_j$ is",
                (sp.Eq(amplitude, coefficient),),
            ),
            Step(
                r"$E\langle\varphi(G),\varphi(G')\rangle/p = \sum_jA_j^2\rho^{2j+1}$. Under both integrals the sum over $j$ "
                r"is geometric, $\sum_n\sin ns\,\sin nt\,\rho^{2n-1}$, a difference of real parts of",
                (
                    sp.Eq(sp.Symbol(r"\sum_n\rho^{2n}e^{in\theta}"), series),
                    sp.Eq(sp.Symbol(r"\sum_n\rho^{2n}\cos n\theta"), real),
                    sp.Eq(sp.Symbol(r"\sum_jA_j^2\rho^{2j+1}"), double),
                ),
            ),
            Step(
                r"Thin matrices, $c \to 0$, have $A_0 = 1$ and keep $\rho$. Square ones have "
                r"$\sin t/x = \sin(t/2)$ (difference of squares below), so that",
                (
                    sp.Eq(sp.Symbol("A_0(c=0)"), thin),
                    sp.Eq(sp.Symbol(r"\Delta"), square),
                    sp.Eq(sp.Symbol("A_j(c=1)"), of_square),
                    sp.Eq(sp.Symbol("A_0(c=1)"), of_square.subs(j, 0)),
                    sp.Eq(sp.Symbol(r"\sum_jA_j^2(c=1)"), total),
                ),
            ),
        ),
        result={"correlation": double.subs(c, sp.Min(rows, columns) / sp.Max(rows, columns))},
        inputs={"shape": sp.Tuple(rows, columns), "rho": rho},
        source="derived here, with free probability's large-matrix limit",
    )
