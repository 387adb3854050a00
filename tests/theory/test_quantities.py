from theory.quantities import PREDICTED, UNITS


def test_predicted_quantities_have_units():
    assert set(PREDICTED) <= set(UNITS)
    assert UNITS["angle"] == "rad/step"
