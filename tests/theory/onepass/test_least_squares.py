"""One-pass least squares: against SGD on Gaussian data, Isserlis' tensor in a rotated basis, and linear solves."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import ortho_group

from theory import bias_variance, least_squares_stationary, least_squares_trajectory
from theory.errors import InputError

H = np.array([1.0, 0.3, 0.05])
TARGET = np.array([1.0, -0.5, 2.0])
COSINE = {"kind": "cosine", "peak": 0.4, "steps": 40, "warmup": 5}


@pytest.mark.parametrize(("decay", "batch"), [(0.0, 1), (0.3, 2), (0.05, 8)])
def test_against_sgd_on_gaussian_data(decay, batch):
    """20,000 runs on fresh data; within 4.5 standard errors at each of four steps, last and averaged iterate."""
    rng, runs, noise = np.random.default_rng(0), 20_000, 0.5
    lrs = 0.3 * np.linspace(1.0, 0.2, 30)
    w, total = np.zeros((runs, 3)), np.zeros((runs, 3))
    law = least_squares_trajectory(H, lrs, decay, TARGET, noise, batch)
    for t, lr in enumerate(lrs):
        x = rng.standard_normal((runs, batch, 3)) * np.sqrt(H)
        y = x @ TARGET + math.sqrt(noise) * rng.standard_normal((runs, batch))
        residual = np.einsum("rbd,rd->rb", x, w) - y
        w = w - lr * (np.einsum("rb,rbd->rd", residual, x) / batch + decay * w)
        total += w
        if t in (0, 4, 14, 29):
            for point, expected in ((w, law.excess[t]), (total / (t + 1), law.excess_average[t])):
                risks = 0.5 * (point - TARGET) ** 2 @ H
                error = risks.std(ddof=1) / math.sqrt(runs)
                assert error < 0.02 * risks.mean()
                assert abs(expected - risks.mean()) < 4.5 * error


def _moments(covariance, target, lrs, decay, noise, batch):
    """E of (1, w, S) outer itself for dense covariance; the fourth moment by Isserlis, all pairings spelt out."""
    d = len(target)
    c = covariance
    fourth = np.einsum("ij,kl->ijkl", c, c) + np.einsum("ik,jl->ijkl", c, c) + np.einsum("il,jk->ijkl", c, c)
    state = np.zeros((1 + 2 * d, 1 + 2 * d))  # order: 1, w, S
    state[0, 0] = 1.0
    last, averaged = [], []
    for t, lr in enumerate(lrs):
        step = np.eye(1 + 2 * d)
        step[1 : d + 1, 1 : d + 1] = (1 - lr * decay) * np.eye(d) - lr * c
        step[1 : d + 1, 0] = lr * c @ target
        step[d + 1 :, : d + 1] = step[1 : d + 1, : d + 1]
        lift = np.concatenate([-target[:, None], np.eye(d)], axis=1)
        delta = lift @ state[: d + 1, : d + 1] @ lift.T  # E delta delta'
        sampled = np.einsum("ijkl,jk->il", fourth, delta) - c @ delta @ c + noise * c  # Cov of x (x.delta - xi)
        state = step @ state @ step.T
        for a in (slice(1, d + 1), slice(d + 1, None)):
            for b in (slice(1, d + 1), slice(d + 1, None)):
                state[a, b] += lr**2 / batch * sampled
        last.append(0.5 * np.trace(c @ lift @ state[: d + 1, : d + 1] @ lift.T))
        at = np.r_[0, d + 1 : 2 * d + 1]
        mean = np.concatenate([-target[:, None], np.eye(d) / (t + 1)], axis=1)
        averaged.append(0.5 * np.trace(c @ mean @ state[np.ix_(at, at)] @ mean.T))
    return np.array(last), np.array(averaged)


@pytest.mark.parametrize(("decay", "batch", "noise"), [(0.0, 1, 0.2), (0.3, 3, 0.0), (2.0, 16, 0.7)])
def test_against_isserlis_tensor_in_a_rotated_basis(decay, batch, noise):
    basis = ortho_group.rvs(3, random_state=1)
    lrs = 0.4 * np.cos(np.linspace(0, 1.5, 40)) ** 2
    last, averaged = _moments(basis * H @ basis.T, basis @ TARGET, lrs, decay, noise, batch)
    law = least_squares_trajectory(H, lrs, decay, TARGET, noise, batch)
    np.testing.assert_allclose(law.excess, last, rtol=1e-10)
    np.testing.assert_allclose(law.excess_average, averaged, rtol=1e-10)


@given(
    decay=st.floats(0, 2),
    noise=st.floats(0, 3),
    batch=st.integers(1, 50),
    target=st.lists(st.floats(-3, 3), min_size=3, max_size=3),
)
def test_bias_and_variance_add_up(decay, noise, batch, target):
    inputs = (H, COSINE, decay, target, noise, batch)
    whole, parts = least_squares_trajectory(*inputs), bias_variance(*inputs)
    np.testing.assert_allclose(parts.bias + parts.variance, whole.excess, rtol=1e-12, atol=1e-300)
    np.testing.assert_allclose(
        parts.bias_average + parts.variance_average, whole.excess_average, rtol=1e-12, atol=1e-300
    )
    for part in (parts.bias, parts.variance, parts.bias_average, parts.variance_average):
        assert np.all(part >= 0)


def test_bias_of_many_samples_is_that_of_gradient_descent_and_ends_at_ridge():
    """With B -> infinity there is no sampling noise: w follows gradient descent to h w*/(h + wd)."""
    lrs, decay, w, seen = np.full(2_000, 0.5), 0.1, np.zeros(3), []
    for lr in lrs:
        w = w - lr * (H * (w - TARGET) + decay * w)
        seen.append(0.5 * H @ (w - TARGET) ** 2)
    law = bias_variance(H, lrs, decay, TARGET, noise_variance=1.0, batch_size=10**15)
    np.testing.assert_allclose(law.bias, seen, rtol=1e-10)
    assert law.bias[-1] == pytest.approx(0.5 * H @ (decay * TARGET / (H + decay)) ** 2, rel=1e-10)
    assert np.all(law.variance < 1e-14)


def test_a_step_onto_the_target_leaves_no_negative_risk():
    """lr*h = 1 takes the mean to w* at once: the risk is a small difference of large numbers, but not below 0."""
    run = least_squares_trajectory([1.0], [1.0] * 3, 1e-9, [1e6], 0.0, batch_size=10**18)
    assert np.all(run.excess >= 0)
    assert run.excess[0] == pytest.approx(0.5 * (1e12 / 1e18 * 2), rel=1e-6)  # E[(x^2 - 1)^2] = 2, over B


@pytest.mark.parametrize(("lr", "batch"), [(0.2, 1), (0.9, 4), (1.5, 64)])
def test_stationary_is_where_the_trajectory_ends_and_what_the_linear_system_says(lr, batch):
    noise = 0.4
    law = least_squares_stationary(H, lr, noise, batch).excess
    run = least_squares_trajectory(H, np.full(6_000, lr), 0.0, TARGET, noise, batch, steps=[5_999])
    assert law == pytest.approx(run.excess[0], rel=1e-9)
    second = np.linalg.solve(np.eye(3) - _second_moment_map(H, lr, batch), lr**2 * H * noise / batch)
    assert law == pytest.approx(0.5 * H @ second, rel=1e-12)


def _second_moment_map(h, lr, batch):
    return np.diag((1 - lr * h) ** 2 + (lr * h) ** 2 / batch) + lr**2 / batch * np.outer(h, h)


@given(
    lr=st.floats(0.01, 3),
    h=st.lists(st.floats(0.05, 1), min_size=1, max_size=8),
    batch=st.sampled_from([1, 2, 5, 40]),
)
def test_it_is_refused_exactly_where_the_recursion_is_unstable(lr, h, batch):
    h = np.array(h)
    radius = np.abs(np.linalg.eigvals(_second_moment_map(h, lr, batch))).max()
    assume(abs(radius - 1) > 1e-9)
    if radius < 1:
        assert least_squares_stationary(h, lr, 1.0, batch).excess > 0
    else:
        with pytest.raises(InputError, match="unstable"):
            least_squares_stationary(h, lr, 1.0, batch)


@pytest.mark.parametrize("batch", [1, 8])
def test_small_rates_follow_the_quarter_trace_rule_to_first_order(batch):
    def missing(lr):
        return 1 - lr * H.sum() / (4 * batch) / least_squares_stationary(H, lr, 1.0, batch).excess

    slope = (1 + 1 / batch) / 2 * (H @ H) / H.sum() + H.sum() / (2 * batch)  # of S and of S^2 in the excess
    assert missing(1e-5) == pytest.approx(1e-5 * slope, rel=1e-4)


def test_how_low_the_rule_is_at_batches_of_one():
    """The docstring's numbers: from many equal eigenvalues to a single one, at lr*tr H = 0.1 and 0.5."""
    for trace, many, one in ((0.1, 0.05, 0.15), (0.5, 0.25, 0.75)):
        for h, expected in ((np.full(10_000, 1e-4), many), (np.ones(1), one)):
            exact = least_squares_stationary(h, trace, 1.0, batch_size=1).excess
            assert 1 - trace / 4 / exact == pytest.approx(expected, abs=1e-4)


def test_extremes():
    still = least_squares_trajectory(H, [0.0] * 5, 0.3, TARGET, 1.0, batch_size=1)
    np.testing.assert_allclose([still.excess, still.excess_average], 0.5 * H @ TARGET**2, rtol=1e-14)
    one = least_squares_trajectory(H, [0.2], 0.0, TARGET, 1.0, batch_size=1)
    assert one.excess.shape == (1,)
    assert one.excess == one.excess_average
    nothing = least_squares_trajectory([0.0], [0.1] * 3, 0.0, [1.0], 1.0, batch_size=1)
    assert np.all(nothing.excess == 0)
    assert least_squares_stationary(H, 0.0, 1.0, batch_size=1).excess == 0
    assert least_squares_stationary(H, 0.1, 0.0, batch_size=1).excess == 0
    assert least_squares_trajectory(H, COSINE, 0.1, TARGET, 1.0, 2, steps=[39, 3]).step.tolist() == [39, 3]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: least_squares_trajectory(H, [50.0] * 500, 0.0, TARGET, 1.0, 1), "overflows at step"),
        (lambda: least_squares_trajectory(H, [0.1], 0.0, [1e200] * 3, 1.0, 1), "overflows at step 0"),
        (lambda: least_squares_trajectory(H, [0.1], 0.0, [1.0, 1.0], 1.0, 1), "w_star"),
        (lambda: least_squares_trajectory(H, [0.1], 0.0, [1.0, 1.0, math.nan], 1.0, 1), "w_star"),
        (lambda: least_squares_trajectory(H, [0.1], 0.0, "true weights", 1.0, 1), "w_star"),
        (lambda: least_squares_trajectory([-1.0], [0.1], 0.0, [1.0], 1.0, 1), "eigenvalues"),
        (lambda: least_squares_trajectory(H, [-0.1], 0.0, TARGET, 1.0, 1), "schedule"),
        (lambda: least_squares_trajectory(H, [], 0.0, TARGET, 1.0, 1), "schedule"),
        (lambda: least_squares_trajectory(H, [0.1], -1.0, TARGET, 1.0, 1), "weight_decay"),
        (lambda: least_squares_trajectory(H, [0.1], 0.0, TARGET, -1.0, 1), "noise_variance"),
        (lambda: least_squares_trajectory(H, [0.1], 0.0, TARGET, 1.0, 0), "batch_size"),
        (lambda: least_squares_trajectory(H, [0.1], 0.0, TARGET, 1.0, 1, steps=[1]), "steps"),
        (lambda: bias_variance(H, [0.1], 0.0, TARGET, math.inf, 1), "noise_variance"),
        (lambda: bias_variance(H, [0.1], 0.0, "true weights", 1.0, 1), "w_star"),
        (lambda: least_squares_stationary(H, -0.1, 1.0, 1), "lr"),
        (lambda: least_squares_stationary([1e300], 1e300, 1.0, 1), "unstable"),
        (lambda: least_squares_stationary(H, 0.1, 1.0, -1), "batch_size"),
        (lambda: least_squares_stationary([], 0.1, 1.0, 1), "eigenvalues"),
    ],
)
def test_bad_input_gets_one_sentence(call, words):
    with pytest.raises(InputError, match=words):
        call()
