"""Calibration on finished runs: exact where its model is, close to the laws where gradients are white."""

from dataclasses import replace

import numpy as np
import pytest

from theory.errors import InputError
from theory.optimizers import SGD, AdamW
from theory.predict import predict
from theory.probe import Probe, TensorProbe
from theory.recipe import Group, Recipe
from theory.reference import Measured, Reference, pieces, power_law, reference
from theory.schedules import Constant, Cosine
from theory.serialize import from_json, to_json
from theory.trajectory.reference_path import kicks

STEPS = 600
RECIPE = Recipe(
    AdamW(lr=0.01, weight_decay=0.1), Cosine(warmup=50, final=0.1), STEPS, (Group("w", (16, 16), norm0=2.0),)
)


def at(lr: float, decay: float, schedule=None, steps: int = STEPS) -> Recipe:
    optimizer = AdamW(lr=lr, weight_decay=decay)
    return replace(RECIPE, optimizer=optimizer, schedule=schedule or RECIPE.schedule, steps=steps)


def grown(recipe: Recipe, growth, size=256.0) -> Measured:
    """A run whose ||w||^2 obeys the equation: growth(step, norm) is its long-run variance."""
    steps = np.arange(recipe.steps)
    lr, keep = recipe.lr(steps), 1 - recipe.shrink(steps, recipe.groups[0])
    w, kick, squares = 4.0, kicks(recipe.lr(steps)), []
    for t in steps:
        w = keep[t] ** 2 * w + kick[t] * growth(t, w**0.5)
        squares.append(w)
    before = np.sqrt([4.0, *squares[:-1]])
    return Measured(recipe, steps, {"w": np.sqrt(squares)}, {"w": lr * size**0.5 / before})


def errors(recipe: Recipe, found: Reference, truth: Measured) -> np.ndarray:
    late = np.arange(recipe.steps // 2, recipe.steps)
    return predict(recipe, reference=found).values(late)["norm"][:, 0] / truth.norms["w"][late] - 1


def test_one_run_gives_every_other_where_growth_depends_on_the_step_alone():
    """Growth constant within each piece is what the reference takes it for: equal up to rounding."""
    edges = pieces(np.arange(1, STEPS + 1), STEPS)
    growth = lambda t, norm: 100.0 + 40 * np.sin(np.searchsorted(edges, t, side="right"))
    found = reference([grown(RECIPE, growth)])
    assert found.edges == tuple(edges.tolist())
    for other in (at(0.03, 0.0), at(0.002, 0.5), at(0.02, 0.2, Constant()), at(0.01, 0.1, steps=300)):
        np.testing.assert_allclose(errors(other, found, grown(other, growth)), 0, atol=1e-9)


@pytest.mark.parametrize("power", [-1.5, 1.0])
def test_two_runs_tell_how_growth_depends_on_the_norm(power):
    """Within a piece the norm moves and only its mean is used: an error of second order in the piece's length."""
    growth = lambda t, norm: 60.0 * norm**power
    between = at(0.01, 0.0)
    truth = grown(between, growth)
    two = reference([grown(at(r, 0.1), growth) for r in (0.005, 0.02)])
    one = reference([grown(at(0.005, 0.1), growth)])
    late = np.array(two.tensors["w"].growth_power[-8:])
    np.testing.assert_allclose(late, power, atol=0.12)
    assert np.abs(errors(between, two, truth)).max() < 0.01
    assert np.abs(errors(between, one, truth)).max() > 3 * np.abs(errors(between, two, truth)).max()


def test_white_gradients_are_those_of_the_law():
    """The law's own curves in place of a run's: at the same schedule growth per lr^2 is one number, but for momentum's
    memory of the weights, which is of order lr*wd/(1 - beta)."""
    recipe = at(0.01, 0.1)
    values = predict(recipe).values(np.arange(STEPS))
    run = Measured(recipe, np.arange(STEPS), {"w": values["norm"][:, 0]}, {"w": values["relative_update"][:, 0]})
    found = reference([run])
    late = np.arange(STEPS // 2, STEPS)
    for lr, decay in ((0.01, 0.1), (0.03, 0.1), (0.005, 0.4), (0.02, 0.0)):
        other = at(lr, decay)
        ours, law = predict(other, reference=found).values(late), predict(other).values(late)
        bound = max(lr * decay, 0.01 * 0.1) / (1 - 0.9)
        for quantity in ("norm", "angle"):
            assert np.abs(ours[quantity] / law[quantity] - 1).max() < bound


def test_tensors_that_it_does_not_know_follow_the_laws():
    found = reference([grown(RECIPE, lambda t, norm: 100.0)])
    two = replace(RECIPE, groups=(Group("v", (8, 8), norm0=1.0), RECIPE.groups[0], Group("u", (8, 8))))
    mixed, plain = predict(two, reference=found), predict(two)
    at_end = mixed.at(STEPS - 1)["norm"]
    assert at_end["v"] == plain.at(STEPS - 1).loc["v", "norm"]
    assert at_end["w"] == predict(RECIPE, reference=found).at(STEPS - 1).loc["w", "norm"]
    assert at_end["w"] != plain.at(STEPS - 1).loc["w", "norm"]


def test_two_references_have_the_narrower_band():
    run = grown(RECIPE, lambda t, norm: 100.0)
    rows = [predict(RECIPE, reference=reference(runs)).at(STEPS - 1).loc["w"] for runs in ([run], [run, run])]
    one, two = (row["norm_high"] / row["norm_low"] for row in rows)
    assert two < one < predict(RECIPE).at(STEPS - 1).loc["w", "norm_high"] / rows[0]["norm_low"]


def test_it_is_written_and_read():
    found = reference([grown(RECIPE, lambda t, norm: 100.0)])
    assert from_json(to_json(found)) == found


def test_power_law_without_a_logarithm_is_the_mean():
    value, power = power_law(np.log([[1.0, 1.0], [2.0, 1.0]]), np.array([[-1.0, 2.0], [3.0, 4.0]]))
    np.testing.assert_allclose(power, 0)
    np.testing.assert_allclose(value, [1.0, 3.0])


def test_bad_input():
    run = grown(RECIPE, lambda t, norm: 100.0)
    found = reference([run])
    with pytest.raises(InputError, match="at least one finished run"):
        reference([])
    with pytest.raises(InputError, match="SGD is not allowed: a reference speaks of AdamW only"):
        predict(replace(RECIPE, optimizer=SGD(lr=0.1)), reference=found)
    with pytest.raises(InputError, match=r"runs = \[300, 600\] .* one number of steps"):
        reference([run, grown(at(0.01, 0.1, steps=300), lambda t, norm: 100.0)])
    with pytest.raises(InputError, match="measured to the end"):
        reference([replace(run, steps=run.steps[:300])])
    with pytest.raises(InputError, match="steps = 900"):
        predict(at(0.01, 0.1, steps=900), reference=found)
    with pytest.raises(InputError, match="given alone"):
        predict(RECIPE, Probe(tensors={"w": TensorProbe(norm=1.0)}), reference=found)
