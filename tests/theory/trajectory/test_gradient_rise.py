"""The final rise of gradient norms: against scipy's ODE solver and AdamW's recursion."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.special import gamma

from theory import adamw_equilibrium, adamw_trajectory, gradient_rise
from theory.errors import InputError

RATES = {"linear": lambda s: 1 - s, "cosine": lambda s: 0.5 * (1 + math.cos(math.pi * s))}


@pytest.mark.parametrize("kind", RATES)
@pytest.mark.parametrize("kappa", [0.3, 3.0, 50.0])
def test_it_solves_the_equation(kind, kappa):
    x = RATES[kind]
    slope = lambda s, r: 2 * kappa * (x(s) ** 2 - x(s) * r)
    r = solve_ivp(slope, (0, 1), [1.0], method="Radau", rtol=1e-10, atol=1e-13).y[0, -1]
    assert gradient_rise(kind, kappa).rise == pytest.approx(r**-0.5, rel=1e-7)


@pytest.mark.parametrize("kind", RATES)
def test_adamw_norms_fall_by_as_much(kind):
    peak, wd, steps, d = 0.001, 0.5, 6_000, 64
    start = adamw_equilibrium(peak, wd, (0.9, 0.95), d).norm
    run = adamw_trajectory({"kind": kind, "peak": peak, "steps": steps}, wd, (0.9, 0.95), start, d)
    assert gradient_rise(kind, peak * wd * steps).rise == pytest.approx(start / run.norm[-1], rel=0.01)  # bar 1 %


def test_a_slow_second_moment_damps_the_rise():
    # v lags behind 1/||w||^2 where lr*wd is not small against 1-beta2, which the closed form leaves out
    peak, wd, steps, d = 0.002, 0.5, 5_000, 64
    start = adamw_equilibrium(peak, wd, (0.9, 0.999), d).norm
    run = adamw_trajectory({"kind": "linear", "peak": peak, "steps": steps}, wd, (0.9, 0.999), start, d)
    assert 1.05 < gradient_rise("linear", peak * wd * steps).rise / (start / run.norm[-1]) < 1.08


def test_asymptotics():
    amplitude = math.pi**4 / 24 * gamma(5 / 3) * (6 / math.pi**2) ** (5 / 3)
    assert gradient_rise("linear", 1e6).rise == pytest.approx((4e6 / math.pi) ** 0.25, rel=1e-6)
    assert gradient_rise("cosine", 1e6).rise == pytest.approx(1e2 / math.sqrt(amplitude), rel=1e-4)


@given(kappa=st.floats(0, 1e4), kind=st.sampled_from(sorted(RATES)))
def test_gradients_only_rise_and_more_so_in_longer_runs(kappa, kind):
    assert 1 - 1e-12 <= gradient_rise(kind, kappa).rise <= gradient_rise(kind, 1.5 * kappa + 0.1).rise


def test_bad_input_gets_one_sentence():
    with pytest.raises(InputError, match="must be linear or cosine"):
        gradient_rise("wsd", 1.0)
    with pytest.raises(InputError, match="kappa"):
        gradient_rise("linear", -1.0)
