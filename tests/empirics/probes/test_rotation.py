import copy
import math

import pytest
import torch
from torch import nn

from empirics.models import GPT2Config, ResNetConfig
from empirics.probes import rotation as module
from empirics.probes.products import ByDot, ByNorm
from empirics.probes.rotation import Rotation
from theory.errors import InputError


class Jump(torch.optim.Optimizer):
    """An optimizer whose step puts the weights where the test wants them."""

    def __init__(self, parameters, targets):
        super().__init__(parameters, {"lr": 1.0})
        self.targets = targets

    @torch.no_grad()
    def step(self, closure=None):
        for parameter, target in zip(self.param_groups[0]["params"], self.targets, strict=True):
            parameter.copy_(target)


@pytest.fixture(params=[ByDot, ByNorm])
def either_way(request, monkeypatch):
    """Both ways of taking the products, whatever the device."""
    monkeypatch.setattr(module, "meter", request.param)


def exact_angle(before: torch.Tensor, after: torch.Tensor) -> float:
    u, v = (w.double() / w.double().norm() for w in (before, after))
    return 2 * math.atan2((u - v).norm().item(), (u + v).norm().item())


def measure(before: torch.Tensor, after: torch.Tensor) -> dict[str, float]:
    model = nn.ParameterDict({"w": nn.Parameter(before.clone())})
    optimizer = Jump(list(model.parameters()), [after])
    rotation = Rotation(model, optimizer, every=1, start=1)
    model["w"].grad = torch.ones_like(before)
    optimizer.step()
    ((_, values),) = rotation.flush()
    return {quantity: next(iter(each.values())) for quantity, each in values.items()}


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("size", [768, 2_400_000])
@pytest.mark.parametrize("angle", [1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("growth", [1.0, 0.99996])
def test_angle_is_right_to_1e_4_in_every_type_and_size(dtype, size, angle, growth):
    generator = torch.Generator().manual_seed(size)
    w = torch.randn(size, dtype=torch.float64, generator=generator)
    side = torch.randn(size, dtype=torch.float64, generator=generator)
    side -= (side @ w) / (w @ w) * w
    rotated = growth * (math.cos(angle) * w + math.sin(angle) * side * (w.norm() / side.norm()))
    before, after = w.to(dtype), rotated.to(dtype)
    found = measure(before, after)
    assert found["angle"] == pytest.approx(exact_angle(before, after), rel=1e-4)
    assert found["norm"] == pytest.approx(after.double().norm().item(), rel=1e-5)


def test_a_tiny_angle_in_float64_and_a_half_turn():
    w = torch.tensor([1.0, 0.0], dtype=torch.float64)
    assert measure(w, torch.tensor([1.0, 1e-12], dtype=torch.float64))["angle"] == pytest.approx(1e-12, rel=1e-9)
    assert measure(w, -2 * w)["angle"] == pytest.approx(math.pi)
    assert measure(w, 3 * w)["angle"] == 0.0
    assert math.isnan(measure(0 * w, w)["angle"])


def test_a_long_float32_product_keeps_its_digits():
    """One plain float32 dot product of this length is off by about 3e-4."""
    w = torch.rand(12_000_000, generator=torch.Generator().manual_seed(0)) + 0.5
    assert measure(w, w * 1.001)["norm"] == pytest.approx((w * 1.001).double().norm().item(), rel=2e-6)


OPTIMIZERS = {
    "sgd": (lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.05), 0.0, True),
    "momentum": (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.05), 0.0, True),
    "adam": (lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.05), 0.0, False),
    "adamw": (lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.05), 0.005, False),
    "decoupled adam": (
        lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.05, decoupled_weight_decay=True),
        0.005,
        False,
    ),
    "decoupled nadam": (
        lambda p: torch.optim.NAdam(p, lr=0.1, weight_decay=0.05, decoupled_weight_decay=True),
        0.005,
        False,
    ),
    "muon": (lambda p: torch.optim.Muon(p, lr=0.1, weight_decay=0.05), 0.005, False),
    "tensor lr": (lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.1), weight_decay=0.05), 0.005, False),
}


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_quantity_against_its_definition(name):
    build, shrink, is_sgd = OPTIMIZERS[name]
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4, bias=False), nn.Tanh(), nn.Linear(4, 3, bias=False))
    optimizer = build(model.parameters())
    rotation = Rotation(model, optimizer, every=1)
    expected, initial = [], {k: p.detach().double().norm().item() for k, p in model.named_parameters()}
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(8, 5)).square().mean().backward()
        before = {k: p.detach().clone().double() for k, p in model.named_parameters()}
        grads = {k: p.grad.double().norm().item() for k, p in model.named_parameters()}
        optimizer.step()
        row = {}
        for k, p in model.named_parameters():
            w, new = before[k], p.detach().double()
            r = w.norm().item()
            row[k] = {
                "norm": new.norm().item(),
                "angle": exact_angle(w, new),
                "relative_update": (new - (1 - shrink) * w).norm().item() / r,
                "effective_lr": 0.1 / r**2 if is_sgd else 0.1 * math.sqrt(w.numel()) / r,
                "grad_norm": grads[k],
            }
        expected.append(row)
    first, *measured = rotation.flush()
    assert first == (0, {"norm0": pytest.approx(initial)})
    assert [step for step, _ in measured] == [0, 1, 2]
    for (_, values), row in zip(measured, expected, strict=True):
        assert values.pop("lr") == {"": pytest.approx(0.1)}
        for k, quantities in row.items():
            assert {q: values[q][k] for q in values} == pytest.approx(quantities, rel=2e-5)


def test_each_group_has_its_own_rate_and_decay():
    model = nn.ParameterDict({"a": nn.Parameter(torch.ones(4)), "b": nn.Parameter(torch.ones(4))})
    groups = [{"params": [model["b"]], "lr": 0.5, "weight_decay": 0.0}, {"params": [model["a"]], "lr": 0.01}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.1)
    rotation = Rotation(model, optimizer, every=1)
    for p in model.values():
        p.grad = torch.ones(4)
    optimizer.step()
    values = rotation.flush()[-1][1]
    assert values["effective_lr"] == {"a": pytest.approx(0.01), "b": pytest.approx(0.5)}
    assert values["relative_update"] == {"a": pytest.approx(0.01, rel=1e-4), "b": pytest.approx(0.5, rel=1e-4)}
    assert values["norm"]["a"] == pytest.approx(2 * (1 - 0.001 - 0.01), rel=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "resnet"])
def test_training_with_the_probe_is_bitwise_training_without(kind):
    if kind == "gpt2":
        base = GPT2Config(vocab_size=50, block_size=8, n_layer=1, n_head=2, n_embd=16, dropout=0.1).build(seed=0)
        batch = (torch.randint(50, (4, 8)), torch.randint(50, (4, 8)))
    else:
        base = ResNetConfig(width=4).build(seed=0)
        batch = (torch.randn(8, 1, 8, 8), torch.randint(10, (8,)))
    outcomes = []
    for watched in (False, True):
        torch.manual_seed(7)
        model = copy.deepcopy(base)
        build = torch.optim.AdamW if kind == "gpt2" else torch.optim.SGD
        optimizer = build(model.parameters(), lr=0.01, weight_decay=0.1, fused=True)
        rotation = Rotation(model, optimizer, every=2) if watched else None
        for step in range(7):
            model.loss(*batch).backward()
            optimizer.step()
            optimizer.zero_grad()
            if rotation is not None and step == 3:
                rotation.flush()
        outcomes.append((list(model.state_dict().values()), torch.get_rng_state()))
    (plain, rng), (probed, probed_rng) = outcomes
    assert all(torch.equal(a, b) for a, b in zip(plain, probed, strict=True))
    assert torch.equal(rng, probed_rng)


def test_every_start_flush_and_close():
    model = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rotation = Rotation(model, optimizer, every=3, start=5)

    def steps(count):
        for _ in range(count):
            model(torch.ones(1, 3)).sum().backward()
            optimizer.step()

    steps(5)  # 5 .. 9
    assert [step for step, _ in rotation.flush()] == [6, 9]
    assert rotation.flush() == []
    steps(3)  # 10 .. 12
    rotation.close()
    steps(5)
    assert [step for step, _ in rotation.flush()] == [12]


@pytest.mark.usefixtures("either_way")
def test_tensors_without_gradient_are_left_out_of_that_step_only():
    model = nn.ParameterDict({"a": nn.Parameter(torch.ones(2)), "b": nn.Parameter(torch.ones(2))})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rotation = Rotation(model, optimizer, every=1, start=1)
    model["a"].grad = torch.ones(2)
    optimizer.step()
    model["b"].grad = torch.ones(2)
    optimizer.step()
    optimizer.zero_grad()
    optimizer.step()
    (one, first), (two, second) = rotation.flush()
    assert (one, list(first["angle"]), two, list(second["angle"])) == (1, ["a"], 2, ["a", "b"])


@pytest.mark.usefixtures("either_way")
def test_sparse_gradients_are_measured_like_dense_ones():
    measured = []
    for sparse in (False, True):
        torch.manual_seed(0)
        model = nn.Embedding(5, 3, sparse=sparse)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        rotation = Rotation(model, optimizer, every=1)
        model(torch.tensor([1, 1, 4])).square().sum().backward()
        optimizer.step()
        measured.append(rotation.flush()[1][1])
    for quantity, values in measured[0].items():
        assert measured[1][quantity] == pytest.approx(values, rel=1e-6)


def test_weights_that_move_to_new_memory_or_are_transposed_are_followed():
    model = nn.Linear(4, 4, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rotation = Rotation(model, optimizer, every=1, start=1)
    for values in (torch.ones(4, 4), 2 * torch.ones(4, 4), torch.arange(16.0).view(4, 4).T):
        model.weight.data = values.clone() if values.is_contiguous() else values
        model.weight.grad = torch.randn(4, 4)
        optimizer.step()
        expected = model.weight.detach().norm().item()
        assert rotation.flush()[0][1]["norm"]["weight"] == pytest.approx(expected, rel=1e-6)


def test_channels_last_weights_pair_with_contiguous_gradients():
    model = nn.Conv2d(3, 4, 3, bias=False).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    rotation = Rotation(model, optimizer, every=1, start=1)
    before = model.weight.detach().clone()
    model.weight.grad = torch.randn(4, 3, 3, 3)
    optimizer.step()
    angle = rotation.flush()[0][1]["angle"]["weight"]
    assert angle == pytest.approx(exact_angle(before, model.weight.detach()), rel=1e-4)


def test_what_cannot_be_watched_is_refused():
    stranger = torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1)
    with pytest.raises(InputError, match="none of the model's trainable parameters"):
        Rotation(nn.Linear(2, 2), stranger)
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(InputError, match="every = 0"):
        Rotation(model, optimizer, every=0)
    assert not optimizer._optimizer_step_pre_hooks
