"""Fixed norm: against a transcription of the projected step, and the decayed walk that it amounts to."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory import hyperball_angle, normalized_momentum_equilibrium
from theory.errors import InputError


@pytest.mark.parametrize(("lr", "beta"), [(0.05, 0.9), (0.3, 0.5), (0.2, 0.0)])
def test_the_projected_step_turns_so_fast(lr, beta):
    rng = np.random.default_rng(0)
    d, radius = 20_000, 3.0
    w, m = rng.standard_normal(d), np.zeros(d)
    w *= radius / np.linalg.norm(w)
    chords = []
    for _ in range(1_000):
        m = beta * m + (1 - beta) * rng.standard_normal(d)
        new = w - lr * radius * m / np.linalg.norm(m)
        new *= radius / np.linalg.norm(new)
        chords.append(np.linalg.norm(new - w) ** 2 / radius**2)
        w = new
    measured = 2 * math.asin(math.sqrt(np.mean(chords[400:])) / 2)
    assert hyperball_angle(lr, beta).angle == pytest.approx(measured, rel=0.002)  # bar 0.2 %, theory.md 2.10


@given(lr=st.floats(1e-4, 0.9), beta=st.floats(0, 0.95))
def test_it_is_a_decayed_walk_of_norm_one(lr, beta):
    law = hyperball_angle(lr, beta)
    a = law.shrink
    if 1 - a < 1e-6:  # 1 - a is known to rounding only
        return
    walk = normalized_momentum_equilibrium(a * lr, (1 - a) / (a * lr), beta)
    assert walk.norm == pytest.approx(1.0, rel=1e-8)
    assert walk.angle == pytest.approx(law.angle, rel=1e-8)


@given(lr=st.floats(1e-12, 10.0))
def test_without_momentum_the_angle_is_an_arctangent(lr):
    assert hyperball_angle(lr, 0.0).angle == pytest.approx(math.atan(lr), rel=1e-10)


@given(lr=st.floats(1e-10, 1.0), beta=st.floats(0, 0.99))
def test_monotone_and_below_the_step(lr, beta):
    angle = hyperball_angle(lr, beta).angle
    assert 0 < angle <= lr * (1 + 1e-12)
    assert hyperball_angle(1.1 * lr, beta).angle > angle
    assert hyperball_angle(lr, beta / 2).angle >= angle * (1 - 1e-12)


def test_no_step_no_rotation():
    assert hyperball_angle(0.0, 0.9).angle == 0.0
    assert hyperball_angle(1e-8, 0.9).angle == pytest.approx(1e-8, rel=1e-6)  # leading order


@pytest.mark.parametrize(("lr", "momentum"), [(-0.1, 0.0), (0.1, 1.0), (float("nan"), 0.5)])
def test_bad_input_gets_one_sentence(lr, momentum):
    with pytest.raises(InputError, match="is not allowed: it must be"):
        hyperball_angle(lr, momentum)
