import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory.errors import InputError, finite, require, whole


@given(st.floats(0, 1e300) | st.integers(0, 10**9))
def test_finite_passes_what_is_allowed(value):
    assert finite("x", value) == value
    assert type(finite("x", value)) is float


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "1", b"1", None, True, 1j, [1.0], object()])
def test_finite_refuses_the_rest(value):
    with pytest.raises(InputError) as error:
        finite("lr", value)
    assert str(error.value) == f"lr = {value!r} is not allowed: it must be a finite number >= 0."


def test_finite_bounds():
    assert finite("x", 1.0, high=1.0, open_high=False) == 1.0
    assert math.copysign(1, finite("x", -0.0)) == 1.0
    assert type(finite("x", np.float32(0.5))) is float
    with pytest.raises(InputError, match="< 1"):
        finite("x", 1.0, high=1.0)
    with pytest.raises(InputError, match=">= 2 and <= 3"):
        finite("x", 1.0, low=2.0, high=3.0, open_high=False)


@given(st.integers(0, 10**9))
def test_whole_passes_integers_however_spelled(value):
    for spelling in (value, float(value), np.int64(value), np.float64(value)):
        assert whole("n", spelling) == value
        assert type(whole("n", spelling)) is int


@pytest.mark.parametrize("value", [-1, 0.5, math.nan, math.inf, "3", None, True, [3]])
def test_whole_refuses_the_rest(value):
    with pytest.raises(InputError) as error:
        whole("steps", value)
    assert str(error.value) == f"steps = {value!r} is not allowed: it must be a whole number >= 0."


def test_require():
    require(True, "x", 1, "anything")
    with pytest.raises(InputError, match="x = 1 is not allowed: it must be 2"):
        require(False, "x", 1, "2")
    assert issubclass(InputError, ValueError)
