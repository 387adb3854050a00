import numpy as np
import pytest

from theory.advice import run_timescales, warnings_for
from theory.optimizers import SGD, Adam, AdamW, Decay
from theory.probe import TensorProbe
from theory.recipe import Group, Recipe
from theory.schedules import Constant, Linear, Piecewise

W = Group("w", (8, 8), norm0=1.0, scale_invariant="tensor")
MEASURED = {"w": TensorProbe(c2=1.0)}


@pytest.mark.parametrize(
    ("optimizer", "steps", "words"),
    [
        (AdamW(lr=1e-3, weight_decay=1e-3), 1_000, ("too small to matter", "0.1%", "0.001")),
        (AdamW(lr=1e-3, weight_decay=0.1), 1_500, ("5,000 steps", "1,500 steps", "longer than the run")),
        (AdamW(lr=1e-3, weight_decay=0.1), 8_000, ("0.8", "below 1")),
        (AdamW(lr=1e-3, betas=(0.9, 0.8), weight_decay=0.1), 50_000, ("betas[1] = 0.8", "0.85")),
        (AdamW(lr=1e-3, weight_decay=0.0), 100, ("Nothing is decayed",)),
        (AdamW(lr=1e-3, decay=Decay.NONE), 100, ("Nothing is decayed",)),
        (SGD(lr=0.1, weight_decay=1e-3), 50_000, ("without a probe",)),
        (SGD(lr=0.1, momentum=0.9, weight_decay=1e-5), 1_000, ("too small to matter", "1.0%")),
        (Adam(lr=1e-3, weight_decay=1e-3), 1_000, ("coupled decay", "without a probe")),
    ],
)
def test_what_will_not_work_is_said(optimizer, steps, words):
    found = warnings_for(Recipe(optimizer, Constant(), steps, (W,)), {})
    assert any(all(word in sentence for word in words) for sentence in found), found
    assert all(sentence.endswith(".") and "\n" not in sentence for sentence in found)


@pytest.mark.parametrize(
    ("optimizer", "measured"),
    [
        (AdamW(lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1), {}),
        (SGD(lr=0.1, momentum=0.9, weight_decay=1e-3), MEASURED),
        (Adam(lr=1e-3, weight_decay=1e-3), MEASURED),
    ],
)
def test_sound_recipes_pass_in_silence(optimizer, measured):
    assert warnings_for(Recipe(optimizer, Constant(), 50_000, (W,)), measured) == ()


def test_a_schedule_that_turns_decay_off():
    recipe = Recipe(AdamW(lr=1e-2, weight_decay=0.1), Linear(), 50_000, (W,))
    assert any("ends near zero" in sentence for sentence in warnings_for(recipe, {}))


def test_unknown_initial_norms():
    recipe = Recipe(AdamW(lr=1e-2, weight_decay=0.1), Constant(), 50_000, (Group("a", (8, 8)), W))
    assert any("1 tensor(s) (a, ...)" in sentence for sentence in warnings_for(recipe, {}))
    assert warnings_for(recipe, {"a": TensorProbe(norm=1.0)}) == ()


@pytest.mark.parametrize(
    ("optimizer", "scale_invariant", "shrink", "order"),
    [
        (AdamW(0.01, weight_decay=0.2), "tensor", 0.002, 2),
        (SGD(0.1, weight_decay=0.01), "row", 0.001, 4),
        (SGD(0.1, 0.9, weight_decay=0.01), "row", 0.01, 4),
        (SGD(0.1, 0.9, 0.5, weight_decay=0.01), None, 0.005, 2),
    ],
)
def test_timescales(optimizer, scale_invariant, shrink, order):
    """kappa sums the long-run shrink over the schedule; relaxation is theory.md 3.6 at the peak."""
    group = Group("w", (4,), scale_invariant=scale_invariant)
    schedule = Piecewise(knots=((0, 1.0), (60, 0.5)))
    kappa, relaxation = run_timescales(Recipe(optimizer, schedule, 100, (group,)), group)
    assert kappa == pytest.approx(shrink * 80)
    assert relaxation == pytest.approx(1 / (order * shrink))
    assert run_timescales(Recipe(AdamW(0.1, weight_decay=0.0), Constant(), 9, (group,)), group) == (0.0, np.inf)
