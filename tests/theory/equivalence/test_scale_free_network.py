"""Twins of the optimizers that forget the gradients' size, on the network: Signum, normalised momentum, Muon."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from empirics.scale_free import NormalizedMomentum as TorchNormalized
from empirics.scale_free import Signum as TorchSignum
from theory import equivalent_schedule
from theory.errors import InputError
from theory.optimizers import Decay, Hyperball, Muon, NormalizedMomentum, Signum
from theory.recipe import Group, Recipe
from theory.schedules import Constant, Cosine, WarmupStableDecay

STEPS = 200
MATRICES = Group("matrices", (24, 24), scale_invariant="tensor")


class Polar(TorchSignum):
    """Muon without Nesterov, its polar factor by a float64 SVD: torch's own rounds to bfloat16 on the way.

    LayerNorm ignores one direction of its matrix; there the momentum is rounding noise, which must not be blown up.
    """

    def _direction(self, grad, buffer, group):
        m = buffer.mul_(group["momentum"]).add_(grad, alpha=1 - group["momentum"])
        left, values, right = torch.linalg.svd(m, full_matrices=False)
        kept = values > 1e-10 * values[0]
        return left[:, kept] @ right[kept]


CASES = {
    "signum": (Signum(0.01, 0.9, 0.5), TorchSignum),
    "normalised": (NormalizedMomentum(0.2, 0.9, 0.05), TorchNormalized),
    "muon": (Muon(0.05, 0.2, 0.9, nesterov=False, ns_steps=None), Polar),
}


def settings(recipe, decayed):
    """lr, momentum and decay of each step, of the recipe as it is or of its twin."""
    steps = np.arange(recipe.steps)
    if decayed:
        lr, shrink = recipe.lr(steps), recipe.shrink(steps, recipe.groups[0])
        return {"lr": lr, "weight_decay": shrink / lr}
    twin = equivalent_schedule(recipe)
    return {"lr": twin.lr, "momentum": twin.betas[:, 1]}


@pytest.mark.parametrize("schedule", [Cosine(warmup=20, final=0.1), WarmupStableDecay(warmup=30, decay=60)])
@pytest.mark.parametrize("decay", [Decay.DECOUPLED, Decay.CORRECTED])
@pytest.mark.parametrize("name", CASES)
def test_the_twin_is_the_run(learn, name, decay, schedule):
    optimizer, build = CASES[name]
    recipe = Recipe(replace(optimizer, decay=decay), schedule, STEPS, (MATRICES,))
    decayed = learn(lambda w: build(w, momentum=0.9), STEPS, settings(recipe, decayed=True))
    twin = learn(lambda w: build(w), STEPS, settings(recipe, decayed=False))
    decayed.assert_same(twin, equivalent_schedule(recipe).norm_ratio)
    plan = settings(recipe, decayed=False) | {"momentum": 0.9}
    naive = learn(lambda w: build(w), STEPS, plan)  # the growing rates alone
    assert decayed.gap(naive)[20] > 1e-3
    assert decayed.gap(naive)[-1] > 0.05


def test_torchs_muon_to_the_rounding_inside_it(learn):
    """Newton-Schulz rounds to bfloat16: the twin parts from the run no faster than the run from itself on 1.3 times
    its gradients, to which Muon is blind but for that rounding."""
    recipe = Recipe(Muon(0.05, 0.2, 0.9, nesterov=False), Constant(), 51, (MATRICES,))

    def build(weights, factor=1.0):
        for w in weights:
            w.register_hook(lambda gradient: factor * gradient)
        return torch.optim.Muon(weights, momentum=0.9, nesterov=False)

    plan = settings(recipe, decayed=False) | {"weight_decay": 0.0}
    decayed, floor = (learn(lambda w, f=f: build(w, f), 51, settings(recipe, decayed=True)) for f in (1.0, 1.3))
    twin = decayed.gap(learn(build, 51, plan))
    naive = decayed.gap(learn(build, 51, plan | {"momentum": 0.9}))
    rounding = decayed.gap(floor)
    assert np.all(twin[5:] < 2 * rounding[5:])
    assert naive[50] > 2 * rounding[50]


def test_fixed_norm_is_its_own_twin():
    recipe = Recipe(Hyperball(0.05), Cosine(), STEPS)
    twin = equivalent_schedule(recipe)
    np.testing.assert_array_equal(twin.lr, recipe.lr(np.arange(STEPS)))
    np.testing.assert_array_equal(twin.norm_ratio, np.ones(STEPS))


def test_muon_with_nesterov_has_none():
    with pytest.raises(InputError, match="Muon with nesterov = True has no twin: the gradient is mixed in twice"):
        equivalent_schedule(Recipe(Muon(0.05, 0.2), Constant(), STEPS))
