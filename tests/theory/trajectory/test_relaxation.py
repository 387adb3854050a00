"""Relaxation: against displaced runs of the exact recursions, and its leading forms."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory import adamw_equilibrium, adamw_trajectory, relaxation_time, sgd_equilibrium, sgd_trajectory
from theory.errors import InputError


def e_folding(norms, rest, begin, end):
    """Steps in which a displacement of the squared norm falls by e, from two points of a trajectory."""
    first, last = norms[begin] ** 2 - rest, norms[end] ** 2 - rest
    return (end - begin) / math.log(first / last)


@pytest.mark.parametrize(
    ("momentum", "wd", "invariant"),
    [(0.0, 0.01, True), (0.9, 0.0004, True), (0.9, 0.004, True), (0.9, 0.004, False), (0.5, 0.1, False)],
)
def test_sgd_returns_in_that_time(momentum, wd, invariant):
    moment = {"c2": 1.0} if invariant else {"g2": 1.0}
    rest = sgd_equilibrium(0.1, wd, momentum, **moment).norm ** 2
    law = relaxation_time("sgd", 0.1, wd, momentum, scale_invariant=invariant).steps
    begin, end = int(2 * law) + 50, int(3.5 * law) + 50  # the buffer has settled, the displacement is small
    run = sgd_trajectory([0.1] * (end + 1), wd, momentum, norm0=math.sqrt(1.02 * rest), **moment)
    assert law == pytest.approx(e_folding(run.norm, rest, begin, end), rel=0.01)


def test_the_short_form_fails_where_momentum_is_long():
    # (1-mu)/(4 lr wd) is 23 % too long at lr*wd = 4e-4, mu = 0.9, where the recursion decides (test above)
    assert relaxation_time("sgd", 0.1, 0.004, 0.9).steps < 0.82 * 0.1 / (4 * 0.1 * 0.004)


def test_adamw_returns_in_that_time():
    lr, wd = 0.01, 0.2
    norm0 = adamw_equilibrium(lr, wd, (0.9, 0.99), 16).norm
    law = relaxation_time("adamw", lr, wd).steps
    begin, end = int(2 * law), int(3.5 * law)
    steps = 40 * end  # the last norm is the recursion's own fixed point
    run = adamw_trajectory([lr] * steps, wd, (0.9, 0.99), 1.02 * norm0, 16, scale_invariant=False)
    assert law == pytest.approx(e_folding(run.norm, run.norm[-1] ** 2, begin, end), rel=0.02)  # bar 2 %


def test_coupled_adam_returns_three_times_as_fast_as_its_effective_decay():
    # R' = (1 - lr*wd_eff)^2 R + drive with wd_eff = wd sqrt(R): the equation in the docstring, stepped
    lr, wd, r = 0.01, 0.05, 1.02
    norms = []
    for _ in range(3_000):
        r = r - 2 * lr * wd * math.sqrt(r) * r + 2 * lr * wd
        norms.append(math.sqrt(r))
    assert relaxation_time("adam", lr, wd).steps == pytest.approx(
        e_folding(np.array(norms), 1.0, 1_000, 2_000), rel=0.02
    )


@given(lr=st.floats(1e-4, 0.1), wd=st.floats(1e-6, 1e-3), mu=st.floats(0, 0.5))
def test_leading_forms(lr, wd, mu):
    shrink = lr * wd
    assert relaxation_time("muon", lr, wd).steps == pytest.approx(1 / (2 * shrink), rel=1e-3)
    assert relaxation_time("lion", lr, wd, mu).steps == relaxation_time("signum", lr, wd).steps
    assert relaxation_time("sgd", lr, wd, mu).steps == pytest.approx((1 - mu) / (4 * shrink), rel=0.002)
    fixed = relaxation_time("sgd", lr, wd, mu, scale_invariant=False).steps
    assert fixed == pytest.approx((1 - mu) / (2 * shrink), rel=0.002)


def test_a_run_that_never_settles():
    assert relaxation_time("sgd", 1.0, 1.0).steps == math.inf  # w' = -g alone: |w'||w| = c for ever


@pytest.mark.parametrize("wrong", [("adagrad", 0.1, 0.1), ("adamw", 0.1, 0.0), ("sgd", 0.0, 0.1), ("muon", 2.0, 0.5)])
def test_bad_input_gets_one_sentence(wrong):
    with pytest.raises(InputError, match="is not allowed: it must be"):
        relaxation_time(*wrong)
