"""The EMA view: against torch.optim.SGD's linear response, impulse responses, and geometric sums."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from theory import direction_autocorrelation, ema_weights, timescale
from theory.errors import InputError
from theory.trajectory.rates import learning_rates

SCHEDULES = [
    {"kind": "constant", "peak": 0.05, "steps": 60},
    {"kind": "linear", "peak": 0.05, "steps": 60},
    {"kind": "cosine", "peak": 0.05, "steps": 60, "warmup": 7},
    {"kind": "wsd", "peak": 0.05, "steps": 60, "warmup": 5, "decay": 20},
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: s["kind"])
def test_torch_weights_are_that_average(schedule):
    # coordinate t is pushed at step t alone, so that the final weights read off c_t; the last one is only shrunk
    wd, steps = 0.8, schedule["steps"]
    w = torch.nn.Parameter(torch.zeros(steps + 1, dtype=torch.float64))
    w.data[-1] = 1.0
    optimizer = torch.optim.SGD([w], lr=1.0, weight_decay=wd)
    for t, lr in enumerate(learning_rates(schedule)):
        optimizer.param_groups[0]["lr"] = float(lr)
        w.grad = torch.zeros_like(w)
        w.grad[t] = -wd  # -u/wd = 1
        optimizer.step()
    seen = w.detach().numpy()
    law = ema_weights(schedule, wd)
    assert law.weight == pytest.approx(seen[:-1], rel=1e-12)
    assert law.initial == pytest.approx(seen[-1], rel=1e-12)
    assert law.n_eff == pytest.approx(seen[:-1].sum() ** 2 / (seen[:-1] ** 2).sum(), rel=1e-12)
    ages = np.arange(steps)[::-1]
    assert law.mean_age == pytest.approx((seen[:-1] * ages).sum() / seen[:-1].sum(), rel=1e-12)


@given(rates=st.lists(st.floats(0, 0.99), min_size=1, max_size=50), wd=st.floats(0, 1))
def test_weights_sum_to_one(rates, wd):
    law = ema_weights(rates, wd)
    assert law.total == pytest.approx(1, abs=1e-12)
    assert 0 <= law.n_eff <= len(rates) * (1 + 1e-9)
    assert 0 <= law.mean_age <= len(rates)


def test_constant_and_linear_rates():
    law = ema_weights({"kind": "constant", "peak": 0.01, "steps": 30_000}, 0.2)
    assert law.n_eff == pytest.approx((2 - 0.002) / 0.002, rel=1e-9)
    assert law.mean_age == pytest.approx(1 / 0.002 - 1, rel=1e-9)
    linear = ema_weights({"kind": "linear", "peak": 0.01, "steps": 4_000}, 0.2)
    assert linear.n_eff == pytest.approx(3_079, abs=1)  # theory.md 6.2: three times as many at the same peak


def test_decay_of_its_own():
    both = ema_weights([0.1, 0.2, 0.1], [0.5, 0.0, 1.0])
    assert both.weight == pytest.approx([0.1 * 0.5 * 0.9, 0.0, 0.1])
    nothing = ema_weights([0.1], 0.0)
    assert (nothing.total, nothing.initial, nothing.n_eff, nothing.mean_age) == (1.0, 1.0, 0.0, 0.0)


RATES = {"lr": st.floats(1e-3, 0.3), "wd": st.floats(0.05, 2.0)}


@given(**RATES, beta=st.floats(0, 0.98))
def test_direction_from_impulse_responses(lr, wd, beta):
    a, reach = 1 - lr * wd, 2_000
    lags = np.array([0, 1, 2, 5, 30, 300])
    m = (1 - beta) * beta ** np.arange(reach + 300)
    response = np.zeros(reach + 300)
    for t in range(1, len(response)):
        response[t] = a * response[t - 1] + m[t - 1]
    covariance = np.array([response[: len(response) - k] @ response[k:] for k in lags])
    expected = covariance / covariance[0]
    if a ** (2 * reach) > 1e-12:  # the sum would be cut short
        return
    assert direction_autocorrelation(lr, wd, beta, lags).cos == pytest.approx(expected, rel=1e-7, abs=1e-12)


@given(beta=st.floats(0.01, 0.99), shift=st.floats(1e-15, 1e-4), sign=st.sampled_from([-1, 1]))
def test_direction_is_smooth_where_momentum_equals_the_shrink(beta, shift, sign):
    lags = np.arange(200)
    lr, k = 1.0, lags
    degenerate = ((k + 1) * beta**k - (k - 1) * beta ** (k + 2.0)) / (1 + beta**2)  # theory.md 6.3, a = beta
    near = direction_autocorrelation(lr, 1 - beta * (1 + sign * shift * (1 - beta)), beta, lags).cos
    assert near == pytest.approx(degenerate, abs=500 * shift + 1e-10)


@given(**RATES, beta=st.floats(0, 0.98))
def test_direction_is_forgotten_monotonically(lr, wd, beta):
    cos = direction_autocorrelation(lr, wd, beta, range(50)).cos
    assert cos[0] == 1
    assert np.all(np.diff(cos) <= 1e-12)
    assert np.all(cos >= 0)


@given(
    lr=st.floats(1e-5, 1),
    wd=st.floats(1e-4, 1),
    batch=st.integers(1, 10**6),
    size=st.integers(1, 10**9),
    k=st.integers(1, 100),
)
def test_timescales(lr, wd, batch, size, k):
    law = timescale(lr, wd, batch, size, 1_000)
    assert law.steps * lr * wd == pytest.approx(1)
    assert law.epochs == pytest.approx(law.steps * batch / size)
    more = timescale(lr, wd, k * batch, size, 1_000 * k)
    assert (more.epochs, more.fraction_of_run) == pytest.approx((k * law.epochs, law.fraction_of_run / k))


def test_coupled_sgd_shrinks_faster_by_its_momentum():
    mu, kappa, lr, wd = 0.9, 0.5, 0.1, 1e-4
    w = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = torch.optim.SGD([w], lr=lr, weight_decay=wd, momentum=mu, dampening=1 - kappa)
    norms = []
    for _ in range(2_000):
        w.grad = torch.zeros_like(w)
        optimizer.step()
        norms.append(w.item())
    measured = 1_000 / math.log(norms[-1_001] / norms[-1])
    tau = timescale(lr, wd, 1, 1, 1, momentum=mu, dampening=1 - kappa).steps
    assert tau == pytest.approx(measured, rel=1e-3)  # lr*wd*kappa*mu/(1-mu)^2 = 5e-4


@pytest.mark.parametrize(
    "call",
    [
        lambda: timescale(0.1, 0.0, 1, 1, 1),
        lambda: timescale(0.1, 0.1, 0, 1, 1),
        lambda: timescale(0.1, 0.1, 1, 1, 0),
        lambda: ema_weights([0.1, 2.0], 0.5),
        lambda: ema_weights([0.1, 0.1], [0.5]),
        lambda: direction_autocorrelation(0.1, 0.1, 0.9, [-1]),
        lambda: direction_autocorrelation(0.1, 0.1, 0.9, [0.5]),
        lambda: direction_autocorrelation(0.1, 0.0, 0.9, [1]),
    ],
)
def test_bad_input_gets_one_sentence(call):
    with pytest.raises(InputError, match="is not allowed: it must be"):
        call()
