"""Residual sums in bfloat16: against torch's own addition."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from theory import residual_precision
from theory.errors import InputError


def _measured(ratio):
    """RMS error of x + f over the RMS of f, 2e6 pairs, and its relative standard error."""
    torch.manual_seed(0)
    x, f = torch.randn(2_000_000).bfloat16(), (ratio * torch.randn(2_000_000)).bfloat16()
    squares = ((x + f).double() - x.double() - f.double()).square()
    size = f.double().square().mean().item()
    mean = squares.mean().item()
    return math.sqrt(mean / size), squares.std().item() / math.sqrt(2_000_000) / mean / 2


@pytest.mark.parametrize("power", [-3, -4, -5, -6, -8, -10, -12])
def test_against_torch(power):
    """Bar 3 % for ratios up to 1/8, theory.md 9.6."""
    measured, error = _measured(2.0**power)
    assert error < 0.005
    assert residual_precision(2.0**power).relative_error == pytest.approx(measured, rel=0.03)


def test_equal_sizes_are_low_by_what_is_said():
    measured, _ = _measured(1.0)
    assert 1 - residual_precision(1.0).relative_error / measured == pytest.approx(0.08, abs=0.02)


def test_quoted_numbers():
    """Theory.md 9.6, to the digits given there."""
    losses = [residual_precision(2.0**k).relative_error for k in (-3, -6, -8, -10)]
    assert losses == pytest.approx([0.013, 0.11, 0.40, 0.80], abs=0.006)


def test_the_two_forms_agree_where_one_replaces_the_other():
    below, above = (residual_precision(r).relative_error for r in (np.nextafter(0.05, 0), 0.05))
    assert below == pytest.approx(above, rel=0.01)  # a third of the law's bar


@given(st.floats(0, 1), st.floats(0, 1))
def test_smaller_branches_lose_more(one, other):
    low, high = sorted((one, other))
    small, large = residual_precision(low).relative_error, residual_precision(high).relative_error
    assert 0 < large <= 1 + 1e-12
    assert small <= 1 + 1e-12
    assert small >= large * (0.99 if low < 0.05 <= high else 1 - 1e-3)  # the averages are over 4,096 sizes


def test_all_of_nothing_is_lost():
    assert residual_precision(0.0).relative_error == 1
    assert residual_precision(1e-300).relative_error == 1


@pytest.mark.parametrize("ratio", [-0.1, 1.01, math.nan, math.inf, "0.5", None])
def test_bad_input_gets_one_sentence(ratio):
    with pytest.raises(InputError, match="is not allowed: it must be"):
        residual_precision(ratio)
