"""What a run says of its own decay: numbers that follow from its recipe and its measurements."""

from dataclasses import replace

import numpy as np
import pytest

from bridge.findings import findings
from empirics.records import Record
from theory.errors import InputError
from theory.optimizers import SGD, AdamW
from theory.predict import predict
from theory.recipe import Group, Recipe
from theory.schedules import Constant, Cosine

MATRIX = Group("w", (64, 64), scale_invariant="tensor", norm0=2.0)
STEPS = np.arange(0, 5_000, 50)


def recipe_of(weight_decay, schedule=None):
    return Recipe(AdamW(1e-3, (0.9, 0.95), weight_decay=weight_decay), schedule or Constant(), 5_000, (MATRIX,))


def found(write_run, recipe, scale=1.1):
    prediction = predict(recipe)
    values = prediction.values(STEPS)
    record = write_run(recipe, prediction, STEPS, {name: scale * values[name] for name in ("norm", "angle")})
    return {finding.what: finding for finding in findings(record)}


def test_a_run_that_settles(write_run):
    """2*lr*wd = 2e-3: three relaxation times of 500 steps are over at step 1,500."""
    seen = found(write_run, recipe_of(1.0))
    assert seen["equilibrium"].value == pytest.approx(500)
    assert "they have settled by step 1,500" in seen["equilibrium"].sentence


def test_a_run_that_does_not_says_what_would(write_run):
    """By 60 % of the run, 3,000 steps, 3 = 2*lr*wd*3,000: wd = 0.5; and with that decay it does."""
    seen = found(write_run, recipe_of(0.1))
    assert "which the run never reaches" in seen["equilibrium"].sentence
    assert "set weight_decay >= 0.5." in seen["equilibrium"].sentence


def test_the_decay_it_asks_for_is_enough(write_run, tmp_path):
    sentence = found(write_run, recipe_of(0.1, Cosine(warmup=100)))["equilibrium"].sentence
    wanted = float(sentence.rsplit(">= ", 1)[1].rstrip("."))
    (tmp_path / "run-00000000").rename(tmp_path / "first")
    assert "they have settled" in found(write_run, recipe_of(1.01 * wanted, Cosine(warmup=100)))["equilibrium"].sentence


def test_rotation_and_residuals_are_the_measured_ones(write_run):
    recipe = recipe_of(1.0)
    seen = found(write_run, recipe)
    later = STEPS[STEPS >= 500]
    angles = 1.1 * predict(recipe).values(later)["angle"][:, 0]
    assert seen["rotation"].value == pytest.approx(np.sqrt(np.mean(angles**2)))
    assert seen["prediction"].value == pytest.approx(1 - 1 / 1.1, rel=1e-4)  # the table is read between its steps
    assert "-9%" in seen["rotation"].sentence


def test_the_effective_rate_is_that_of_the_two_predictions(write_run):
    recipe = recipe_of(1.0)
    bare = replace(recipe, optimizer=replace(recipe.optimizer, weight_decay=0.0))
    with_decay, without = (predict(r).values([4_999])["norm"][0, 0] for r in (recipe, bare))
    assert found(write_run, recipe)["effective_lr"].value == pytest.approx(without / with_decay)


def test_without_decay_there_is_nothing_to_say(write_run):
    recipe = recipe_of(0.0)
    assert findings(write_run(recipe, predict(recipe), STEPS, {"norm": predict(recipe).values(STEPS)["norm"]})) == []


def test_sgd_has_no_norm_before_the_data_and_no_effective_rate(write_run):
    recipe = Recipe(SGD(0.1, weight_decay=1e-3), Constant(), 5_000, (MATRIX,))
    angles = predict(recipe).values(STEPS)["angle"]
    seen = {f.what: f for f in findings(write_run(recipe, predict(recipe), STEPS, {"angle": angles}))}
    assert set(seen) == {"equilibrium", "rotation", "prediction"}
    assert seen["equilibrium"].value == pytest.approx(1 / (4 * 1e-4), rel=1e-3)


def test_a_directory_without_a_recipe(tmp_path):
    with pytest.raises(InputError, match="holds no recipe: it was trained without a prediction"):
        findings(Record(tmp_path))
