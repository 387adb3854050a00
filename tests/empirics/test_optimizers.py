import math

import pytest
import torch
from torch import nn

from empirics.models import GPT2Config, ResNetConfig
from empirics.optimizers import build_optimizer, clip, set_rates
from theory.optimizers import SGD, Adam, AdamW, Decay
from theory.recipe import Group, Recipe
from theory.schedules import Cosine


@pytest.mark.parametrize("decayed", ["matrices", "all"])
@pytest.mark.parametrize("model", [GPT2Config(16, 4, 1, 1, 4, bias=True), ResNetConfig(width=2)])
def test_every_trainable_parameter_is_in_exactly_one_group_by_nanogpts_rule(model, decayed):
    network = model.build(seed=0)
    next(network.parameters()).requires_grad_(False)
    groups = build_optimizer(AdamW(lr=0.1, weight_decay=0.3), network, decayed=decayed).param_groups
    found = {p: group["weight_decay"] for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(found)
    assert set(found) == {p for p in network.parameters() if p.requires_grad}
    assert all(decay == (0.3 if p.dim() >= 2 or decayed == "all" else 0.0) for p, decay in found.items())


@pytest.mark.parametrize(
    ("spec", "reference"),
    [
        (SGD(lr=0.1, weight_decay=0.1), lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.1)),
        (
            SGD(lr=0.1, momentum=0.9, dampening=0.5, weight_decay=0.1),
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5, weight_decay=0.1),
        ),
        (
            SGD(lr=0.1, momentum=0.9, nesterov=True),
            lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        ),
        (
            Adam(lr=0.1, betas=(0.5, 0.9), eps=1e-3, weight_decay=0.1),
            lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.5, 0.9), eps=1e-3, weight_decay=0.1),
        ),
        (
            AdamW(lr=0.1, betas=(0.5, 0.9), eps=1e-3, weight_decay=0.1),
            lambda p: torch.optim.AdamW(p, lr=0.1, betas=(0.5, 0.9), eps=1e-3, weight_decay=0.1),
        ),
        (AdamW(lr=0.1, weight_decay=0.1, decay=Decay.NONE), lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.0)),
    ],
)
def test_the_same_trajectory_as_torchs_plain_loop(spec, reference):
    weights = []
    for build in (lambda model: build_optimizer(spec, model), lambda model: reference(model.parameters())):
        torch.manual_seed(0)
        model = nn.Linear(3, 2, bias=False, dtype=torch.float64)
        optimizer = build(model)
        for _ in range(5):
            optimizer.zero_grad()
            model(torch.randn(4, 3, dtype=torch.float64)).pow(2).mean().backward()
            optimizer.step()
        weights.append(model.weight.detach())
    assert torch.allclose(*weights, rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", [Decay.DECOUPLED, Decay.INDEPENDENT, Decay.CORRECTED, Decay.NONE])
def test_a_step_without_gradient_shrinks_as_the_recipe_says(kind):
    spec = AdamW(lr=0.1, weight_decay=0.2, decay=kind)
    recipe = Recipe(spec, Cosine(warmup=2, final=0.1), steps=6, groups=(Group("weight", (2, 2)),))
    model = nn.Linear(2, 2, bias=False, dtype=torch.float64)
    optimizer = build_optimizer(spec, model)
    for step in range(6):
        model.weight.grad = torch.zeros_like(model.weight)
        before = model.weight.detach().clone()
        set_rates(optimizer, spec, float(recipe.schedule.at(step, 6)))
        optimizer.step()
        shrink = 1 - (model.weight.detach() / before).mean().item()
        assert shrink == pytest.approx(float(recipe.shrink(step, recipe.groups[0])), abs=1e-12)
        assert optimizer.param_groups[0]["lr"] == pytest.approx(float(recipe.lr(step)))


@pytest.mark.parametrize("limit", [0.5, 1e6])
def test_clipping_is_torchs(limit):
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.zeros(n, 3)) for n in (2, 40, 1)]
    for p in ours[:2]:
        p.grad = torch.randn_like(p)
    theirs = [nn.Parameter(p.detach().clone()) for p in ours[:2]]
    for p, q in zip(theirs, ours, strict=False):
        p.grad = q.grad.clone()
    total = clip(ours, limit)
    expected = torch.nn.utils.clip_grad_norm_(theirs, limit)
    assert total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert ours[2].grad is None
    for p, q in zip(theirs, ours, strict=False):
        assert torch.allclose(p.grad, q.grad, rtol=1e-6)
    norm = math.sqrt(sum(p.grad.square().sum().item() for p in ours[:2]))
    assert norm == pytest.approx(min(limit, total.item()), rel=1e-5)


def test_gradients_that_need_no_clipping_stay_bitwise():
    p = nn.Parameter(torch.zeros(3))
    p.grad = torch.tensor([0.1, 0.2, 0.3])
    expected = p.grad.clone()
    clip([p], 1.0)
    assert torch.equal(p.grad, expected)


def test_a_gradient_that_is_not_finite_shows_in_the_total():
    p = nn.Parameter(torch.zeros(3))
    p.grad = torch.tensor([1.0, math.inf, 0.0])
    assert not math.isfinite(clip([p], 1.0).item())
