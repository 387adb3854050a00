import numpy as np
import pytest

from bridge.calibrate import calibrate
from theory.calibration import adamw_drive, long_run_ratio
from theory.errors import InputError
from theory.optimizers import SGD, AdamW
from theory.predict import predict
from theory.probe import Probe, TensorProbe
from theory.recipe import Group, Recipe
from theory.schedules import Cosine

RECIPE = Recipe(
    AdamW(lr=1e-2, betas=(0.9, 0.95), weight_decay=0.05),
    Cosine(warmup=50, final=0.1),
    1_000,
    (Group("a", (32, 32), norm0=0.6), Group("b", (16, 64), norm0=1.0, decayed=False)),
)


def test_long_run_ratio_is_recovered_from_the_recursion_it_defines():
    group, ratio = RECIPE.groups[0], 1.7
    drive = adamw_drive(RECIPE, group)
    w, norms = 0.6**2 / group.size, []
    for a, s in zip(drive.shrink, drive.source, strict=True):
        w = a**2 * w + ratio * s
        norms.append(np.sqrt(w * group.size))
    at = np.arange(250, 501, 10)
    assert long_run_ratio(drive, group.size, at, np.array(norms)[at]) == pytest.approx(ratio, rel=1e-9)


def test_a_run_with_twice_the_variance_is_predicted_after_calibration(write_run):
    true = {"a": TensorProbe(norm=0.6, long_run_ratio=2.0), "b": TensorProbe(norm=1.0, long_run_ratio=0.5)}
    steps = np.arange(1, 1_000, 10)
    world = predict(RECIPE, Probe(1, true)).values(steps)
    record = write_run(RECIPE, predict(RECIPE), steps, world)
    probe = calibrate(record, start=250, stop=500)
    assert probe.step == 492  # the last measurement in the window is that of step 491
    assert probe.tensors["a"].long_run_ratio == pytest.approx(2.0, rel=0.02)  # the early transient is not stationary
    assert probe.tensors["b"].long_run_ratio == pytest.approx(0.5, rel=0.02)
    assert probe.tensors["a"].update_ratio == pytest.approx(1.0, rel=0.02)
    late = steps[steps >= 500]
    again = predict(RECIPE, probe).values(late)["norm"]
    assert again == pytest.approx(world["norm"][steps >= 500], rel=2e-3)
    prior = predict(RECIPE).values(late)["norm"]
    assert np.abs(prior / world["norm"][steps >= 500] - 1).max() > 0.2  # what calibration was needed for


def test_sgd_gets_c2_from_gradients_and_norms(write_run):
    recipe = Recipe(
        SGD(0.1, weight_decay=0.01), steps=100, groups=(Group("w", (8, 8), scale_invariant="tensor", norm0=1.0),)
    )
    steps = np.arange(0, 50)
    norms = 1 + 0.01 * steps[:, None]
    record = write_run(recipe, None, steps, {"norm": norms, "grad_norm": 3 / norms})
    assert calibrate(record, start=10, stop=20).tensors["w"].c2 == pytest.approx(9.0, rel=1e-12)


def test_an_empty_window_is_refused(write_run):
    record = write_run(RECIPE, None, np.array([0, 1]), predict(RECIPE).values([0, 1]))
    with pytest.raises(InputError, match="at least three measurements"):
        calibrate(record, start=0, stop=900)


def test_sgd_takes_the_gradients_lean_on_the_weights_where_the_run_recorded_it(write_run):
    """Gradients with a cosine of 0.2 to the weights: calibrated with it, the rest of the run is predicted; without it
    the norm is several per cent off, as the lean acts as further decay."""
    group = Group("w", (32, 32), norm0=3.0, scale_invariant="tensor")
    recipe = Recipe(SGD(lr=0.1, weight_decay=0.01), Cosine(final=0.5), 1_000, (group,))
    true = Probe(0, {"w": TensorProbe(c2=9.0, norm=3.0, radial=0.2)})
    steps = np.arange(1, 1_000, 5)
    world = dict(predict(recipe, true).values(steps))
    before = predict(recipe, true).values(np.maximum(steps - 1, 0))["norm"]
    world["grad_norm"] = 3.0 / before
    world["grad_cosine"] = np.full_like(before, 0.2)
    record = write_run(recipe, predict(recipe), steps, world)
    probe = calibrate(record, start=200, stop=400)
    assert probe.tensors["w"].radial == pytest.approx(0.2, rel=1e-12)
    late = steps[steps > 600]
    measured = world["norm"][steps > 600, 0]
    off = lambda p: np.abs(predict(recipe, p).values(late)["norm"][:, 0] / measured - 1).max()
    blind = Probe(probe.step, {"w": TensorProbe(c2=probe.tensors["w"].c2, norm=probe.tensors["w"].norm)})
    assert off(probe) < 0.01  # c2 comes from norms after the step, where the gradient had the one before it
    assert off(blind) > 0.03
