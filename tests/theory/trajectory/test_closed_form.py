"""Closed forms of the norm: against scipy's ODE solver, the exact recursions, and their limits."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.special import gamma

from theory import adamw_trajectory, closed_form_norm, sgd_equilibrium, sgd_trajectory
from theory.equilibrium.adamw import adamw_equilibrium
from theory.errors import InputError


def integrated(rate, kappa, r0, begin, end):
    """dr/ds = 2 kappa (x^2 - x r) by an implicit solver."""
    slope = lambda s, r: 2 * kappa * (rate(s) ** 2 - rate(s) * r)
    return solve_ivp(slope, (begin, end), [r0], method="Radau", rtol=1e-9, atol=1e-12, max_step=0.05).y[0, -1]


KAPPA, START, UNIT = st.floats(0.01, 60), st.floats(0, 3), st.floats(0.05, 0.95)


@given(kappa=KAPPA, r0=START, x=UNIT)
@settings(max_examples=15)
def test_linear_and_warmup_solve_their_equation(kappa, r0, x):
    down = closed_form_norm("linear", kappa, r0, x=x).r
    assert down == pytest.approx(integrated(lambda s: 1 - s, kappa, r0, 0, 1 - x), rel=1e-7)
    up = closed_form_norm("warmup", kappa, r0, x=x).r
    assert up == pytest.approx(integrated(lambda s: s, kappa, r0, 0, x), rel=1e-7)


@given(kappa=KAPPA, r0=START, s=UNIT, floor=UNIT, y=st.floats(1, 20))
@settings(max_examples=15)
def test_cosine_and_inverse_root_solve_their_equation(kappa, r0, s, floor, y):
    rate = lambda q: floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * q))
    along = closed_form_norm("cosine", kappa, r0, floor=floor, s=s).r
    assert along == pytest.approx(integrated(rate, kappa, r0, 0, s), rel=1e-7)
    slow = closed_form_norm("invsqrt", kappa, r0, y=y).r
    assert slow == pytest.approx(integrated(lambda q: q**-0.5, kappa, r0, 1, y), rel=1e-7)


@given(kappa=KAPPA, r0=START, f=UNIT)
@settings(max_examples=15)
def test_plateau_then_decay_solves_its_equation(kappa, r0, f):
    plateau = integrated(lambda s: 1.0, kappa, r0, 0, 1 - f)
    assert closed_form_norm("constant", kappa * (1 - f), r0).r == pytest.approx(plateau, rel=1e-7)
    end = integrated(lambda s: (1 - s) / f, kappa, plateau, 1 - f, 1)
    assert closed_form_norm("wsd", kappa, r0, decay_fraction=f).r == pytest.approx(end, rel=1e-7)


PARAMETERS = {
    "constant": {},
    "linear": {},
    "warmup": {},
    "cosine": {},
    "invsqrt": {"y": 5.0},
    "wsd": {"decay_fraction": 0.3},
}


@pytest.mark.parametrize("kind", PARAMETERS)
def test_all_sizes_of_kappa(kind):
    values = [closed_form_norm(kind, kappa, 0.5, **PARAMETERS[kind]).r for kappa in (0, 1e-12, 0.99e-6, 1.01e-6)]
    assert values[0] == 0.5
    assert values == pytest.approx([0.5] * 4, abs=2e-6)
    slopes = [(values[2] - 0.5) / 0.99e-6, (values[3] - 0.5) / 1.01e-6]
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-4)  # branches meet
    for kappa in (1e3, 1e5, 1e8):
        assert 0 < closed_form_norm(kind, kappa, 0.5, **PARAMETERS[kind]).r <= 1


def test_asymptotics():
    amplitude = math.pi**4 / 24 * gamma(5 / 3) * (6 / math.pi**2) ** (5 / 3)
    assert closed_form_norm("cosine", 1e8, 1.0).r == pytest.approx(amplitude * 1e8 ** (-2 / 3), rel=1e-5)
    assert closed_form_norm("linear", 1e8, 1.0).r == pytest.approx(math.sqrt(math.pi / 4e8), rel=1e-9)
    assert closed_form_norm("invsqrt", 1e4, 9.0, y=4.0).r == pytest.approx(0.5, rel=1e-4)  # quasi-static r = x


@given(kappa=KAPPA, r0=START, kind=st.sampled_from(sorted(PARAMETERS)))
def test_monotone_in_the_start(kappa, r0, kind):
    low, high = (closed_form_norm(kind, kappa, r, **PARAMETERS[kind]).r for r in (r0, r0 + 1))
    assert 0 <= low <= high <= low + 1


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_obeys_it_with_kappa_over_one_minus_momentum(momentum):
    peak, wd, steps = 0.1, 0.01 * (1 - momentum), 4_000
    schedule = {"kind": "cosine", "peak": peak, "steps": steps}
    start = 0.7 * sgd_equilibrium(peak, wd, momentum, c2=1.0).norm
    run = sgd_trajectory(schedule, wd, momentum, norm0=start, c2=1.0)
    r = closed_form_norm("cosine", 2 * peak * wd * steps / (1 - momentum), 0.7**4).r
    ratio = run.norm[-1] / start * 0.7
    assert ratio == pytest.approx(r**0.25, rel=0.002)  # bar 0.2 % in norm, theory.md 3.3


def test_adamw_obeys_it_for_slow_decay():
    peak, wd, steps, d = 0.001, 0.5, 6_000, 64
    start = adamw_equilibrium(peak, wd, (0.9, 0.95), d).norm
    run = adamw_trajectory({"kind": "linear", "peak": peak, "steps": steps}, wd, (0.9, 0.95), start, d)
    r = closed_form_norm("linear", peak * wd * steps, 1.0).r
    assert run.norm[-1] / start == pytest.approx(math.sqrt(r), rel=0.01)  # bar 1 %; v follows 1/||w||^2 fast enough


@pytest.mark.parametrize(
    "call",
    [
        lambda: closed_form_norm("step", 1.0),
        lambda: closed_form_norm("linear", -1.0),
        lambda: closed_form_norm("linear", 1.0, -1.0),
        lambda: closed_form_norm("linear", 1.0, floor=0.1),
        lambda: closed_form_norm("invsqrt", 1.0),
        lambda: closed_form_norm("invsqrt", 1.0, y=0.5),
        lambda: closed_form_norm("cosine", 1.0, floor=2.0),
        lambda: closed_form_norm("wsd", 1.0, decay_fraction=1.5),
        lambda: closed_form_norm("warmup", float("nan")),
    ],
)
def test_bad_input_gets_one_sentence(call):
    with pytest.raises(InputError, match=r"(is not allowed: it must be|does not take) .*\.$"):
        call()


def test_the_end_is_the_default():
    assert closed_form_norm("linear", 2.0, 0.3).r == closed_form_norm("linear", 2.0, 0.3, x=0.0).r
    assert np.isclose(closed_form_norm("linear", 2.0, 0.3, x=1.0).r, 0.3)
