"""predict's fast solver against the exact recursions: 0.2 % in norm everywhere."""

import numpy as np
import pytest

from theory import adamw_trajectory, predict, sgd_trajectory
from theory.optimizers import SGD, Adam, AdamW
from theory.probe import Probe, TensorProbe
from theory.recipe import Group, Recipe
from theory.schedules import Constant, Cosine, InverseSqrt, Linear, Piecewise, WarmupStableDecay

STEPS = 6_000
SCHEDULES = {
    "cosine": Cosine(warmup=300, final=0.1),
    "linear": Linear(warmup=100),
    "wsd": WarmupStableDecay(warmup=100, decay=1_500),
    "invsqrt": InverseSqrt(warmup=200),
    "up and down": Piecewise(knots=((0, 0.3), (2_000, 1.0), (4_000, 0.1))),
    "constant": Constant(),
}


def compare(law, path, lrs):
    assert path[0] == pytest.approx(law.norm, rel=2e-3)
    moving = lrs > 1e-3 * lrs.max()
    assert path[1][moving] == pytest.approx(law.angle[moving], rel=6e-3)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("betas", [(0.9, 0.95), (0.9, 0.999)])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1, 1.0])
def test_adamw(schedule, betas, weight_decay):
    d, rms0 = 256, (1e-3, 0.02, 0.2)
    groups = tuple(
        Group(f"{rms}{kind}", (d,), norm0=rms * d**0.5, scale_invariant=kind)
        for rms in rms0
        for kind in ("tensor", None)
    )
    recipe = Recipe(AdamW(lr=1e-3, betas=betas, weight_decay=weight_decay), SCHEDULES[schedule], STEPS, groups)
    values = predict(recipe).values(np.arange(STEPS))
    lrs = recipe.lr(np.arange(STEPS))
    for i, group in enumerate(groups):
        law = adamw_trajectory(
            lrs, weight_decay, betas, group.norm0, d, scale_invariant=group.scale_invariant is not None
        )
        compare(law, (values["norm"][:, i], values["angle"][:, i]), lrs)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    ("momentum", "dampening", "nesterov"), [(0.0, 0.0, False), (0.9, 0.0, False), (0.9, 0.9, False), (0.9, 0.0, True)]
)
@pytest.mark.parametrize("weight_decay", [0.0, 5e-4, 1e-2])
def test_sgd(schedule, momentum, dampening, nesterov, weight_decay):
    groups = tuple(Group(f"{norm}", (16,), norm0=norm, scale_invariant="tensor") for norm in (0.5, 1.0, 5.0))
    optimizer = SGD(0.1, momentum, dampening, weight_decay, nesterov)
    recipe = Recipe(optimizer, SCHEDULES[schedule], STEPS, groups)
    probe = Probe(0, {group.name: TensorProbe(c2=1.0) for group in groups})
    values = predict(recipe, probe).values(np.arange(STEPS))
    lrs = recipe.lr(np.arange(STEPS))
    for i, group in enumerate(groups):
        law = sgd_trajectory(lrs, weight_decay, momentum, nesterov, group.norm0, 1.0, dampening=dampening)
        compare(law, (values["norm"][:, i], values["angle"][:, i]), lrs)


def test_oscillating_sgd_is_solved_exactly():
    """lr*weight_decay > (1-sqrt(momentum))^2 has no slow root."""
    recipe = Recipe(
        SGD(0.5, 0.9, weight_decay=0.05), Constant(), 500, (Group("w", (8,), norm0=1.0, scale_invariant="row"),)
    )
    values = predict(recipe, Probe(0, {"w": TensorProbe(c2=1.0)})).values(np.arange(500))
    law = sgd_trajectory([0.5] * 500, 0.05, 0.9, False, 1.0, 1.0)
    assert values["norm"][:, 0] == pytest.approx(law.norm, rel=1e-12)
    assert values["angle"][:, 0] == pytest.approx(law.angle, rel=1e-6)


def test_a_probe_restarts_the_prediction_where_it_was_taken():
    group = Group("w", (32, 32), norm0=0.6)
    recipe = Recipe(AdamW(lr=1e-2, betas=(0.9, 0.95), weight_decay=0.05), SCHEDULES["cosine"], STEPS, (group,))
    whole = predict(recipe).values(np.arange(STEPS))
    again = predict(recipe, Probe(3_000, {"w": TensorProbe(norm=float(whole["norm"][2_999, 0]))}))
    assert again.start == 3_000
    late = np.arange(3_000, STEPS)
    assert again.values(late)["norm"] == pytest.approx(whole["norm"][late], rel=1e-4)
    assert again.values(late)["angle"] == pytest.approx(whole["angle"][late], rel=1e-3)


def test_adam_without_decay_is_adamw_without_decay():
    group = Group("w", (32, 32), norm0=0.6)
    pair = [Recipe(kind(1e-3, weight_decay=0.0), Cosine(), 1_000, (group,)) for kind in (Adam, AdamW)]
    first, second = (predict(recipe).values([10, 999]) for recipe in pair)
    assert all(np.array_equal(first[name], second[name]) for name in first)
