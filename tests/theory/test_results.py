import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory.results import angle_of_chord


@given(st.floats(1e-9, np.pi))
def test_angle_of_chord(angle):
    """1 - cos = 2 sin^2(angle/2), known without cancellation, gives the angle to rounding."""
    assert angle_of_chord(2 * np.sin(angle / 2) ** 2) == pytest.approx(angle, rel=1e-7 if angle > 3 else 1e-14)


def test_shapes_and_edges():
    assert angle_of_chord(0.0) == 0.0
    assert angle_of_chord(-1e-20) == 0.0  # rounding
    assert angle_of_chord(np.array([[0.0, 2.0]])) == pytest.approx(np.array([[0.0, np.pi]]))
