"""Single steps of the proofs of over-training and one pass: orbits run, Jacobians by differences, leading orders."""

import math

import numpy as np
import pytest
import sympy as sp

import theory
from theory.derivations import derive, eos_period, sphere_eos


def printed(proof):
    """Right-hand sides of a proof's equations by the name of the left-hand side; of two, the last."""
    return {str(e.lhs): e.rhs for step in proof.steps for e in step.equations}


@pytest.fixture
def value(plain):
    """Evaluate an expression at values by the names of its symbols."""
    return lambda expression, at: float(plain(expression).subs(at).evalf(17))


@pytest.fixture
def matrix(plain):
    return lambda expression, at: np.array(sp.Matrix(plain(expression)).subs(at).evalf(17).tolist(), dtype=float)


def descend(w, eta, lam, top):
    """One step of gradient descent with coupled decay on (L/2) y^2/(x^2+y^2)."""
    x, y = w
    gradient = top * np.array([-x * y**2, y * x**2]) / (w @ w) ** 2
    return w - eta * (gradient + lam * w)


def test_printed_step_in_the_plane(matrix, value):
    """The printed w' and the ratios of R and tan^2 are those of descent on the loss itself, at random points."""
    # a later step of the proof uses the name w' for heavy ball
    whole, ratios = sphere_eos.derivation().steps[0].equations[0].rhs, printed(derive("eos_period"))
    rng = np.random.default_rng(0)
    for _ in range(5):
        w, lam, eta, top = rng.normal(size=2) + 2, rng.uniform(0.01, 0.3), rng.uniform(0.1, 1), rng.uniform(0.5, 3)
        new, phi, square = descend(w, eta, lam, top), math.atan2(w[1], w[0]), w @ w
        at = {"eta": eta, "a": 1 - eta * lam, "L": top, "R": square, "phi": phi, "S": math.sin(phi) ** 2}
        assert matrix(whole, at).ravel() == pytest.approx(new, rel=1e-12)
        assert value(ratios["R'/R"], at) == pytest.approx(new @ new / square, rel=1e-12)
        turned = (new[1] / new[0]) ** 2 / math.tan(phi) ** 2
        assert value(ratios[r"\tan^2\varphi'/\tan^2\varphi"], at) == pytest.approx(turned, rel=1e-12)


@pytest.mark.parametrize("mu", [0.0, 0.6])
def test_the_derived_orbit_returns_after_two_steps(mu):
    """Gradient descent, heavy ball or not, started on the derived orbit, alternates between its two points."""
    inputs = {"lr": 0.5, "weight_decay": 0.2, "sharpness": 2.0, "momentum": mu}
    orbit = derive("sphere_eos").evaluate(**inputs)
    half = orbit["angle"] / 2
    points = [orbit["norm"] * np.array([math.cos(half), sign * math.sin(half)]) for sign in (1, -1)]
    past, now = points[1], points[0]
    for n in range(20):  # the orbit is not stable: rounding grows, to 1e-12 here
        past, now = now, descend(now, 0.5, 0.2, 2.0) + mu * (now - past)
        assert now == pytest.approx(points[(n + 1) % 2], rel=1e-9)
    lifted = points[0][1] ** 2 / (points[0] @ points[0])  # loss over L/2
    assert orbit["excess_loss"] == pytest.approx(lifted, rel=1e-9)


def test_linear_cycles(matrix, value, plain):
    """J by differences of the printed ratios; J_0 leaves out the second order of rho, the period the first."""
    proof = printed(eos_period.derivation())
    names = [sp.Symbol(name) for name in ("R", "S", "a", "eta", "L")]
    ratios = [sp.lambdify(names, plain(proof[name]), "numpy") for name in ("R'/R", r"\tan^2\varphi'/\tan^2\varphi")]
    rho, eta, top = 0.06, 0.3, 2.0
    start = np.array([math.log(eta * top / 2), math.log(rho / 2 / (1 - rho / 2))])

    def change(point):
        share = 1 / (1 + math.exp(-point[1]))
        return np.array([math.log(f(math.exp(point[0]), share, 1 - rho, eta, top)) for f in ratios])

    shifts = np.eye(2) * 1e-5
    differences = np.column_stack([(change(start + h) - change(start - h)) / 2e-5 for h in shifts])
    assert change(start) == pytest.approx([0, 0], abs=1e-14)
    assert matrix(proof["J"], {"a": 1 - rho}) == pytest.approx(differences, abs=1e-8)

    gaps, periods = [], []
    for small in (1e-3, 5e-4):
        exact = matrix(proof["J"], {"a": 1 - small})
        gaps.append(np.abs(exact - matrix(proof["J_0"], {"rho": small})).max())
        turn = np.abs(np.angle(1 + np.linalg.eigvals(exact)[0]))
        periods.append(theory.eos_period(1.0, small).steps / (2 * math.pi / turn) - 1)
    assert gaps[0] / gaps[1] == pytest.approx(4, rel=0.05)
    assert periods[0] / periods[1] == pytest.approx(2, rel=0.05)


def test_short_form_of_the_time_to_the_edge(value):
    """z_1 rho + z_2 rho^2 leaves out the third order of -ln alpha; the factor f the second order."""
    found, mu = printed(derive("time_to_eos")), 0.3
    gaps, factors = [], []
    for rho in (2e-3, 1e-3):
        exact = -math.log(theory.sgd_exponential_lr(rho, 1.0, mu).alpha)
        at = {"mu": mu, "rho": rho}
        short = value(found["z_1"], at) * rho
        gaps.append(short + value(found["z_2"], at) * rho**2 - exact)
        factors.append(value(found["f"], at) - exact / short)
    assert gaps[0] / gaps[1] == pytest.approx(8, rel=0.05)
    assert factors[0] / factors[1] == pytest.approx(4, rel=0.05)


def test_leading_orders_in_the_learning_rate(value):
    """Of label noise, of its regulariser and of one pass: the exact law over the leading term is 1 + O(lr)."""
    noise, one_pass = printed(derive("label_noise_excess")), printed(derive("least_squares_stationary"))
    gaps = [[], [], []]
    for lr in (2e-3, 1e-3):
        at = {"eta": lr, "h": 0.4, "sigma^2": 0.7, "n": 5.0, "B": 5.0}
        law = theory.label_noise_excess([0.4], lr, 0.7, 5).excess
        gaps[0].append(law / value(noise["L_{lead}"], at) - 1)
        gaps[1].append(law / (theory.noise_regulariser(lr, 5, 0.7).coefficient * 0.4) - 1)
        law = theory.least_squares_stationary([0.4], lr, 0.7, 5).excess
        gaps[2].append(law / value(one_pass["excess_h"], at) - 1)
    assert all(gap[0] / gap[1] == pytest.approx(2, rel=0.05) for gap in gaps)


def test_moments_of_one_pass_by_enumeration(plain):
    """The Gaussian moments of the gradient by Gauss-Hermite quadrature, exact for polynomials of this degree."""
    proof = printed(derive("least_squares_trajectory"))
    x, p = np.polynomial.hermite_e.hermegauss(4)
    weight = p / p.sum()
    at = {"h_1": 0.3, "h_2": 0.7, "sigma^2": 0.5, "delta_1": 0.4, "delta_2": -0.6, "B": 3.0}
    a, b, c = np.meshgrid(x * 0.3**0.5, x * 0.7**0.5, x * 0.5**0.5, indexing="ij")
    chance = weight[:, None, None] * weight[:, None] * weight
    gradient = a * (a * 0.4 - b * 0.6 - c)
    mean, square = float(np.sum(chance * gradient)), float(np.sum(chance * gradient**2))
    assert float(plain(proof["E[s_1^2]"]).subs(at)) == pytest.approx(square, rel=1e-12)
    assert float(plain(proof["E[g_1^2]"]).subs(at)) == pytest.approx(square / 3 + 2 / 3 * mean**2, rel=1e-12)


def test_pull_of_noise_on_two_factors(value):
    """What descent on c tr H does to u^2-v^2 in a step is what the exact law of balance says without decay."""
    found = printed(derive("noise_regulariser"))
    at = {"eta": 0.01, "sigma^2": 0.7}
    assert value(found["dD/D"], at) == pytest.approx(theory.label_noise_balance(0.01, 0.0, 0.7, 1).ratio - 1, rel=1e-9)


def test_muon_is_its_two_proofs_together():
    """The numerical law of Muon (exact polar factor, no Nesterov) from the proofs of decoupled walks and polar factors.

    The law keeps a finite number of modes, whose missing energy moves correlations by up to 3e-5 (`matrix_arcsine`).
    """
    lr, decay, mu, shape, lags = 0.1, 5.0, 0.5, (24, 96), 24
    polar = derive("matrix_arcsine")
    correlations = [1.0, *(polar.evaluate(shape=shape, rho=mu**k)["correlation"] for k in range(1, lags + 1))]
    walk = theory.derivations.decoupled_equilibrium.derivation(lags=lags).evaluate(
        lr=lr, weight_decay=decay, update_autocovariance=tuple(24 * c for c in correlations), lr_update=lr
    )
    law = theory.muon_equilibrium(lr, decay, shape, mu, nesterov=False, ns_steps=None)
    assert law.norm == pytest.approx(walk["norm"], rel=3e-5)
    assert law.angle == pytest.approx(walk["angle"], rel=3e-5)
