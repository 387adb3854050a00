"""Single steps of the equilibrium proofs against integrals, limits and the laws' own pieces."""

import math

import numpy as np
import pytest
import sympy as sp
from scipy import integrate
from scipy.special import spence

import theory
from theory.derivations import adam_l2_equilibrium, adamw_equilibrium, derive, sgd_equilibrium
from theory.equilibrium.adamw import second_moment_corrections
from theory.equilibrium.adamw_gaussian import gaussian_update_autocovariance
from theory.equilibrium.sign import sign_autocovariance


def formula(proof, name):
    """Right-hand side of the proof's first equation for that symbol."""
    return next(e.rhs for step in proof.steps for e in step.equations if str(e.lhs) == name)


def test_scale_invariance_on_a_concrete_function():
    """f = (xy + z^2)/||w||^2 is homogeneous of degree 0: the law measures the defects that the proof says vanish."""
    w = sp.symbols("x y z")
    f = (w[0] * w[1] + w[2] ** 2) / sum(v**2 for v in w)
    gradient, hessian = sp.Matrix([f.diff(v) for v in w]), sp.hessian(f, w)
    at = dict(zip(w, (0.3, -1.2, 0.7), strict=True))
    g, h = (np.array(m.subs(at).tolist(), dtype=float) for m in (gradient, hessian))
    point = np.array(list(at.values()))
    measured = theory.invariance_defect(point, g[:, 0], h @ point)
    derived = derive("invariance_defect")
    assert derived.evaluate() == {"radial": 0.0, "hessian": 0.0}
    assert measured.radial == pytest.approx(0, abs=1e-15)
    assert measured.hessian == pytest.approx(0, abs=1e-15)
    for equation in (e for step in derived.steps for e in step.equations if str(e.lhs) != "g"):
        assert sp.Matrix([equation.rhs]).is_zero_matrix


def test_second_moment_corrections(plain):
    _, one_step, long_run = adamw_equilibrium.corrections()
    values = {"beta_1": 0.7, "beta_2": 0.93, "q": 2.5 * 0.07}
    derived = [float(plain(factor).subs(values)) for factor in (one_step, long_run)]
    assert derived == pytest.approx(second_moment_corrections((0.7, 0.93), 3.5), rel=1e-12)


@pytest.mark.parametrize("law", ["adamw_equilibrium", "adamw_signal_noise"])
def test_expansions_leave_out_the_third_order(law, plain):
    """Halving the small quantity must shrink the difference of the two sides eightfold, to its own first order."""
    equations = [e for step in derive(law).steps for e in step.equations if e.has(sp.Order)]
    assert equations
    for equation in equations:
        difference = plain(equation.lhs - equation.rhs.removeO()).subs({"delta": 0.7, "delta'": -0.4})
        small, half = (abs(float(difference.subs("x", x))) for x in (1e-2, 5e-3))
        assert small / half == pytest.approx(8, rel=0.05)


def test_leading_sgd_rotation(plain):
    """1-cos over lambda at small decay against its derived limit; the next order is O(eta lambda) = 1e-6."""
    for nesterov in (False, True):
        proof = sgd_equilibrium.derivation(nesterov)
        limit = next(e.rhs for step in proof.steps for e in step.equations if "lim" in str(e.lhs))
        value = float(plain(limit).subs({"eta": 0.1, "mu": 0.8, "kappa": 1.0}))
        angle = theory.sgd_equilibrium(0.1, 1e-5, momentum=0.8, nesterov=nesterov, c2=1.0).angle
        assert angle**2 / 2 / 1e-5 == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize("point", range(3))
def test_adam_l2_solves_its_equations(point, follow):
    """The law's fixed point (settled to 1e-13 per step, half the way each) is the proof's solution for that scale."""
    rng = np.random.default_rng(point)
    values = {"eta": 0.05, "lambda": rng.uniform(0.01, 0.1), "beta_1": rng.uniform(0, 0.95), "beta_2": 0.999}
    values |= {"p": rng.uniform(0.1, 0.5), "n": float(rng.integers(5, 500))}
    found, _ = follow(derive("adam_l2_equilibrium").steps, values)
    inputs = {
        "lr": values["eta"],
        "weight_decay": values["lambda"],
        "betas": (values["beta_1"], values["beta_2"]),
        "s_unit": found["s"],
        "counts": values["n"],
    }
    law = theory.adam_l2_equilibrium(**inputs)
    assert law.norm == pytest.approx(math.sqrt(found["R"]), rel=1e-9)
    assert 1 - math.cos(law.angle) == pytest.approx(1 - found["cos"], rel=1e-9)


def test_adam_l2_weak_decay():
    """The leading form meets the law as the decay weakens: the gap shrinks with the decay's share of one step."""
    proof = adam_l2_equilibrium.derivation(leading=True)
    gaps = []
    for decay in (1e-4, 1e-5, 1e-6):
        inputs = {"lr": 1e-3, "weight_decay": decay, "betas": (0.9, 0.999), "s_unit": 0.5, "counts": 20}
        law, leading = theory.adam_l2_equilibrium(**inputs), proof.evaluate(**inputs)
        gaps.append(max(abs(leading["norm"] / law.norm - 1), abs(leading["angle"] / law.angle - 1)))
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-5


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_cautious_norm_solves_the_balance(momentum, follow):
    law = theory.cautious_equilibrium(0.05, 0.2, momentum=momentum, d=1)
    values = {"eta": 0.05, "lambda": 0.2, "beta": momentum, "r": law.rms**2, "u": 1.0, "w": 0.3, "|w|": 0.3}
    found, tested = follow(derive("cautious_equilibrium").steps, values)
    assert tested >= 3  # c from c', the balance, and its collected form
    assert math.cos(law.angle) == pytest.approx(found["cos"], rel=1e-12)


def test_agreement_of_correlated_gaussians(follow):
    """E[w^2 1(uw > 0)]/r and E[uw]/sqrt(r) of the cautious proof by brute integration over the plane."""
    slant, lean = 0.4, math.asin(0.4)
    share, _ = integrate.quad(lambda t: math.cos(t) ** 2 / math.pi, -lean, math.pi / 2)
    found, _ = follow(derive("cautious_equilibrium").steps[:2], {"c'": slant})
    assert found["E_2"] == pytest.approx(2 * share, rel=1e-12)
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    conditional = np.array([math.erf(slant * x / math.sqrt(2 * (1 - slant**2))) for x in nodes])  # E[sign(m) | w]
    assert found["c"] == pytest.approx(weights @ (nodes * conditional) / weights.sum(), rel=1e-6)


def test_lion_correlations_before_the_sign(plain):
    """rho_k of the proof, through the law's own arcsine, is what the law sums; and the sum itself meets the law."""
    b1, b2, lr, wd = 0.8, 0.9, 0.1, 0.3
    proof = derive("lion_equilibrium")
    presign = formula(proof, "rho_k")
    rho = [float(plain(presign).subs({"beta_1": b1, "beta_2": b2, "k": k})) for k in range(1, 300)]
    signs = np.append(1.0, theory.arcsine(rho).correlation)
    assert signs[:100] == pytest.approx(sign_autocovariance(rho[0], b2, 1 - lr * wd)[:100], rel=1e-12)
    assert theory.decoupled_equilibrium(lr, wd, signs).norm == pytest.approx(
        theory.lion_equilibrium(lr, wd, (b1, b2)).norm, rel=1e-9
    )


def test_signs_without_momentum(follow):
    proof = derive("signum_equilibrium")
    found, _ = follow(proof.steps, {"eta": 0.3, "lambda": 0.2, "beta": 0.7, "d": 10.0, "k": 3})
    assert math.sqrt(found[r"R_{\beta=0}"]) == pytest.approx(
        theory.signum_equilibrium(0.3, 0.2, momentum=0.0, d=10).norm, rel=1e-12
    )


@pytest.mark.parametrize("shape", [(24, 96), (80, 60)])
def test_matrix_arcsine_of_rectangles(shape):
    """A double integral against a sum over 2^15 modes; both have the accuracy of their arithmetic."""
    for rho in (0.3, -0.85):
        derived = derive("matrix_arcsine").evaluate(shape=shape, rho=rho)["correlation"]
        assert derived == pytest.approx(float(theory.matrix_arcsine(shape, rho).correlation), rel=1e-9)


def test_matrix_arcsine_of_squares(plain):
    """sum A_j^2 rho^(2j+1) in closed form, by Legendre's chi function; the law's 2^15 modes hold all but 3e-5 of it."""
    proof, rho = derive("matrix_arcsine"), 0.7
    found = {str(e.lhs): e.rhs for step in proof.steps for e in step.equations}
    amplitude = found["A_j(c=1)"]
    assert found["A_0(c=1)"] == sp.Rational(8, 3) / sp.pi
    assert found["A_0(c=0)"] == found[r"\sum_jA_j^2(c=1)"] == 1
    modes = sum(float(plain(amplitude).subs("j", j)) ** 2 * rho ** (2 * j + 1) for j in range(60))
    chi = (spence(1 - rho) - spence(1 + rho)) / 2
    closed = 4 / math.pi**2 * (chi * (1 + rho**-2) + math.atanh(rho) * (1 - rho**-2))
    derived = proof.evaluate(**{"shape": (64, 64), "rho": rho})["correlation"]
    assert modes == pytest.approx(closed, rel=1e-12)
    assert derived == pytest.approx(closed, rel=1e-9)
    assert float(theory.matrix_arcsine((64, 64), rho).correlation) == pytest.approx(closed, rel=1e-4)


def test_matrix_mode_integral(plain):
    proof = derive("matrix_arcsine")
    coefficient = formula(proof, "A_j")
    for j in range(3):
        square = sp.lambdify([], plain(coefficient).subs({"c": 1, "j": j}), ["scipy", "numpy"])()
        assert abs(square) == pytest.approx(8 * (j + 1) / math.pi / (4 * j**2 + 8 * j + 3), rel=1e-9)


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_gaussian_autocovariance(lag, plain):
    """The proof's double integral by the trapezoid rule in log y (exponentially accurate) against the law's splines."""
    b1, b2 = 0.6, 0.7
    proof = derive("adamw_equilibrium_gaussian")
    integral = formula(proof, "C_k")
    integrand = plain(integral.function).subs({"beta_1": b1, "beta_2": b2, "k": lag})
    integrand = integrand.replace(
        lambda e: isinstance(e, (sp.Sum, sp.Product)),
        lambda e: e.func(e.function, (*e.limits[0][:2], min(60, e.limits[0][2]))).doit(),  # 0.7^60 = 5e-10
    )
    evaluate = sp.lambdify([sp.Symbol("y"), sp.Symbol("y'")], integrand, "numpy", cse=True)
    tau = np.arange(-22.0, 9.0, 0.1)
    y = np.exp(tau)
    total = float(np.sum(evaluate(y[:, None], y[None, :]) * y[:, None] * y[None, :])) * 0.1**2
    assert total == pytest.approx(float(gaussian_update_autocovariance(b1, b2)[lag]), rel=1e-7)


def test_gaussian_one_step_in_closed_form(plain):
    """At beta2 = beta1^2 the proof's closed form is what the law integrates."""
    proof = derive("adamw_equilibrium_gaussian")
    exact = formula(proof, "C_0")
    for b1 in (0.5, 0.9):
        law = float(gaussian_update_autocovariance(b1, b1**2)[0])
        assert float(plain(exact).subs("beta_1", b1)) == pytest.approx(law, rel=1e-8)


def test_price_theorem_steps(plain):
    """The slope of the correlation of signs, against a difference quotient of the law."""
    proof = derive("arcsine")
    slope = next(e.rhs for step in proof.steps for e in step.equations if e.has(sp.Derivative))
    above, below = (float(theory.arcsine(0.4 + h).correlation) for h in (1e-5, -1e-5))
    assert float(plain(slope).subs("t", 0.4)) == pytest.approx((above - below) / 2e-5, rel=1e-8)
    assert [e.rhs for e in proof.steps[1].equations] == [0]
