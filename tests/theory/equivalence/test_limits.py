"""What the twins must be in their limits, under any schedule, and where there is none."""

import re

import mpmath
import numpy as np
import pytest
import sympy as sp
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from theory import (
    adamw_exponential_lr,
    lion_exponential_lr,
    lion_exponential_schedule,
    sgd_exponential_lr,
    sgd_exponential_schedule,
)
from theory.equivalence.run import SMALLEST
from theory.errors import InputError

# steps that stand still are part of any schedule
RATES = arrays(np.float64, st.integers(1, 30), elements=st.just(0.0) | st.floats(1e-3, 0.3))
MOMENTA, BETAS = st.floats(0.0, 0.95), st.tuples(st.floats(0.0, 0.99), st.floats(0.0, 0.999))
DAMPENINGS = st.floats(0.0, 1.0)


def decayed_alone(optimizer, lrs):
    """Where torch's optimizer takes a weight of 1 under decay alone, after each step."""
    w = optimizer.param_groups[0]["params"][0]
    path = []
    for lr in lrs:
        optimizer.param_groups[0]["lr"] = float(lr)
        w.grad = torch.zeros_like(w)
        optimizer.step()
        path.append(w.item())
    return np.array(path)


def betas_of(twin):
    assert twin.betas is not None
    return twin.betas


def one():
    return [torch.nn.Parameter(torch.ones(1, dtype=torch.float64))]


@given(RATES, MOMENTA, DAMPENINGS, BETAS, st.floats(0, 1e-3))
def test_without_decay_it_is_the_same_run(lrs, momentum, dampening, betas, eps):
    twins = (
        sgd_exponential_schedule(lrs, 0.0, momentum, dampening),
        adamw_exponential_lr(lrs, 0.0, betas, eps),
        lion_exponential_schedule(lrs, 0.0, betas),
    )
    for twin in twins:
        np.testing.assert_allclose(twin.lr, lrs, rtol=1e-11)  # 30 steps of rounding, over 1 - beta2 >= 1e-3
        np.testing.assert_array_equal(twin.norm_ratio, 1.0)
        assert twin.initial_buffer is None
    for twin in twins[1:]:
        np.testing.assert_allclose(betas_of(twin), np.tile(betas, (len(lrs), 1)), rtol=1e-11)
    assert twins[1].eps == pytest.approx(np.full(len(lrs), eps), rel=1e-11)
    constant = sgd_exponential_lr(0.1, 0.0, momentum)
    assert (constant.alpha, constant.buffer_coefficient) == (1.0, 0.0)
    constant = lion_exponential_lr(0.1, 0.0, betas)
    assert constant.growth == 1.0
    assert constant.betas == pytest.approx(betas, rel=1e-12)


@given(RATES, st.floats(0.01, 3.0), MOMENTA, DAMPENINGS)
def test_sgd_ratio_is_a_weight_under_decay_alone(lrs, wd, momentum, dampening):
    """The twin exists as long as torch keeps a weight without gradient on its side of zero, and the error says so."""
    path = decayed_alone(torch.optim.SGD(one(), 0.1, momentum, dampening, wd), lrs)
    assume(np.min(np.abs(path)) > 1e-9)  # on zero itself rounding decides
    crossed = np.flatnonzero(path <= 0)
    if len(crossed):
        with pytest.raises(InputError, match=f"weights through zero at step {crossed[0]} "):
            sgd_exponential_schedule(lrs, wd, momentum, dampening)
    else:
        ratio = sgd_exponential_schedule(lrs, wd, momentum, dampening).norm_ratio
        np.testing.assert_allclose(ratio, path, rtol=1e-9, atol=1e-15)


@given(RATES, st.floats(0.0, 3.0), BETAS)
def test_decoupled_ratio_is_a_weight_under_decay_alone(lrs, wd, betas):
    path = decayed_alone(torch.optim.AdamW(one(), weight_decay=wd), lrs)
    np.testing.assert_allclose(adamw_exponential_lr(lrs, wd, betas).norm_ratio, path, rtol=1e-12)
    np.testing.assert_allclose(lion_exponential_schedule(lrs, wd, betas).norm_ratio, path, rtol=1e-12)


@given(RATES, st.floats(0.0, 0.1), st.floats(0.0, 0.1), st.floats(0.0, 0.5), DAMPENINGS, BETAS)
def test_ratio_falls_with_time_and_with_decay(lrs, weak, more, momentum, dampening, betas):
    for law in (
        lambda wd: sgd_exponential_schedule(lrs, wd, momentum, dampening).norm_ratio,
        lambda wd: adamw_exponential_lr(lrs, wd, betas).norm_ratio,
        lambda wd: lion_exponential_schedule(lrs, wd, betas).norm_ratio,
    ):
        ratio, smaller = law(weak), law(weak + more)
        assert np.all(np.diff(ratio, prepend=1.0) <= 0)
        assert np.all(smaller <= ratio * (1 + 1e-14))
        assert np.all(ratio > 0)


@given(RATES, st.floats(0.01, 1.0), st.sampled_from([0.0, 0.5]))
def test_no_momentum_is_the_limit_of_little(lrs, wd, dampening):
    plain = sgd_exponential_schedule(lrs, wd)
    # the buffer remembers a share 1e-9 of the last step: at most 0.3/0.7^2 of it in each of 30 steps
    little = sgd_exponential_schedule(lrs, wd, 1e-9)
    np.testing.assert_allclose(little.norm_ratio, plain.norm_ratio, rtol=3e-8)
    np.testing.assert_allclose(little.lr, plain.lr, rtol=6e-8)
    # torch ignores dampening without momentum
    np.testing.assert_array_equal(sgd_exponential_schedule(lrs, wd, 0.0, dampening).lr, plain.lr)
    assert sgd_exponential_lr(0.1, wd, 1e-9).alpha == pytest.approx(1 - 0.1 * wd, rel=1e-8)
    assert sgd_exponential_lr(0.1, wd).alpha == pytest.approx(1 - 0.1 * wd, rel=1e-15)
    assert sgd_exponential_lr(0.1, wd).buffer_coefficient == 0.0


@given(RATES, st.floats(0.0, 3.0), st.floats(0.0, 0.1))
def test_without_memory_only_rate_and_eps_change(lrs, wd, eps):
    size = np.append(1.0, np.cumprod(1 - lrs * wd))
    adam, lion = adamw_exponential_lr(lrs, wd, (0.0, 0.0), eps), lion_exponential_schedule(lrs, wd, (0.0, 0.0))
    for twin in (adam, lion):
        np.testing.assert_allclose(twin.lr, lrs / size[1:], rtol=1e-13)
        np.testing.assert_array_equal(betas_of(twin), 0.0)
    assert adam.eps == pytest.approx(eps * size[:-1], rel=1e-13, abs=0)


@given(RATES, st.floats(0.0, 3.0), st.floats(0.0, 0.99))
def test_signum_keeps_one_beta(lrs, wd, beta):
    betas = betas_of(lion_exponential_schedule(lrs, wd, (beta, beta)))
    np.testing.assert_allclose(betas[:, 0], betas[:, 1], rtol=1e-13)
    assert lion_exponential_lr(0.1, wd, (beta, beta)).betas == pytest.approx([(1 - 0.1 * wd) * beta] * 2, rel=1e-13)


@given(st.floats(0.05, 0.95), st.floats(1e-12, 0.999), st.floats(1e-3, 10.0))
def test_constants_of_sgd(momentum, fraction, lr):
    """The larger root, and the buffer on it, to all digits: also where lr*wd is tiny and both would cancel."""
    wd = fraction * (1 - momentum**0.5) ** 2 / lr
    got = sgd_exponential_lr(lr, wd, momentum)
    with mpmath.workdps(60):
        mu, eta, s = mpmath.mpf(momentum), mpmath.mpf(lr), mpmath.mpf(lr) * mpmath.mpf(wd)
        alpha = (1 + mu - s + mpmath.sqrt((1 + mu - s) ** 2 - 4 * mu)) / 2
        buffer = (alpha - 1 + s) / (mu * eta)
        # near the double root the square root loses half of the digits left of 1 - fraction >= 1e-3
        assert got.alpha == pytest.approx(float(alpha), rel=1e-11, abs=0)
        assert got.buffer_coefficient == pytest.approx(float(buffer), rel=1e-11, abs=0)


@given(st.floats(0.05, 0.9), st.floats(0.05, 0.95))
def test_alpha_converges_at_mu_over_alpha_squared(momentum, fraction):
    wd = fraction * (1 - momentum**0.5) ** 2
    alpha = sgd_exponential_lr(1.0, wd, momentum).alpha
    ratio = sgd_exponential_schedule(np.ones(25), wd, momentum).norm_ratio
    steps = ratio / np.append(1.0, ratio[:-1])
    left = steps - alpha
    seen = np.abs(left[:-1]) > 1e-7  # below, rounding of 1e-16 would show in the rate
    assert steps[0] == pytest.approx(1 - wd, rel=1e-14)
    assert np.count_nonzero(seen) >= 2
    # alpha_t = 1 + mu - lr*wd - mu/alpha_{t-1}, less the same for alpha
    rate = left[1:][seen] / left[:-1][seen]
    np.testing.assert_allclose(rate, (momentum / (alpha * steps[:-1]))[seen], rtol=1e-6)
    assert np.all(rate < momentum / alpha**2 * (1 + 1e-6))
    np.testing.assert_allclose(rate[-1], momentum / alpha**2, rtol=2 * left[:-1][seen][-1] / alpha)


@given(st.floats(0.001, 0.3), BETAS)
def test_betas_converge_to_those_of_constant_rates(shrink, betas):
    """1/(1-beta'_t) obeys a linear recursion: from 1/(1-beta) to 1/(1-r) like r^t, r = a*beta1 and a^2*beta2."""
    a, t = 1 - shrink, np.arange(200)
    lrs = np.full(200, 0.1)
    for (b1, b2), got in (
        ((a * betas[0], a * a * betas[1]), betas_of(adamw_exponential_lr(lrs, shrink / 0.1, betas))),
        ((None, a * betas[1]), betas_of(lion_exponential_schedule(lrs, shrink / 0.1, betas))),
    ):
        for r, beta, column in ((b1, betas[0], got[:, 0]), (b2, betas[1], got[:, 1])):
            if r is not None:
                memory = 1 / (1 - r) + (1 / (1 - beta) - 1 / (1 - r)) * r**t
                np.testing.assert_allclose(1 / (1 - column), memory, rtol=1e-10)
    constants = lion_exponential_lr(0.1, shrink / 0.1, betas).betas
    np.testing.assert_allclose(got[-1], constants, atol=(a * betas[1]) ** 199 * 1e3 + 1e-13)


@given(RATES, st.integers(0, 2**32 - 1), MOMENTA, DAMPENINGS, BETAS)
def test_any_schedule_on_the_sphere(train, sphere, lion, lrs, seed, momentum, dampening, betas):
    """Standing still included: the twin ends where torch's decayed optimizer does."""
    random, steps = np.random.default_rng(seed), len(lrs)
    start, loss = [torch.tensor(random.normal(size=8))], sphere(random.normal(size=(steps, 8)))
    decays = random.uniform(0, 0.3, size=steps) * (1 - momentum**0.5) ** 2
    pairs = (
        (
            lambda w: torch.optim.SGD(w, momentum=momentum, dampening=dampening),
            lambda w: torch.optim.SGD(w, momentum=momentum, dampening=dampening),
            sgd_exponential_schedule(lrs, decays, momentum, dampening),
        ),
        (
            lambda w: torch.optim.AdamW(w, betas=betas, eps=1e-3),
            torch.optim.Adam,
            adamw_exponential_lr(lrs, decays, betas, 1e-3),
        ),
        (lambda w: lion(w, betas=betas), lion, lion_exponential_schedule(lrs, decays, betas)),
    )
    for decayed, plain, twin in pairs:
        run = train(decayed, start, loss, steps, {"lr": lrs, "weight_decay": decays})
        other = train(plain, start, loss, steps, twin)
        assert np.max(run.gap(other)) < 1e-8  # theory.md 5
        np.testing.assert_allclose(run.norms[:, 0] / other.norms[:, 0], twin.norm_ratio, rtol=1e-8)


@given(st.floats(0.05, 0.95), st.floats(1.01, 50.0))
def test_no_real_twin_of_an_oscillating_weight(momentum, excess):
    """Beyond lr*wd = (1-sqrt(mu))^2 the roots are complex: decay alone turns the weight over within half a period."""
    shrink = excess * (1 - momentum**0.5) ** 2
    assume(shrink < 1)
    with pytest.raises(InputError, match=re.escape(f"lr * weight_decay = {shrink:g} is not allowed: it must be at")):
        sgd_exponential_lr(1.0, shrink, momentum)
    half_period = np.pi / np.arccos((1 + momentum - shrink) / (2 * momentum**0.5))
    lrs = np.ones(int(half_period) + 2)
    crossed = np.flatnonzero(decayed_alone(torch.optim.SGD(one(), 1.0, momentum, weight_decay=shrink), lrs) <= 0)
    with pytest.raises(InputError, match=f"no real twin exists: .* at step {crossed[0]} "):
        sgd_exponential_schedule(lrs, shrink, momentum)
    assert len(sgd_exponential_schedule(lrs[: crossed[0]], shrink, momentum).lr) == crossed[0]  # shorter, there is


@pytest.mark.parametrize("momentum", [0.0625, 0.25, 0.5625])
def test_at_the_limit_there_is_one(momentum):
    """(1-sqrt(mu))^2 itself, exact in binary: the double root sqrt(mu)."""
    root = momentum**0.5
    assert sgd_exponential_lr(1.0, (1 - root) ** 2, momentum).alpha == root
    t = np.arange(1, 41)
    ratio = sgd_exponential_schedule(np.ones(40), (1 - root) ** 2, momentum).norm_ratio
    np.testing.assert_allclose(ratio, root**t * (1 + t * (1 - root)), rtol=1e-11)  # the double root's own solution


@pytest.mark.parametrize("law", [sgd_exponential_schedule, adamw_exponential_lr, lion_exponential_schedule])
def test_the_twin_ends_before_floating_point(law):
    longest = int(np.floor(np.log(SMALLEST) / np.log(0.5)))
    twin = law(np.full(longest, 0.5), 1.0)
    assert all(np.all(np.isfinite(values)) for values in (twin.lr, twin.norm_ratio))
    assert np.all(twin.lr > 0)
    with pytest.raises(InputError, match=f"the run must be at most {longest} steps long"):
        law(np.full(longest + 10, 0.5), 1.0)


def test_nesterov_has_no_twin_but_itself():
    """Four coefficients of one recursion, matched with lr_t = lr' * growth^t and momentum m, leave only lr*wd = 0."""
    mu, a, alpha, m, lr, new, growth = sp.symbols("mu a alpha m lr lr_new growth", positive=True)
    # w_{t+1} = (1+mu) a w_t - mu a w_{t-1} - lr (1+mu) g_t + lr mu g_{t-1}, a = 1 - lr*wd, with w_t = alpha^t W_t and
    # gradients alpha^t times larger at W_t, against the same recursion without decay, at t = 0
    equations = [
        (1 + mu) * a / alpha - (1 + m * growth),
        mu * a / alpha**2 - m * growth,
        lr * (1 + mu) / alpha - new * (1 + m),
        lr * mu - new * m,
        growth - alpha**-2,
    ]
    solutions = sp.solve(equations, [a, alpha, m, new, growth], dict=True)
    assert solutions == [{a: 1, alpha: 1, m: mu, new: lr, growth: 1}]
