import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from empirics.joint import Joint
from empirics.optimizers import build_optimizer, set_rates
from theory.optimizers import SGD, AdamW, Decay, Lion, Muon
from theory.recipe import Group, Recipe
from theory.schedules import Cosine, Linear


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))


def learn(model, optimizer, steps):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 4, generator=generator)).square().mean().backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


def test_two_optimizers_step_as_they_would_alone_and_their_state_comes_back():
    spec, others = Muon(lr=0.02), AdamW(lr=0.01, weight_decay=0.1)
    model = network()
    joint = build_optimizer(spec, model, others=others)
    assert isinstance(joint, Joint)
    plain = network()
    muon = torch.optim.Muon([plain[0].weight, plain[2].weight], lr=0.02, weight_decay=0.1)
    adamw = torch.optim.AdamW([plain[0].bias, plain[2].bias], lr=0.01, weight_decay=0.0, fused=True)

    class Both:
        def zero_grad(self):
            muon.zero_grad(), adamw.zero_grad()

        def step(self):
            muon.step(), adamw.step()

    ours, theirs = learn(model, joint, 3), learn(plain, Both(), 3)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))

    saved = copy.deepcopy(joint.state_dict())
    assert len(saved["state"]) == 4
    other = network()
    other.load_state_dict(model.state_dict())
    again = build_optimizer(spec, other, others=others)
    again.load_state_dict(saved)
    assert [id(g) for part in again.parts for g in part.param_groups] == [id(g) for g in again.param_groups]
    set_rates(again, spec, 0.5, others=others)
    set_rates(joint, spec, 0.5, others=others)
    assert [g["lr"] for g in again.param_groups] == [0.01, 0.005]
    assert all(torch.equal(a, b) for a, b in zip(learn(model, joint, 2), learn(other, again, 2), strict=True))


@pytest.mark.parametrize("spec", [AdamW(0.1, weight_decay=0.5), Lion(0.1, weight_decay=0.5)])
def test_cautious_decay_acts_where_it_agrees_with_the_update(spec):
    """Against the rule written out: u from the same optimizer without decay."""
    w, g = torch.tensor([[1.0, -1.0], [2.0, -2.0]]), torch.tensor([[0.3, 0.2], [-0.1, -0.4]])
    moved = {}
    for name, decay in (("none", Decay.NONE), ("cautious", Decay.CAUTIOUS)):
        model = nn.Linear(2, 2, bias=False)
        model.weight.data.copy_(w)
        optimizer = build_optimizer(replace(spec, decay=decay), model)
        model.weight.grad = g.clone()
        optimizer.step()
        assert optimizer.param_groups[0]["weight_decay"] == (0.5 if name == "cautious" else 0.0)
        moved[name] = model.weight.detach()
    u = (w - moved["none"]) / 0.1
    expected = w - 0.1 * u - 0.1 * 0.5 * w * (u * w >= 0)
    assert torch.allclose(moved["cautious"], expected, rtol=1e-6)
    assert ((u * w >= 0).tolist()) == [[True, False], [False, True]]


def test_scheduled_decay_shrinks_as_the_recipe_says():
    spec, steps = AdamW(lr=0.1, weight_decay=0.2, decay=Decay.SCHEDULED), 6
    group, shape = Group("weight", (2, 2)), Linear(final=0.2)
    recipe = Recipe(spec, Cosine(warmup=2, final=0.1), steps, (group,), weight_decay_schedule=shape)
    model = nn.Linear(2, 2, bias=False, dtype=torch.float64)
    optimizer = build_optimizer(spec, model)
    for step in range(steps):
        model.weight.grad = torch.zeros_like(model.weight)
        before = model.weight.detach().clone()
        own = float(shape.at(step, steps))
        set_rates(optimizer, spec, float(recipe.schedule.at(step, steps)), decay_shape=own)
        optimizer.step()
        shrink = 1 - (model.weight.detach() / before).mean().item()
        assert shrink == pytest.approx(float(recipe.shrink(step, group)), abs=1e-12)


@pytest.mark.parametrize(
    ("spec", "others"),
    [
        (SGD(0.1, momentum=0.9), None),
        (AdamW(0.1, weight_decay=0.1, decay=Decay.CAUTIOUS), None),
        (Lion(0.1, weight_decay=0.1), None),
        (Muon(0.1), AdamW(0.1)),
    ],
)
def test_a_step_whose_scaled_gradient_overflows_is_left_out_by_every_optimizer(spec, others):
    model = network()
    optimizer = build_optimizer(spec, model, others=others)
    seen = []
    optimizer.register_step_post_hook(lambda *_: seen.append(1))
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    before = [p.detach().clone() for p in model.parameters()]
    for factor, same in ((float("inf"), True), (1.0, False)):
        optimizer.zero_grad()
        scaler.scale(model(torch.ones(1, 4)).sum() * factor).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        after = [p.detach().clone() for p in model.parameters()]
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True)) is same
    assert len(seen) == 2  # probes count every step
    assert scaler.get_scale() == 2.0
