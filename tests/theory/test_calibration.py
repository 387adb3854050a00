import numpy as np
import pytest

from theory import adamw_trajectory, predict
from theory.calibration import adamw_drive, long_run_ratio
from theory.errors import InputError
from theory.optimizers import SGD, Adam, AdamW
from theory.probe import Probe, TensorProbe
from theory.recipe import Group, Recipe
from theory.schedules import Cosine

GROUP = Group("w", (32, 32), norm0=3.0)
RECIPE = Recipe(AdamW(1e-2, (0.9, 0.95), weight_decay=0.1), Cosine(50, 0.1), 2_000, (GROUP,))


@pytest.mark.parametrize("window", [np.arange(0, 2_000), np.arange(500, 1_500, 40), np.array([100, 700, 1_900])])
def test_white_gradients_have_ratio_one(window):
    """The exact recursion with gradients of fixed size is what the ratio compares with."""
    law = adamw_trajectory(RECIPE.lr(np.arange(2_000)), 0.1, (0.9, 0.95), 3.0, 1_024, scale_invariant=False)
    assert long_run_ratio(adamw_drive(RECIPE, GROUP), 1_024, window, law.norm[window]) == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("ratio", [0.3, 4.0])
def test_predictions_made_with_a_ratio_give_it_back(ratio):
    prediction, at = predict(RECIPE, Probe(0, {"w": TensorProbe(long_run_ratio=ratio)})), np.arange(100, 2_000, 50)
    norms = prediction.values(at)["norm"][:, 0]
    assert long_run_ratio(adamw_drive(RECIPE, GROUP), 1_024, at, norms) == pytest.approx(ratio, rel=1e-3)


def test_a_norm_that_falls_faster_than_decay_has_ratio_zero():
    drive = adamw_drive(RECIPE, GROUP)
    assert long_run_ratio(drive, 1_024, [100, 101, 102], [3.0, 2.0, 1.0]) == 0.0


def test_bad_input():
    with pytest.raises(InputError, match=r"steps = 2 .* at least three"):
        long_run_ratio(adamw_drive(RECIPE, GROUP), 1_024, [1, 2], [1.0, 1.0])
    for optimizer in (SGD(0.1), Adam(0.1, weight_decay=0.1)):
        with pytest.raises(InputError, match="AdamW only"):
            adamw_drive(Recipe(optimizer, Cosine(), 9, (GROUP,)), GROUP)
    adamw_drive(Recipe(Adam(0.1), Cosine(), 9, (GROUP,)), GROUP)
