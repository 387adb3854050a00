"""Lion and Signum: against a transcription of the updates, Gaussian orthants, and impulse responses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

from theory import arcsine, decoupled_equilibrium, lion_equilibrium, signum_equilibrium
from theory.errors import InputError


def run(update, lr, wd, rms, rows=16, d=512, steps=2_500, skipped=600, seed=0):
    """Norms and angles of w <- (1-lr*wd)w - lr*u; returns RMS over steps and rows with relative standard errors."""
    rng = np.random.default_rng(seed)
    w = rng.standard_normal((rows, d)) * rms
    squares, chords = np.zeros(rows), np.zeros(rows)
    for t in range(skipped + steps):
        new = (1 - lr * wd) * w - lr * update(rng.standard_normal((rows, d)))
        if t >= skipped:
            r, s = (w**2).sum(1), (new**2).sum(1)
            squares += s / steps
            chords += (((new - w) ** 2).sum(1) - (np.sqrt(s) - np.sqrt(r)) ** 2) / np.sqrt(r * s) / steps
        w = new
    root = lambda x: (np.sqrt(x.mean()), x.std(ddof=1) / np.sqrt(rows) / (2 * x.mean()))
    norm, angle = root(squares), root(chords)
    return norm, (2 * np.arcsin(angle[0] / 2), angle[1])


def lion(b1, b2):
    state = [0.0]

    def update(g):
        u = np.sign(b1 * state[0] + (1 - b1) * g)
        state[0] = b2 * state[0] + (1 - b2) * g
        return u

    return update


def signum(beta):
    state = [0.0]

    def update(g):
        state[0] = beta * state[0] + (1 - beta) * g
        return np.sign(state[0])

    return update


CASES = [
    (lambda: lion(0.9, 0.99), lambda lr, wd, d: lion_equilibrium(lr, wd, (0.9, 0.99), d)),
    (lambda: lion(0.5, 0.8), lambda lr, wd, d: lion_equilibrium(lr, wd, (0.5, 0.8), d)),
    (lambda: signum(0.9), lambda lr, wd, d: signum_equilibrium(lr, wd, 0.9, d)),
    (lambda: signum(0.0), lambda lr, wd, d: signum_equilibrium(lr, wd, 0.0, d)),
]


@pytest.mark.parametrize(("update", "law"), CASES, ids=["lion-0.99", "lion-0.8", "signum-0.9", "signum-0"])
def test_the_update_settles_there(update, law):
    lr, wd = 0.02, 1.0
    predicted = law(lr, wd, 512)
    for (measured, error), value in zip(
        run(update(), lr, wd, predicted.rms), (predicted.norm, predicted.angle), strict=True
    ):
        assert error < 0.002  # else the sample says nothing
        assert abs(value / measured - 1) < 0.004 + 3 * error  # bar 0.4 %, theory.md 2.8


@pytest.mark.parametrize("rho", [-0.95, -0.3, 0.0, 0.5, 0.99])
def test_arcsine_is_the_orthant_probability(rho):
    both = multivariate_normal(cov=[[1, rho], [rho, 1]]).cdf([0, 0])
    assert arcsine(rho).correlation == pytest.approx(4 * both - 1, abs=1e-7)  # accuracy of scipy's cdf


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=5))
def test_arcsine_is_odd_and_bounded(rho):
    values = arcsine(rho).correlation
    assert np.all(np.abs(values) <= 1)
    assert arcsine(-np.array(rho)).correlation == pytest.approx(-values)


@pytest.mark.parametrize("betas", [(0.9, 0.99), (0.3, 0.5), (0.95, 0.6), (0.9, 0.0), (0.0, 0.9)])
def test_lion_memory_from_its_impulse_response(betas):
    b1, b2 = betas
    reach = 4_000
    response = np.concatenate([[1 - b1], b1 * (1 - b2) * b2 ** np.arange(reach)])  # of what stands before the sign
    covariance = np.correlate(np.pad(response, (0, reach)), response, mode="valid")
    rho = np.clip(covariance / covariance[0], -1, 1)
    brute = decoupled_equilibrium(0.01, 0.3, 5 * np.concatenate([[1.0], 2 / np.pi * np.arcsin(rho[1:])]))
    law = lion_equilibrium(0.01, 0.3, betas, d=5)
    assert (law.norm, law.angle) == pytest.approx((brute.norm, brute.angle), rel=1e-9)


RATES = {"lr": st.floats(1e-5, 0.1), "wd": st.floats(1e-3, 5.0), "beta": st.floats(0, 0.999)}


@given(**RATES)
def test_lion_with_equal_betas_is_signum(lr, wd, beta):
    one, other = lion_equilibrium(lr, wd, (beta, beta), 3), signum_equilibrium(lr, wd, beta, 3)
    assert (one.norm, one.angle) == pytest.approx((other.norm, other.angle), rel=1e-6)


@given(**RATES, scale=st.floats(0.1, 10.0))
def test_scaling_and_monotonicity(lr, wd, beta, scale):
    law = signum_equilibrium(lr, wd, beta, 10)
    moved = signum_equilibrium(scale * lr, wd / scale, beta, 10)
    assert (moved.norm, moved.angle) == pytest.approx((scale * law.norm, law.angle), rel=1e-6)
    assert signum_equilibrium(lr, 1.2 * wd, beta, 10).norm < law.norm < signum_equilibrium(lr, wd, beta, 11).norm
    assert signum_equilibrium(lr, 1.2 * wd, beta, 10).angle > law.angle
    assert signum_equilibrium(1.2 * lr, wd, beta, 10).norm > law.norm


@pytest.mark.parametrize(
    "call",
    [
        lambda: arcsine(1.1),
        lambda: lion_equilibrium(0.1, 0.0, (0.9, 0.99), 4),
        lambda: lion_equilibrium(0.1, 0.1, (0.9, 1.0), 4),
        lambda: signum_equilibrium(0.1, 10.0, 0.9, 4),
        lambda: signum_equilibrium(0.1, 0.1, 0.9, 0),
    ],
)
def test_bad_input_gets_one_sentence(call):
    with pytest.raises(InputError, match=r"is not allowed: it must be .*[^.]\.?$"):
        call()
