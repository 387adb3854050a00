import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory.errors import InputError
from theory.optimizers import SGD, Adam, AdamW, Decay
from theory.recipe import Group, Recipe
from theory.schedules import Constant, Cosine, InverseSqrt, Linear, Piecewise, WarmupStableDecay

sizes = st.floats(0, 10) | st.integers(0, 3)
groups = st.builds(
    Group,
    name=st.text(min_size=1, max_size=5),
    shape=st.lists(st.integers(1, 50), max_size=4),
    count=st.integers(1, 3),
    scale_invariant=st.sampled_from(["tensor", "row", None]),
    decayed=st.booleans(),
    norm0=st.none() | sizes,
    lr_factor=st.floats(0, 2),
    weight_decay=st.none() | st.floats(0, 0.1),
)
betas = st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)) | st.lists(st.just(0.5), min_size=2, max_size=2)
shapes = st.one_of(
    st.builds(Constant, st.integers(0, 5)),
    st.builds(Linear, st.integers(0, 5), st.floats(0, 1)),
    st.builds(Cosine, st.integers(0, 5), st.floats(0, 1)),
    st.builds(InverseSqrt, st.integers(0, 5), st.none() | st.integers(1, 9)),
    st.builds(WarmupStableDecay, st.integers(0, 5), st.integers(0, 5) | st.floats(0, 0.2), st.floats(0, 1)),
    st.just(Piecewise(2, ((0, 1), (3, 0.25)), "linear")),
)


@st.composite
def recipes(draw):
    decay = draw(st.sampled_from([kind for kind in Decay if kind is not Decay.COUPLED]))
    lr, wd = draw(st.floats(0, 0.5)), draw(st.floats(0, 0.5))
    optimizer = draw(
        st.sampled_from([SGD(lr, 0.9, weight_decay=wd, nesterov=True), SGD(lr), Adam(lr, weight_decay=wd)])
        | st.builds(AdamW, st.just(lr), betas, weight_decay=st.just(wd), decay=st.just(decay))
    )
    scheduled = draw(shapes) if optimizer.decay is Decay.SCHEDULED else None
    members = draw(st.lists(groups, max_size=3, unique_by=lambda group: group.name))
    return Recipe(optimizer, draw(shapes), draw(st.integers(10, 10_000)), members, scheduled)


@given(recipes())
def test_any_recipe_survives_json(recipe):
    again = Recipe.from_json(recipe.to_json(indent=2))
    assert again == recipe
    assert again.hash == recipe.hash
    assert again.to_json() == recipe.to_json()


@given(recipes(), recipes())
def test_hashes_differ_exactly_when_contents_do(one, other):
    assert (one.hash == other.hash) == (one == other)


@given(recipes())
def test_any_change_changes_the_hash(recipe):
    longer = Recipe(recipe.optimizer, recipe.schedule, recipe.steps + 1, recipe.groups, recipe.weight_decay_schedule)
    more = Recipe(
        recipe.optimizer,
        recipe.schedule,
        recipe.steps,
        (*recipe.groups, Group("another name", (1,))),
        recipe.weight_decay_schedule,
    )
    assert len({recipe.hash, longer.hash, more.hash}) == 3


@given(recipes())
def test_shrink_is_a_fraction_that_follows_the_schedule(recipe):
    steps = np.arange(recipe.steps)
    for group in recipe.groups:
        lr, shrink = recipe.lr(steps, group), recipe.shrink(steps, group)
        assert lr.shape == shrink.shape == steps.shape
        assert np.all(lr >= 0)
        assert np.all((shrink >= 0) & (shrink < 1))
        if not group.decayed or recipe.optimizer.decay is Decay.NONE:
            assert not shrink.any()
            assert recipe.decay_of(group) == 0


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        # lr 0.2, weight_decay 0.1, schedule s = 1, 1/2; without gradient w becomes (1 - shrink)w (theory.md 10)
        (Decay.NONE, (0, 0)),
        (Decay.DECOUPLED, (0.02, 0.01)),
        (Decay.INDEPENDENT, (0.1, 0.05)),
        (Decay.CORRECTED, (0.02, 0.005)),
        (Decay.CAUTIOUS, (0.01, 0.005)),  # half of the coordinates, on average
        (Decay.SCHEDULED, (0.02, 0.0025)),  # its own s = 1, 1/4
    ],
)
def test_conventions(decay, expected):
    halves, quarters = (Piecewise(knots=((0, 1.0), (1, value))) for value in (0.5, 0.25))
    own = quarters if decay is Decay.SCHEDULED else None
    group = Group("w", (2,))
    recipe = Recipe(AdamW(0.2, weight_decay=0.1, decay=decay), halves, 2, (group,), own)
    assert recipe.shrink([0, 1], group) == pytest.approx(expected)
    # a group's own rate factor and coefficient
    faster = Group("w", (2,), lr_factor=3.0, weight_decay=0.05)
    recipe = Recipe(AdamW(0.2, weight_decay=0.1, decay=decay), halves, 2, (faster,), own)
    factor = 0.5 if decay is Decay.INDEPENDENT else 1.5
    assert recipe.shrink([0, 1], faster) == pytest.approx(factor * np.array(expected))
    assert recipe.lr([0, 1], faster) == pytest.approx([0.6, 0.3])
    assert recipe.lr([0, 1]) == pytest.approx([0.2, 0.1])


@pytest.mark.parametrize("optimizer", [SGD(0.2), Adam(0.2)])
def test_a_groups_own_decay_acts_where_the_optimizers_is_zero(optimizer):
    group = Group("w", (2,), weight_decay=0.1)
    assert Recipe(optimizer, Constant(), 2, (group,)).shrink([0, 1], group) == pytest.approx([0.02, 0.02])


def test_size():
    assert Group("w", (3, 4, 2)).size == 24
    assert Group("scalar", ()).size == 1


W = Group("w", (2,))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Group("", (2,)), ("name = ''", "non-empty")),
        (lambda: Group(3, (2,)), ("name = 3", "string")),  # pyright: ignore[reportArgumentType]
        (lambda: Group("w", (0,)), ("shape = 0", ">= 1")),
        (lambda: Group("w", 5), ("shape = 5", "sequence")),  # pyright: ignore[reportArgumentType]
        (lambda: Group("w", "55"), ("shape = '55'", "sequence")),  # pyright: ignore[reportArgumentType]
        (lambda: Group("w", (2,), count=0), ("count = 0", ">= 1")),
        (lambda: Group("w", (2,), scale_invariant="column"), ("scale_invariant = 'column'", "'row'")),  # pyright: ignore
        (lambda: Group("w", (2,), norm0=-1.0), ("norm0 = -1.0", ">= 0")),
        (lambda: Group("w", (2,), lr_factor=float("nan")), ("lr_factor = nan", "finite")),
        (lambda: Group("w", (2,), weight_decay=-0.1), ("weight_decay = -0.1", ">= 0")),
        (lambda: Recipe(AdamW(0.1), Constant(), 0), ("steps = 0", ">= 1")),
        (lambda: Recipe(AdamW(0.1), Constant(), 2.5), ("steps = 2.5", "whole")),  # pyright: ignore[reportArgumentType]
        (lambda: Recipe("adam"), ("optimizer = 'adam'", "AdamW")),  # pyright: ignore[reportArgumentType]
        (lambda: Recipe(AdamW(0.1), "cosine"), ("schedule = 'cosine'", "Cosine(")),  # pyright: ignore
        (lambda: Recipe(AdamW(0.1), Constant(), 5, ("w",)), ("groups = ('w',)", "Group")),  # pyright: ignore
        (lambda: Recipe(AdamW(0.1), Constant(), 5, (W, Group("w", (3,)))), ("groups = ['w']", "differently")),
        (lambda: Recipe(AdamW(0.1), Cosine(warmup=9), 5), ("warmup = 9", "steps = 5")),
        (
            lambda: Recipe(AdamW(0.1, decay=Decay.SCHEDULED), Constant(), 5),
            ("weight_decay_schedule = None", "scheduled"),
        ),
        (lambda: Recipe(AdamW(0.1), Constant(), 5, (), Constant()), ("weight_decay_schedule", "None")),
        (
            lambda: Recipe(AdamW(0.1, decay=Decay.SCHEDULED), Constant(), 5, (), Constant(6)),
            ("warmup = 6", "steps = 5"),
        ),
        (
            lambda: Recipe(AdamW(1.0, weight_decay=1.0), Constant(), 5, (W,)),
            ("lr * weight_decay = 1", "'w'", "below 1"),
        ),
        (lambda: Recipe(SGD(2.0, weight_decay=1.0), Constant(), 5, (W,)), ("lr * weight_decay = 2", "below 2")),
        (
            lambda: Recipe(AdamW(0.1, weight_decay=1.5, decay=Decay.INDEPENDENT), Constant(), 5, (W,)),
            ("weight_decay = 1.5", "below 1"),
        ),
        (
            lambda: Recipe(AdamW(0.1, weight_decay=1.0), Constant(), 5, (Group("w", (2,), lr_factor=20.0),)),
            ("lr * weight_decay = 2", "below 1"),
        ),
        (lambda: Recipe.from_json('{"kind": "SGD", "lr": 1}'), ("recipe = 'SGD'", "a Recipe")),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(InputError) as error:
        make()
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)
