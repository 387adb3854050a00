from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory.schedules import Cosine, Piecewise
from theory.trajectory.segments import average_step, linear_recursion, nodes, ramps, restarts, segment_sums


@given(begin=st.integers(0, 500), gap=st.integers(0, 50), length=st.integers(1, 5_000), steps=st.integers(1, 10_000))
def test_nodes_lead_from_first_to_end_without_long_strides(begin, gap, length, steps):
    at = nodes(begin, begin + gap, begin + gap + length, steps)
    assert at[0] == begin + gap
    assert at[-1] == begin + gap + length
    strides = np.diff(at)
    assert np.all(strides >= 1)
    assert np.all(strides <= np.maximum(1, np.minimum((at[:-1] - begin) // 48, max(1, steps // 1_000))))


@given(seed=st.integers(0, 99), counts=st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_sums_are_the_recursion_taken_at_once(seed, counts):
    rng, at = np.random.default_rng(seed), np.cumsum([0, *counts])
    factor, source = rng.uniform(0.3, 1.0, at[-1]), rng.normal(size=at[-1])
    products, (sums,) = segment_sums(factor, [source], at)
    y = rest = rng.normal()
    for k, (start, stop) in enumerate(pairwise(at)):
        y = products[k] * y + sums[k]
        for t in range(start, stop):
            rest = factor[t] * rest + source[t]
        assert y == pytest.approx(rest, rel=1e-10, abs=1e-12)
    assert linear_recursion(factor, source)[-1] == pytest.approx(rest - products.prod() * _start(seed, at), abs=1e-10)


def _start(seed, at):
    rng = np.random.default_rng(seed)
    rng.uniform(0.3, 1.0, at[-1])
    rng.normal(size=at[-1])
    return rng.normal()


@given(beta=st.floats(0, 0.999), count=st.integers(1, 60), z=st.floats(0.9, 1.1))
def test_averages_of_geometric_inputs(beta, count, z):
    average = expected = 0.7
    for k in range(count):
        expected = beta * expected + (1 - beta) * 2.0 * z**k
    got = average_step(np.array([average]), beta, count, np.array([2.0]), np.array([z**count]))
    assert got[0] == pytest.approx(expected, rel=1e-6)


def test_average_where_input_and_memory_agree():
    """z = beta is a removable singularity."""
    got = [average_step(np.array([0.0]), 0.95, 10, np.array([1.0]), np.array([z**10]))[0] for z in (0.95, 0.95 + 1e-6)]
    assert got[0] == pytest.approx(got[1], rel=1e-4)


def test_jumps_and_slopes_are_found():
    t = np.arange(1_000)
    jumps = Piecewise(knots=((0, 1.0), (300, 0.5), (310, 0.2), (700, 1.0))).at(t, 1_000)
    assert restarts(jumps) == [0, 300, 700]  # of two close ones the first
    assert ramps(jumps, 10.0) == [290, 690]
    assert restarts(Cosine().at(t, 1_000)) == [0]
    late = ramps(Cosine().at(t, 1_000), 10.0)
    assert len(late) == 1  # towards zero the rate changes by ever more of itself
    assert 500 < late[0] < 1_000
    assert restarts(np.zeros(5)) == [0]
    assert ramps(np.ones(1), 10.0) == []
