import numpy as np
import pandas as pd
import pytest

from theory import predict, shapes
from theory.errors import InputError
from theory.optimizers import SGD, AdamW
from theory.probe import Probe, TensorProbe
from theory.quantities import PREDICTED, UNITS
from theory.recipe import Group, Recipe
from theory.schedules import Constant, Cosine, Piecewise

COLUMNS = ["step", "group", "quantity", "value", "low", "high", "unit"]
GPT2 = Recipe(
    AdamW(lr=6e-4, betas=(0.9, 0.95), weight_decay=0.1), Cosine(warmup=2_000, final=0.1), 50_000, shapes.gpt2("124m")
)


@pytest.fixture(scope="module")
def gpt2():
    return predict(GPT2)


def test_table_of_gpt2_124m(gpt2):
    table = gpt2.table()
    assert table.columns.tolist() == COLUMNS
    assert table["group"].nunique() == 148
    assert len(table) == 148 * len(PREDICTED) * len(gpt2.default_steps())
    assert not table.duplicated(["step", "group", "quantity"]).any()
    assert set(table["quantity"]) == set(PREDICTED)
    assert table["unit"].tolist() == table["quantity"].map(UNITS).tolist()
    assert np.isfinite(table[["value", "low", "high"]].to_numpy()).all()
    assert (table["low"] <= table["value"]).all()
    assert (table["value"] <= table["high"]).all()
    assert (table.loc[table["value"] > 0, "low"] < table.loc[table["value"] > 0, "high"]).any()


def test_rows_of_gpt2_124m(gpt2):
    at = gpt2.at(10_000)
    assert len(at) == 148
    assert at.index.tolist() == [group.name for group in GPT2.groups]
    assert {f"{q}{s}" for q in PREDICTED for s in ("", "_low", "_high")} == set(at.columns)
    sizes = np.array([group.size for group in GPT2.groups])
    assert at["rms"].to_numpy() == pytest.approx(at["norm"].to_numpy() / np.sqrt(sizes))
    assert at["effective_lr"].to_numpy() == pytest.approx(GPT2.lr(10_000).item() / at["rms"].to_numpy())
    # from 0.02 towards sqrt(lr/2wd) = 0.05, the equilibrium of the present rate, within 0.6 relaxation times
    assert 0.04 < at.loc["transformer.h.5.mlp.c_fc.weight", "rms"] < 0.05
    assert (at["angle"] > 0).all()


def test_table_and_at_agree(gpt2):
    table = gpt2.table([10_000])
    wide = table.pivot_table(index="group", columns="quantity", values="value").loc[gpt2.at(10_000).index]
    pd.testing.assert_frame_equal(wide[list(PREDICTED)], gpt2.at(10_000)[list(PREDICTED)], check_names=False)


def test_a_sound_recipe_has_no_warnings_but_says_what_it_assumes(gpt2):
    assert gpt2.warnings == ()
    assert gpt2.laws == ("adamw_equilibrium", "adamw_trajectory")
    assert len(gpt2.assumptions) == 2


def test_default_steps_are_dense_where_things_happen():
    recipe = Recipe(AdamW(1e-2), Piecewise(knots=((0, 1.0), (5_000, 0.1))), 9_000, (Group("w", (4,), norm0=1.0),))
    steps = predict(recipe).default_steps()
    assert steps[0] == 0
    assert steps[-1] == 8_999
    assert np.all(np.diff(steps) > 0)
    assert {0, 1, 2, 4_999, 5_000, 5_001, 5_128} <= set(steps.tolist())
    assert len(steps) < 250
    later = predict(recipe, Probe(7_000, {"w": TensorProbe(norm=1.0)})).default_steps()
    assert later[0] == 7_000
    assert later[-1] == 8_999
    short = Recipe(AdamW(1e-2), Constant(), 1, (Group("w", (4,), norm0=1.0),))
    assert predict(short).default_steps().tolist() == [0]


def test_band_is_narrow_where_the_start_is_still_known(gpt2):
    """What is left of the initial norm is certain; what the run builds up is not."""
    width = lambda step: (gpt2.at(step)["norm_high"] / gpt2.at(step)["norm"])["transformer.wte.weight"]
    assert 1 <= width(0) < 1.001
    assert width(0) < width(5_000) < width(49_999)


def test_probes_narrow_the_band():
    recipe = Recipe(
        SGD(0.1, weight_decay=0.01), Constant(), 2_000, (Group("w", (9,), norm0=1.0, scale_invariant="row"),)
    )
    unknown, known = (
        predict(recipe).at(1_999).loc["w"],
        predict(recipe, Probe(0, {"w": TensorProbe(c2=1.0)})).at(1_999).loc["w"],
    )
    assert np.isnan(unknown["norm"])
    assert np.isfinite(unknown["angle"])
    assert known["norm_low"] < known["norm"] < known["norm_high"] < 1.3 * known["norm"]


def test_nothing_known_is_an_honest_table():
    recipe = Recipe(SGD(0.1), Constant(), 3, (Group("w", (9,)),))
    table = predict(recipe).table()
    assert table.columns.tolist() == COLUMNS
    assert table["value"].isna().all()


def test_steps_outside(gpt2):
    for steps in ([50_000], [-1], [0, 60_000]):
        with pytest.raises(InputError, match="between 0 and 49999"):
            gpt2.values(steps)
        with pytest.raises(InputError, match="between 0 and 49999"):
            gpt2.table(steps)
