import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory.errors import InputError
from theory.schedules import Constant, Cosine, InverseSqrt, Linear, Piecewise, WarmupStableDecay


@st.composite
def schedules(draw):
    steps = draw(st.integers(1, 300))
    warmup = draw(st.integers(0, steps))
    fraction = st.floats(0, 1)
    kind = draw(st.sampled_from([Constant, Linear, Cosine, InverseSqrt, WarmupStableDecay, Piecewise]))
    if kind in (Linear, Cosine):
        return kind(warmup, draw(fraction)), steps
    if kind is InverseSqrt:
        return InverseSqrt(warmup, draw(st.none() | st.integers(1, 500))), steps
    if kind is WarmupStableDecay:
        return WarmupStableDecay(warmup, draw(st.integers(0, steps - warmup)), draw(fraction)), steps
    if kind is Piecewise:
        at = sorted(draw(st.sets(st.integers(1, steps - warmup), max_size=4))) if steps > warmup else []
        knots = ((0, draw(fraction)), *((step, draw(fraction)) for step in at))
        return Piecewise(warmup, knots, draw(st.sampled_from(["constant", "linear"]))), steps
    return Constant(warmup), steps


@given(schedules())
def test_multipliers_lie_in_the_unit_interval_and_rise_through_the_warmup(drawn):
    schedule, steps = drawn
    multipliers = schedule.at(np.arange(steps), steps)
    assert multipliers.shape == (steps,)
    assert np.all((multipliers >= 0) & (multipliers <= 1))
    assert multipliers[: schedule.warmup] == pytest.approx(np.arange(1, schedule.warmup + 1) / max(schedule.warmup, 1))
    # any shape of step, in any order
    grid = np.arange(steps)[::-1].reshape(1, -1)
    assert np.array_equal(schedule.at(grid, steps), multipliers[::-1].reshape(1, -1))
    assert float(schedule.at(0, steps)) == multipliers[0]


@given(schedules())
def test_what_only_falls_only_falls(drawn):
    schedule, steps = drawn
    if not isinstance(schedule, Piecewise):
        assert np.all(np.diff(schedule.at(np.arange(schedule.warmup, steps), steps)) <= 1e-15)


def test_shapes_by_hand():
    t = np.arange(10)
    assert Constant().at(t, 10).tolist() == [1] * 10
    assert Linear(final=0.5).at(t, 10) == pytest.approx(1 - 0.05 * t)
    assert Cosine(final=0.2).at(t, 10) == pytest.approx(0.6 + 0.4 * np.cos(np.pi * t / 10))
    assert InverseSqrt(warmup=4).at(t, 10)[4:] == pytest.approx(np.sqrt(4 / t[4:]))
    assert InverseSqrt(timescale=3).at(t, 10) == pytest.approx(np.sqrt(3 / (3 + t)))
    assert WarmupStableDecay(warmup=2, decay=4).at(t, 10).tolist() == [0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25]
    assert WarmupStableDecay(decay=0.4, final=0.5).at(t, 10).tolist() == [1, 1, 1, 1, 1, 1, 1, 0.875, 0.75, 0.625]
    held, joined = (Piecewise(1, ((0, 1.0), (4, 0.2)), kind).at(t, 10) for kind in ("constant", "linear"))
    assert held.tolist() == [1, 1, 1, 1, 1, 0.2, 0.2, 0.2, 0.2, 0.2]
    assert joined[1:6] == pytest.approx([1, 0.8, 0.6, 0.4, 0.2])


def test_decay_is_steps_or_a_fraction():
    assert WarmupStableDecay(decay=3.0) == WarmupStableDecay(decay=3)
    assert np.array_equal(WarmupStableDecay(decay=0.3).at(range(10), 10), WarmupStableDecay(decay=3).at(range(10), 10))
    assert WarmupStableDecay(decay=0.0).at(range(3), 3).tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("schedule", "steps", "words"),
    [
        (Constant(warmup=9), 8, ("warmup = 9", "steps = 8")),
        (Cosine(warmup=9), 8, ("warmup = 9", "steps = 8")),
        (InverseSqrt(warmup=9), 8, ("warmup = 9", "steps = 8")),
        (WarmupStableDecay(warmup=5, decay=4), 8, ("warmup = 5", "decay = 4", "steps = 8")),
        (WarmupStableDecay(warmup=5, decay=0.4), 8, ("decay = 0.4", "steps = 8")),
        (Piecewise(knots=((0, 1.0), (9, 0.1))), 8, ("step 9", "steps = 8")),
        (Piecewise(warmup=2, knots=((0, 1.0), (7, 0.1))), 8, ("step 9", "steps = 8")),
    ],
)
def test_too_long_for_the_run(schedule, steps, words):
    schedule.check(steps + 1)
    for refuse in (lambda: schedule.check(steps), lambda: schedule.at(0, steps)):
        with pytest.raises(InputError) as error:
            refuse()
        assert all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Constant(warmup=-1), ("warmup = -1", ">= 0")),
        (lambda: Constant(warmup=1.5), ("warmup = 1.5", "whole")),  # pyright: ignore
        (lambda: Linear(final=1.1), ("final = 1.1", "<= 1")),
        (lambda: Cosine(final=-0.1), ("final = -0.1", ">= 0")),
        (lambda: InverseSqrt(timescale=0), ("timescale = 0", ">= 1")),
        (lambda: WarmupStableDecay(decay=-1), ("decay = -1", ">= 0")),
        (lambda: WarmupStableDecay(decay=2.5), ("decay = 2.5", "fraction below 1")),
        (lambda: WarmupStableDecay(final=2), ("final = 2", "<= 1")),
        (lambda: Piecewise(knots=()), ("knots = ()", "non-empty")),
        (lambda: Piecewise(knots=((1, 1.0),)), ("knots", "increase from 0")),
        (lambda: Piecewise(knots=((0, 1.0), (5, 0.5), (5, 0.1))), ("knots", "increase from 0")),
        (lambda: Piecewise(knots=((0, 1.5),)), ("knots = 1.5", "<= 1")),
        (lambda: Piecewise(interpolation="cubic"), ("interpolation = 'cubic'", "constant or linear")),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(InputError) as error:
        make()
    assert all(word in str(error.value) for word in words), str(error.value)
