"""bfloat16 arithmetic: bit for bit what torch does."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest

from theory.precision.bf16 import normal_sizes, round_bf16, ulp

LARGEST = float(torch.finfo(torch.bfloat16).max)


def _all_finite() -> torch.Tensor:
    """Every finite bfloat16 number, subnormals and both zeros included."""
    values = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    return values[values.isfinite()]


def test_every_bfloat16_number_stays_and_every_midpoint_goes_to_even():
    values = _all_finite().double().unique().numpy()
    np.testing.assert_array_equal(round_bf16(values), values)
    middles = ((values[:-1] + values[1:]) / 2).astype(np.float32)  # 9 bits: exact in float32
    around = np.stack([np.nextafter(middles, np.float32(-np.inf)), middles, np.nextafter(middles, np.float32(np.inf))])
    np.testing.assert_array_equal(round_bf16(around), torch.from_numpy(around).bfloat16().double().numpy())


@given(st.lists(st.floats(-LARGEST, LARGEST), min_size=1, max_size=50))
def test_any_number_goes_where_torch_takes_it(numbers):
    expected = torch.tensor(numbers, dtype=torch.float64).float().bfloat16().double().numpy()
    np.testing.assert_array_equal(round_bf16(numbers), expected)


def test_spacing_is_the_distance_to_the_next_number():
    values = _all_finite()
    normal = values[values >= torch.finfo(torch.bfloat16).tiny][:-1]
    following = (normal.view(torch.int16) + 1).view(torch.bfloat16)
    expected = (following.double() - normal.double()).numpy()
    np.testing.assert_array_equal(ulp(normal.double().numpy()), expected)
    np.testing.assert_array_equal(ulp(-normal.double().numpy()), expected)
    between = 0.5 * (normal.double() + following.double()).numpy()
    np.testing.assert_array_equal(ulp(between), expected)


@pytest.mark.parametrize("count", [64, 4096])
def test_sizes_are_quantiles_of_a_normal(count):
    sizes = normal_sizes(count)
    assert np.all(np.diff(sizes) > 0)
    assert kstest(np.concatenate([sizes, -sizes]), "norm").statistic == pytest.approx(0.25 / count, rel=1e-6)
    assert np.mean(sizes) == pytest.approx(np.sqrt(2 / np.pi), abs=1 / count)
