import json
import struct

import numpy as np
import pytest

from bridge.evidence import stored_dtype
from bridge.reasons import reasons
from theory.errors import InputError
from theory.optimizers import SGD, AdamW
from theory.predict import predict
from theory.probe import Probe, TensorProbe
from theory.recipe import Group, Recipe
from theory.schedules import Constant, Cosine

STEPS = np.arange(0, 2_000, 4)
ADAMW = AdamW(lr=1e-2, betas=(0.9, 0.95), weight_decay=0.05)
QUANTITIES = ("norm", "angle", "relative_update")


def adamw(**group):
    return Recipe(ADAMW, Cosine(warmup=50, final=0.1), 2_000, (Group("w", (32, 32), **{"norm0": 0.6, **group}),))


def measured(recipe, **probe):
    """A run in which one tensor departs from the law by known numbers."""
    values = predict(recipe, Probe(tensors={"w": TensorProbe(**probe)})).values(STEPS)
    return {quantity: values[quantity] for quantity in QUANTITIES}


def found(write_run, recipe, values, **options):
    record = write_run(recipe, predict(recipe), STEPS, values)
    return {reason.quantity: reason for reason in reasons(record, quantities=QUANTITIES, **options)}


def test_a_run_as_predicted_needs_no_reasons(write_run):
    recipe = adamw()
    assert found(write_run, recipe, measured(recipe)) == {}


def test_a_signal_is_named_with_its_long_run_variance(write_run):
    recipe = adamw()
    reason = found(write_run, recipe, measured(recipe, long_run_ratio=9.0))["norm"]
    assert reason.assumption == "signal"
    assert reason.value == pytest.approx(9.0, rel=0.02)
    assert reason.explained > 0.95  # put into the law, the number removes the residual that it made
    assert "9.0 times as much" in reason.sentence


def test_a_pull_towards_zero_is_a_want_of_scale_invariance(write_run):
    recipe = adamw()
    reason = found(write_run, recipe, measured(recipe, long_run_ratio=0.1))["norm"]
    assert (reason.assumption, reason.value) == ("scale_invariance", pytest.approx(0.1, rel=0.05))


def test_in_a_scale_invariant_tensor_the_same_is_a_signal(write_run):
    recipe = adamw(scale_invariant="tensor")
    assert found(write_run, recipe, measured(recipe, long_run_ratio=0.1))["norm"].assumption == "signal"


def test_an_undecayed_tensor_is_said_to_be_undecayed(write_run):
    recipe = adamw(decayed=False)
    reason = found(write_run, recipe, measured(recipe, long_run_ratio=9.0))["norm"]
    assert "not decayed" in reason.sentence


def with_update(recipe, factor):
    """Updates of another size whose norm curve the law gets right."""
    values = measured(recipe)
    return values | {name: values[name] * factor for name in ("angle", "relative_update")}


def test_updates_of_another_size_are_told_from_norms(write_run):
    recipe = adamw()
    reasons_found = found(write_run, recipe, with_update(recipe, 3.0))
    assert set(reasons_found) == {"angle", "relative_update"}
    assert reasons_found["angle"].assumption == "update_size"
    assert reasons_found["angle"].value == pytest.approx(3.0, rel=0.01)


def test_clipped_steps_are_blamed_where_some_are_clipped(write_run):
    recipe = adamw()
    record = write_run(recipe, predict(recipe), STEPS, with_update(recipe, 3.0))
    with open(record.path / "metrics.jsonl", "a") as file:
        file.write(json.dumps({"step": 1_999, "values": {"clipped_fraction": {"": 0.4}}}) + "\n")
    (reason,) = [r for r in reasons(record) if r.quantity == "angle"]
    assert (reason.assumption, reason.value) == ("clipping", 0.4)


def test_weights_in_bfloat16_are_blamed_first(write_run):
    recipe = adamw()
    reason = found(write_run, recipe, measured(recipe, long_run_ratio=9.0), weight_dtype="bfloat16")["norm"]
    assert reason.assumption == "rounding"
    assert "bfloat16" in reason.sentence


def test_the_format_is_read_off_the_checkpoint(tmp_path):
    assert stored_dtype(tmp_path) is None
    folder = tmp_path / "checkpoints" / "step-00000001"
    folder.mkdir(parents=True)
    header = {"__metadata__": {}, "a": {"dtype": "F32"}, "b": {"dtype": "BF16"}, "c": {"dtype": "I64"}}
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    assert stored_dtype(tmp_path) == "bfloat16"


SGD_RECIPE = Recipe(
    SGD(0.1, weight_decay=0.01), Constant(), 2_000, (Group("w", (32, 32), scale_invariant="tensor", norm0=4.0),)
)


def test_a_drifting_norm_is_told_from_a_gradient_along_the_weights(write_run, tmp_path):
    """From a norm far above equilibrium: decay shrinks it, and the rotation is slower than at rest."""
    values = predict(SGD_RECIPE, Probe(tensors={"w": TensorProbe(c2=0.01)})).values(STEPS)
    seen = {name: values[name] for name in QUANTITIES}
    reason = found(write_run, SGD_RECIPE, seen)["angle"]
    assert reason.assumption == "equilibrium"
    assert reason.explained > 0.9
    (tmp_path / "run-00000000").rename(tmp_path / "first")
    reason = found(write_run, SGD_RECIPE, seen | {"angle": 3 * seen["angle"]})["angle"]
    assert reason.assumption == "scale_invariance"  # the identity between angle and drift is broken


def test_what_was_not_predicted_is_said_why(write_run):
    recipe = Recipe(SGD_RECIPE.optimizer, Constant(), 2_000, (*SGD_RECIPE.groups, Group("bias", (32,), norm0=1.0)))
    angles = np.tile(predict(SGD_RECIPE).values(STEPS)["angle"], 2)
    record = write_run(recipe, predict(recipe), STEPS, {"norm": np.ones_like(angles), "angle": angles})
    said = {(r.tensor, r.quantity): r.assumption for r in reasons(record)}
    assert said["w", "norm"] == "unknown_before_data"
    assert said["bias", "norm, angle"] == "scale_invariance"


def test_without_a_recipe(write_run):
    recipe = adamw()
    record = write_run(recipe, predict(recipe), STEPS, measured(recipe))
    (record.path / "recipe.json").unlink()
    with pytest.raises(InputError, match="holds no recipe"):
        reasons(record)
