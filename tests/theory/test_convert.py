"""A recipe in another convention is the same run: the same shrinks, the same prediction, torch's own weights."""

from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from theory import convert, predict
from theory.errors import InputError
from theory.optimizers import SGD, Adam, AdamW, Decay, Hyperball, Lion, Muon, Signum
from theory.recipe import Group, Recipe
from theory.schedules import Constant, Cosine, Linear, WarmupStableDecay

STEPS = 60
GROUPS = (Group("a", (8, 8), norm0=2.0), Group("b", (8,), norm0=1.0, lr_factor=0.5), Group("c", (8,), decayed=False))
SHRINKING = [Decay.DECOUPLED, Decay.INDEPENDENT, Decay.CORRECTED, Decay.SCHEDULED]


def recipe_of(kind, schedule, optimizer=AdamW, value=0.1):
    own = Linear(final=0.2) if kind is Decay.SCHEDULED else None
    return Recipe(optimizer(lr=0.01, weight_decay=value, decay=kind), schedule, STEPS, GROUPS, own)


def shrinks(recipe):
    return np.array([recipe.shrink(np.arange(recipe.steps), group) for group in recipe.groups])


@pytest.mark.parametrize("schedule", [Constant(), Cosine(warmup=10, final=0.1), WarmupStableDecay(warmup=5), Linear()])
@pytest.mark.parametrize("optimizer", [AdamW, Lion, Signum])
@pytest.mark.parametrize("source", SHRINKING)
def test_scheduled_decay_can_follow_every_other(source, optimizer, schedule):
    recipe = recipe_of(source, schedule, optimizer)
    same = convert(recipe, "scheduled")
    assert same.exact
    assert same.recipe is not None
    assert same.recipe.optimizer.decay is Decay.SCHEDULED
    np.testing.assert_allclose(shrinks(same.recipe), shrinks(recipe), rtol=1e-12)
    ours, theirs = (predict(r).values(range(STEPS)) for r in (recipe, same.recipe))
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-9)


@pytest.mark.parametrize("target", SHRINKING)
@pytest.mark.parametrize("source", SHRINKING[:3])
def test_under_a_constant_rate_all_are_one(source, target):
    recipe = recipe_of(source, Constant())
    same = convert(recipe, target)
    np.testing.assert_allclose(shrinks(same.recipe), shrinks(recipe), rtol=1e-12)
    back = convert(same.recipe, source)
    np.testing.assert_allclose(shrinks(back.recipe), shrinks(recipe), rtol=1e-12)
    assert back.recipe.optimizer.weight_decay == pytest.approx(recipe.optimizer.weight_decay, rel=1e-12)


def test_independent_decay_that_follows_the_schedule_is_decoupled_decay():
    recipe = recipe_of(Decay.INDEPENDENT, Cosine(warmup=10))
    same = convert(recipe, Decay.DECOUPLED)
    assert same.exact
    assert same.recipe.optimizer.weight_decay == pytest.approx(0.1 / 0.01)
    assert same.recipe.groups[1].weight_decay == pytest.approx(0.1 / 0.005)  # half the rate, twice the coefficient
    np.testing.assert_allclose(shrinks(same.recipe), shrinks(recipe), rtol=1e-12)


def test_torchs_adamw_with_the_coefficients_is_corrected_adamw():
    """Defazio's update as written, against torch.optim.AdamW whose weight_decay is set at each step."""
    schedule, lr, decay = Cosine(warmup=10, final=0.1), 0.01, 0.5
    recipe = Recipe(AdamW(lr, weight_decay=decay, decay=Decay.CORRECTED), schedule, STEPS)
    coefficients = convert(recipe, "scheduled").weight_decay
    rates = recipe.lr(np.arange(STEPS))
    generator = torch.Generator().manual_seed(0)
    gradients = torch.randn(STEPS, 32, generator=generator, dtype=torch.float64)
    w, literal = (torch.nn.Parameter(torch.ones(32, dtype=torch.float64)) for _ in range(2))
    ours, adam = torch.optim.AdamW([w]), torch.optim.Adam([literal])
    for step in range(STEPS):
        ours.param_groups[0] |= {"lr": rates[step], "weight_decay": coefficients[step]}
        adam.param_groups[0]["lr"] = rates[step]
        w.grad, literal.grad = gradients[step].clone(), gradients[step].clone()
        ours.step()
        with torch.no_grad():
            literal *= 1 - rates[step] ** 2 * decay / lr
        adam.step()
    torch.testing.assert_close(w, literal, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("recipe", "to", "why"),
    [
        (recipe_of(Decay.DECOUPLED, Cosine()), "corrected", r"no corrected counterpart under this schedule"),
        (recipe_of(Decay.CORRECTED, Cosine()), "decoupled", r"run from 0.1 to .*; to = 'scheduled' has one"),
        (recipe_of(Decay.SCHEDULED, Constant()), "independent", "no independent counterpart under this schedule"),
        (recipe_of(Decay.DECOUPLED, Constant()), "coupled", "AdamW has no coupled counterpart: a decay term inside"),
        (recipe_of(Decay.DECOUPLED, Constant()), "none", "dl.equivalent_schedule"),
        (recipe_of(Decay.DECOUPLED, Constant()), "weird", "to = 'weird' is not allowed: it must be one of coupled"),
        (Recipe(Adam(0.01, weight_decay=0.1)), "decoupled", "Adam's coupled decay has no counterpart"),
        (Recipe(Hyperball(0.01)), "decoupled", "Hyperball has no decay to convert"),
        (Recipe(SGD(0.1, weight_decay=0.1)), "cautious", "no cautious counterpart"),
    ],
)
def test_where_there_is_none_it_says_why(recipe, to, why):
    with pytest.raises(InputError, match=why):
        convert(recipe, to)


def test_cautious_decay_has_twice_the_coefficient_and_is_marked():
    both = convert(recipe_of(Decay.DECOUPLED, Cosine()), "cautious")
    assert not both.exact
    assert both.recipe.optimizer.weight_decay == pytest.approx(0.2)
    assert "half of the coordinates" in both.why


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_in_torch(momentum):
    """A step on zero gradients, coupled, and the decoupled coefficient: equal at once, or after the buffer filled."""
    recipe = Recipe(SGD(0.01, momentum=momentum, weight_decay=0.05), Constant(), 400)
    other = convert(recipe, "decoupled")
    assert other.exact is (momentum == 0)
    assert other.recipe is None
    w = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = torch.optim.SGD([w], lr=0.01, momentum=momentum, weight_decay=0.05)
    for _ in range(400):
        before = w.item()
        w.grad = torch.zeros_like(w)
        optimizer.step()
    # leading order in lr*weight_decay/(1-momentum)^2 = 5e-4/0.01
    assert 1 - w.item() / before == pytest.approx(0.01 * other.weight_decay[-1], rel=0.06 if momentum else 1e-9)


def test_a_step_of_rate_zero_needs_no_coefficient():
    found = convert(recipe_of(Decay.CORRECTED, Linear()), "scheduled")
    assert not np.isnan(found.weight_decay).any()
    zero = convert(Recipe(AdamW(0.0, weight_decay=0.1)), "scheduled")
    assert np.isnan(zero.weight_decay).all()
    assert zero.exact


@given(st.sampled_from(SHRINKING), st.sampled_from(SHRINKING), st.floats(0, 0.9), st.floats(0, 1), st.integers(0, 20))
def test_whatever_it_returns_shrinks_alike(source, target, value, final, warmup):
    recipe = recipe_of(source, Cosine(warmup=warmup, final=final), value=value)
    same = recipe
    with suppress(InputError):  # none exists, or its coefficient would be beyond what a recipe allows
        same = convert(recipe, target).recipe
    np.testing.assert_allclose(shrinks(same), shrinks(recipe), rtol=1e-11, atol=1e-300)
    assert convert(recipe, source).recipe is recipe


def test_muon():
    recipe = Recipe(Muon(0.02, weight_decay=0.1, decay=Decay.CORRECTED), Cosine(), STEPS, (Group("a", (8, 16)),))
    np.testing.assert_allclose(shrinks(convert(recipe, "scheduled").recipe), shrinks(recipe), rtol=1e-12)
