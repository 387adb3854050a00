import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from bridge.compare import Comparison
from bridge.seeds import Seeds, across_seeds, by_recipe, differences
from decaylab.cli import main
from theory.errors import InputError
from theory.optimizers import AdamW
from theory.predict import predict
from theory.recipe import Group, Recipe
from theory.schedules import Cosine

RECIPE = Recipe(
    AdamW(lr=1e-2, betas=(0.9, 0.95), weight_decay=0.05), Cosine(warmup=20), 300, (Group("a", (32, 32), norm0=0.6),)
)
STEPS = np.arange(0, 300, 3)


@pytest.fixture
def runs(write_run, tmp_path):
    """Runs whose norms are the given multiples of the prediction."""

    def write(factors, recipes=None):
        records = []
        for index, factor in enumerate(factors):
            recipe = (
                recipes[index] if recipes else replace(RECIPE, groups=(Group("a", (32, 32), norm0=0.6 + index / 99),))
            )
            prediction = predict(recipe)
            record = write_run(recipe, prediction, STEPS, {"norm": prediction.values(STEPS)["norm"] * factor})
            record.path.rename(tmp_path / f"seed{index}-00000000")
            records.append(type(record)(tmp_path / f"seed{index}-00000000"))
        return records

    return write


def test_intervals_are_students_over_seeds(runs):
    factors = np.array([1.0, 1.1, 1.25])
    (row,) = across_seeds(runs(factors), quantities=["norm"]).table().to_dict("records")
    residuals = 1 / factors - 1
    half = student.ppf(0.975, 2) * residuals.std(ddof=1) / np.sqrt(3)
    assert row["seeds"] == 3
    assert row["residual"] == pytest.approx(residuals.mean(), abs=1e-3)  # the table is read between its steps
    assert row["high"] - row["low"] == pytest.approx(2 * half, rel=1e-2)


@pytest.mark.parametrize(
    ("residuals", "verdict"),
    [((0.1, 0.11, 0.12), "in band"), ((0.7, 0.71, 0.72), "outside"), ((0.45, 0.5, 0.55), "undecided")],
)
def test_the_verdict_is_about_the_whole_interval(residuals, verdict):
    """A band of -50 % .. +100 % of the prediction allows residuals from -0.5 to 0.5."""

    def comparison(residual):
        columns = {"tensor": ["a"], "quantity": ["norm"], "start": [0], "stop": [9], "predicted": [1.0]}
        bounds = {"low": [1 / 1.5], "high": [2.0], "measured": [1 / (1 + residual)], "residual": [residual]}
        return Comparison("run", True, pd.DataFrame(columns | bounds))

    (row,) = Seeds(tuple(map(comparison, residuals))).table().to_dict("records")
    assert row["verdict"] == verdict
    assert (row["lowest"], row["highest"]) == pytest.approx((-0.5, 0.5))


def test_one_run_has_no_interval(runs):
    (row,) = across_seeds(runs([1.0]), quantities=["norm"]).table().to_dict("records")
    assert np.isnan(row["low"])
    assert row["verdict"] == "in band"


def test_runs_of_different_recipes_are_not_averaged(runs):
    other = replace(RECIPE, optimizer=replace(RECIPE.optimizer, weight_decay=0.1))
    first, second, third = runs([1.0, 1.0, 1.1], [RECIPE, other, RECIPE])
    with pytest.raises(InputError, match=r"different recipes: optimizer.weight_decay is 0.05 and 0.1"):
        across_seeds([first, second])
    assert by_recipe([first, second, third]) == [[first, third], [second]]
    assert differences(first, third) == []
    with pytest.raises(InputError, match="at least one run"):
        across_seeds([])


def test_the_command_shows_reasons_and_seeds(runs, capsys):
    other = replace(RECIPE, optimizer=replace(RECIPE.optimizer, weight_decay=0.1))
    paths = [str(record.path) for record in runs([1.0, 5.0, 1.0], [RECIPE, RECIPE, other])]
    with pytest.raises(SystemExit) as stop:
        main(["compare", *paths, "--quantity", "norm", "--json"])
    assert stop.value.code == 0
    first, second, third, together = json.loads(capsys.readouterr().out)
    assert first["reasons"] == third["reasons"] == []
    assert [reason["quantity"] for reason in second["reasons"]] == ["norm"]
    assert together["runs"] == paths[:2]
    assert together["seeds"][0]["verdict"] == "undecided"
    with pytest.raises(SystemExit) as stop:
        main(["compare", *paths, "--quantity", "norm"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert "2 seeds, 95 % intervals" in said
    assert "another recipe than seed0-00000000: optimizer.weight_decay is 0.05 and 0.1" in said
