"""Rounded steps: against numerical integration of the rounded normal, and torch's own rounding."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from theory import rounding_diffusion, rounding_drift_gain
from theory.errors import InputError
from theory.precision.rounding import CROSSOVER, diffusion, gain, nearest_error

SIZES = [0.05, 0.1, 0.15, 0.2, 0.3, 0.399, 0.401, 0.5, 0.8, 1.0, 2.5, 7.0]


def _expect(f, size):
    """E f(x, RN x) for x ~ N(0, size^2), Gauss-Kronrod on each cell of the grid out to 40 sizes."""
    reach = math.ceil(40 * size) + 1
    total = 0.0
    for k in range(-reach, reach + 1):
        low, high = k - 0.5, k + 0.5
        points = sorted({low, *(p for p in (0.0,) if low < p < high), high})
        for a, b in itertools.pairwise(points):
            total += quad(lambda x, k=k: f(x, k) * norm.pdf(x, scale=size), a, b, epsabs=1e-15, epsrel=1e-11)[0]
    return total


@pytest.mark.parametrize("size", SIZES)
def test_diffusion_gain_and_error_are_the_integrals_they_stand_for(size):
    assert rounding_diffusion(size).diffusion == pytest.approx(_expect(lambda x, k: k**2, size), rel=1e-8, abs=1e-14)
    assert float(nearest_error(size)) == pytest.approx(_expect(lambda x, k: (x - k) ** 2, size) / size**2, rel=1e-8)
    # d/de E RN(e + x) at e = 0 is E[RN(x) x]/s^2: shift the density, not the grid
    slope = _expect(lambda x, k: k * x / size**2, size)
    assert rounding_drift_gain(size).gain == pytest.approx(slope, rel=1e-8, abs=1e-12)


@pytest.mark.parametrize("size", [0.2, 0.35, 0.6])
def test_gain_is_the_drift_that_survives(size):
    """A shifted normal, rounded: mean over the shift, by differences of the normal cdf."""
    shift, k = 1e-4, np.arange(1, 12)
    tails = norm.sf((k - 0.5 - shift) / size) - norm.cdf((-k + 0.5 - shift) / size)
    assert rounding_drift_gain(size).gain == pytest.approx(tails.sum() / shift, rel=1e-5)  # next order shift^2/s^2


@pytest.mark.parametrize("size", [0.2, 0.4, 1.5])
def test_against_torch_rounding_weights_to_bfloat16(size):
    """Steps of `size` ulp around 1.5, whose spacing is 2^-7; within 4 standard errors of 2e6 samples."""
    torch.manual_seed(0)
    steps = size * torch.randn(2_000_000, dtype=torch.float64)
    moved = ((1.5 + steps * 2**-7).float().bfloat16().double() - 1.5) * 2**7
    inside = steps.abs() < 60  # the binade of 1.5
    assert inside.all()
    for values, law in (
        (moved**2, rounding_diffusion(size).diffusion),
        (moved * steps / size**2, rounding_drift_gain(size).gain),
        ((moved - steps) ** 2 / size**2, float(nearest_error(size))),
    ):
        error = values.std().item() / math.sqrt(2_000_000)
        assert abs(values.mean().item() - law) < 4 * error


def test_the_two_forms_meet_where_one_replaces_the_other():
    below, above = np.nextafter(CROSSOVER, 0), CROSSOVER
    for law in (gain, diffusion, nearest_error):
        assert float(law(below)) == pytest.approx(float(law(above)), rel=1e-10)


@given(st.floats(0, 3), st.floats(0, 3))
def test_gain_rises_from_none_to_all(one, other):
    low, high = sorted((one, other))
    assert 0 <= rounding_drift_gain(low).gain <= rounding_drift_gain(high).gain + 1e-12 <= 1 + 2e-12
    assert rounding_diffusion(low).diffusion <= rounding_diffusion(high).diffusion + 1e-12


@given(st.floats(0, 1e100))
def test_the_error_is_never_more_than_all_and_its_parts_add_up(size):
    error = float(nearest_error(size))
    assert 0 <= error <= 1 + 1e-12
    if 0.01 < size < 10:
        whole = 1 - 2 * rounding_drift_gain(size).gain + rounding_diffusion(size).diffusion / size**2
        assert error == pytest.approx(whole, rel=1e-9, abs=1e-9)


def test_quoted_numbers():
    """Those of theory.md 9.2 and 9.3, to the digits given there."""
    ratios = [rounding_diffusion(s).diffusion / s**2 for s in (0.5, 0.2, 0.15)]
    assert [round(ratio, 2) for ratio in ratios] == [1.30, 0.31, 0.04]
    gains = [rounding_drift_gain(s).gain for s in (0.15, 0.2, 0.3, 0.4)]
    assert [round(g, 2) for g in gains] == [0.02, 0.18, 0.66, 0.92]
    assert rounding_drift_gain(0.65).gain == pytest.approx(0.9995, abs=5e-5)
    for s in (1.0, 30.0, 1e100):
        assert rounding_diffusion(s).diffusion == pytest.approx(s**2 + 1 / 12, rel=1e-7)


def test_nothing_moves_without_a_step():
    assert rounding_diffusion(0.0).diffusion == 0
    assert rounding_drift_gain(0.0).gain == 0
    assert rounding_drift_gain(1e300).gain == 1
    assert float(nearest_error(0.0)) == 1
    assert np.all(np.isfinite(gain([0.0, 1e-300, 1e-5, 1e300])))


@pytest.mark.parametrize("bad", [-0.1, math.nan, math.inf, "0.1", None])
@pytest.mark.parametrize("law", [rounding_diffusion, rounding_drift_gain])
def test_bad_input_gets_one_sentence(law, bad):
    with pytest.raises(InputError, match="is not allowed: it must be"):
        law(bad)


def test_a_step_whose_square_overflows_is_refused():
    with pytest.raises(InputError, match="below 1e150"):
        rounding_diffusion(1e200)
