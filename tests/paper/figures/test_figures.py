import numpy as np
import pandas as pd
import pytest

from paper.figures import language_model, residual_network
from theory.errors import InputError
from theory.optimizers import SGD, AdamW
from theory.predict import predict
from theory.probe import Probe, TensorProbe
from theory.recipe import Group, Recipe
from theory.schedules import Cosine, Piecewise

BLOCK = ("attn.c_attn.weight.q", "attn.c_proj.weight", "mlp.c_fc.weight")
NAMES = ["transformer.wte.weight", *(f"transformer.h.{i}.{name}" for i in range(2) for name in BLOCK)]


def long(prediction, steps, quantities) -> pd.DataFrame:
    table = prediction.table(steps)
    return table[table["quantity"].isin(quantities)].rename(columns={"group": "tensor"})


def test_language_model_draws_what_it_is_given():
    recipe = Recipe(
        AdamW(1e-2, weight_decay=0.05), Cosine(warmup=10), 400, tuple(Group(n, (32, 32), norm0=0.6) for n in NAMES)
    )
    prediction = predict(recipe)
    measured = long(prediction, np.arange(0, 400, 2), ("norm", "angle"))
    figure = language_model.draw(
        measured, prediction.table(), prediction.table(), groups=NAMES, calibrated_from=200, judged=NAMES[3:4]
    )
    assert len(figure.axes) == 2 * len(NAMES)
    axes = next(a for a in figure.axes if a.get_label() == f"norm {NAMES[2]}")
    lines = {line.get_label(): line for line in axes.lines}
    expected = prediction.table().query("quantity == 'norm' and group == @NAMES[2]")["value"].to_numpy()
    assert np.array_equal(lines["predicted"].get_ydata(), expected)
    assert min(lines["calibrated"].get_xdata()) >= 200
    assert lines["measured"].get_ydata()[-1] == pytest.approx(expected[-1], rel=0.02)
    titles = [a.get_title() for a in figure.axes if a.get_label().startswith("norm")]
    assert sum("†" in title for title in titles) == len(NAMES) - 1


def test_language_model_refuses_what_was_not_measured():
    with pytest.raises(InputError, match="measured"):
        language_model.draw(
            pd.DataFrame({"step": [0], "tensor": ["a"], "quantity": ["norm"], "value": [1.0]}),
            pd.DataFrame({"group": ["b"]}),
            None,
            groups=["b"],
            calibrated_from=0,
            judged=[],
        )


def test_residual_network_draws_every_layer_and_run():
    groups = tuple(Group(f"conv{i}", (8, 8), norm0=2.0, scale_invariant="tensor") for i in range(3))
    recipe = Recipe(SGD(0.3, weight_decay=0.03), Piecewise(knots=((0, 1.0), (310, 0.01))), 400, groups)
    probe = Probe(0, {group.name: TensorProbe(c2=1.0) for group in groups})
    measured = long(predict(recipe, probe), np.arange(400), ("norm", "angle"))
    runs = [("decayed", 0.03, 70.0), ("undecayed", 0.19, 1500.0), ("invariant", 0.05, 100.0)]
    rows = [
        (name, 0, q, v) for name, *values in runs for q, v in zip(("test_error", "jacobian_fro"), values, strict=True)
    ]
    figure = residual_network.draw(
        {"invariant": measured},
        {"invariant": predict(recipe).table(), "invariant-c2": predict(recipe, probe).table()},
        pd.DataFrame(rows, columns=["run", "seed", "quantity", "value"]),
    )
    angle, norm, gain = figure.axes
    labels = [line.get_label() for line in angle.lines]
    assert [labels.count(name) for name in ("measured", "calibrated", "predicted")] == [3, 3, 1]
    assert len(norm.lines) == 6
    points = {line.get_label(): (line.get_xdata()[0], line.get_ydata()[0]) for line in gain.lines}
    assert points["decayed"] == (70.0, 3.0)
    assert set(points) == {"decayed", "undecayed", "invariant"}
