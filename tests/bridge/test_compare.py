import numpy as np
import pandas as pd
import pytest

from bridge.compare import compare
from theory.errors import InputError
from theory.optimizers import SGD, AdamW
from theory.predict import predict
from theory.recipe import Group, Recipe
from theory.schedules import Cosine, Piecewise

RECIPE = Recipe(
    AdamW(lr=1e-2, betas=(0.9, 0.95), weight_decay=0.05),
    Cosine(warmup=50, final=0.1),
    1_000,
    (Group("a", (32, 32), norm0=0.6), Group("b", (16, 64), norm0=1.0, decayed=False)),
)
STEPS = np.arange(0, 1_000, 5)


def test_a_run_as_predicted_has_no_residual(write_run):
    prediction = predict(RECIPE)
    comparison = compare(write_run(RECIPE, prediction, STEPS, prediction.values(STEPS)))
    assert comparison.preregistered
    table = comparison.table()
    assert set(table["quantity"]) == {"norm", "angle", "relative_update"}
    assert table["worst"].max() < 5e-3  # interpolation between the ~200 stored steps, warm-up included
    assert (table["in_band"] == 1).all()


def test_the_sign_of_a_residual_is_predicted_over_measured_minus_one(write_run):
    prediction = predict(RECIPE)
    measured = {q: v * np.array([1.25, 0.8]) for q, v in prediction.values(STEPS).items()}
    comparison = compare(write_run(RECIPE, prediction, STEPS, measured))
    for quantity in ("norm", "angle"):
        assert comparison.residual(quantity)["a"] == pytest.approx(-0.2, abs=2e-3)
        assert comparison.residual(quantity)["b"] == pytest.approx(0.25, abs=2e-3)
        assert comparison.worst(quantity, start=500)["b"] == pytest.approx(0.25, abs=3e-3)


def test_windows_are_rms_not_means(write_run):
    prediction = predict(RECIPE)
    values = prediction.values(STEPS)
    values["angle"] = values["angle"] * np.where(np.arange(len(STEPS)) % 2, 2.0, 0.0)[:, None]
    residual = compare(write_run(RECIPE, prediction, STEPS, values), windows=50).residual("angle", start=100)
    assert residual["a"] == pytest.approx(1 / np.sqrt(2) - 1, abs=0.01)


def test_a_changed_prediction_is_not_preregistered(write_run):
    prediction = predict(RECIPE)
    record = write_run(RECIPE, prediction, STEPS, prediction.values(STEPS))
    table = pd.read_parquet(record.path / "prediction.parquet")
    table.loc[0, "value"] *= 1.01
    table.to_parquet(record.path / "prediction.parquet", index=False)
    assert not compare(record).preregistered


def test_a_learning_rate_drop_does_not_blur_the_comparison(write_run):
    recipe = Recipe(
        SGD(0.3, weight_decay=0.03),
        Piecewise(knots=((0, 1.0), (700, 0.01))),
        1_000,
        (Group("w", (8, 8), scale_invariant="tensor", norm0=1.0),),
    )
    prediction = predict(recipe)
    steps = np.arange(1_000)
    values = {"norm": np.ones((1_000, 1)), "angle": prediction.values(steps)["angle"]}
    comparison = compare(write_run(recipe, prediction, steps, values), quantities=("norm", "angle"), windows=500)
    assert set(comparison.windows["quantity"]) == {"angle"}  # the norm was not predicted: left out, not failed
    assert comparison.windows["residual"].abs().max() < 1e-9


def test_without_a_prediction_there_is_nothing_to_compare(write_run):
    record = write_run(RECIPE, None, STEPS, predict(RECIPE).values(STEPS))
    with pytest.raises(InputError, match="holds no prediction"):
        compare(record)
    assert not compare(record, predict(RECIPE)).preregistered  # made after the run, and it says so
