"""What has no twin, or makes no sense, gets one clear sentence."""

import re

import numpy as np
import pytest

from theory import (
    adamw_exponential_lr,
    equivalent_schedule,
    lion_exponential_lr,
    lion_exponential_schedule,
    sgd_exponential_lr,
    sgd_exponential_schedule,
)
from theory.errors import InputError
from theory.optimizers import AdamW, Decay
from theory.recipe import Group, Recipe
from theory.schedules import Constant

LRS = "lrs is not allowed: it must be a non-empty sequence of finite rates >= 0."
DECAY = "weight_decay = .* is not allowed: it must be a finite number >= 0, or one for each step."


@pytest.mark.parametrize("law", [sgd_exponential_schedule, adamw_exponential_lr, lion_exponential_schedule])
@pytest.mark.parametrize(
    ("lrs", "wd", "sentence"),
    [
        ([], 0.1, LRS),
        (0.1, 0.1, LRS),
        ([[0.1]], 0.1, LRS),
        ([0.1, -0.1], 0.1, LRS),
        ([0.1, np.nan], 0.1, LRS),
        ([0.1, np.inf], 0.1, LRS),
        ("fast", 0.1, "lrs = 'fast' is not allowed: it must be numbers, one for each step."),
        ([0.1, 0.1], -0.1, DECAY),
        ([0.1, 0.1], [0.1], DECAY),
        ([0.1, 0.1], np.nan, DECAY),
        ([0.1], {}, "weight_decay = {} is not allowed: it must be numbers, one for each step."),
    ],
)
def test_bad_runs_get_a_sentence(law, lrs, wd, sentence):
    with pytest.raises(InputError, match=f"^{sentence}$"):
        law(lrs, wd)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: sgd_exponential_schedule([0.1], 0.1, 1.0), "momentum = 1.0 is not allowed"),
        (lambda: sgd_exponential_schedule([0.1], 0.1, 0.9, 1.1), "dampening = 1.1 is not allowed"),
        (lambda: sgd_exponential_schedule([0.5, 2.0], 0.5), "through zero at step 1 (lr * weight_decay = 1, momentum"),
        (lambda: sgd_exponential_lr(-0.1, 0.1), "lr = -0.1 is not allowed"),
        (lambda: sgd_exponential_lr(0.1, float("inf")), "weight_decay = inf is not allowed"),
        (lambda: sgd_exponential_lr(0.1, 0.1, 1.0), "momentum = 1.0 is not allowed"),
        (lambda: sgd_exponential_lr(1.0, 1.0), "lr * weight_decay = 1 is not allowed"),
        (lambda: adamw_exponential_lr([0.1], 0.1, (0.9,)), "betas = (0.9,) is not allowed"),  # pyright: ignore
        (lambda: adamw_exponential_lr([0.1], 0.1, (0.9, 1.0)), "betas[1] = 1.0 is not allowed"),
        (lambda: adamw_exponential_lr([0.1], 0.1, eps=-1.0), "eps = -1.0 is not allowed"),
        (lambda: adamw_exponential_lr([0.1, 0.1], 10.0), "a decay of 1 at step 0 is not allowed"),
        (lambda: adamw_exponential_lr([0.1, 0.2], 6.0), "a decay of 1.2 at step 1 is not allowed"),
        (lambda: lion_exponential_schedule([0.1], 0.1, (-0.1, 0.9)), "betas[0] = -0.1 is not allowed"),
        (lambda: lion_exponential_lr(0.1, 10.0), "lr * weight_decay = 1.0 is not allowed: it must be in [0, 1)."),
        (lambda: lion_exponential_lr(float("nan"), 0.1), "lr = nan is not allowed"),
    ],
)
def test_bad_settings_get_a_sentence(call, sentence):
    with pytest.raises(InputError, match=re.escape(sentence)):
        call()


def test_of_a_recipe_only_what_is_scale_invariant_has_a_twin():
    groups = (
        Group("w", (8, 8), scale_invariant="tensor"),
        Group("v", (8, 8), scale_invariant="row", lr_factor=0.5),
        Group("gain", (8,)),
    )
    recipe = Recipe(AdamW(0.1, weight_decay=1.0), Constant(), 10, groups)
    np.testing.assert_allclose(equivalent_schedule(recipe, group="w").norm_ratio, 0.9 ** np.arange(1, 11), rtol=1e-13)
    np.testing.assert_allclose(equivalent_schedule(recipe, group="v").norm_ratio, 0.95 ** np.arange(1, 11), rtol=1e-13)
    for group, sentence in (
        ("gain", "group 'gain' has no twin: it must be scale-invariant"),
        ("x", "group = 'x' is not allowed"),
        (None, "groups 'w' and 'v' differ in learning rate or decay and need different twins"),
    ):
        with pytest.raises(InputError, match=sentence):
            equivalent_schedule(recipe, group=group)
    with pytest.raises(InputError, match="no group of the recipe has a twin"):
        equivalent_schedule(Recipe(AdamW(0.1), Constant(), 10, groups[2:]))
    with pytest.raises(InputError, match=r"a decay of 1.5 at step 0 is not allowed: .*weight_decay itself"):
        equivalent_schedule(Recipe(AdamW(0.1, weight_decay=1.5, decay=Decay.INDEPENDENT), Constant(), 10))
