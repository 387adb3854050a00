import pytest
import torch
from torch import nn

from empirics.models import GPT2Config, ResNetConfig
from empirics.probes.invariance import invariance
from empirics.probes.joint_invariance import attention_groups, joint_invariance
from empirics.tensors import tensors
from theory.errors import InputError

TOKENS = torch.randint(64, (4, 16), generator=torch.Generator().manual_seed(0))
SIZE = {"vocab_size": 64, "block_size": 16, "n_layer": 2, "n_head": 2, "n_embd": 32}
BATCH = (TOKENS, TOKENS.roll(-1, 1))


def loss(model, batch):
    return model.loss(*batch)


class Product(nn.Module):
    """f = |u|^a |v|^b: homogeneous of known degrees."""

    def __init__(self, a: float, b: float) -> None:
        super().__init__()
        self.u = nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.float64))
        self.v = nn.Parameter(torch.tensor([2.0, 1.0, 2.0], dtype=torch.float64))
        self.a, self.b = a, b

    def loss(self) -> torch.Tensor:
        return self.u.norm() ** self.a * self.v.norm() ** self.b


@pytest.mark.parametrize(
    ("a", "b", "powers"),
    [(1, 1, (1.0, 1.0)), (1, 1, (1.0, -1.0)), (2, 1, (1.0, -2.0)), (2, 1, (1.0, -1.0)), (1, 3, (-3.0, 1.0))],
)
def test_homogeneous_loss_in_closed_form(a, b, powers):
    model = Product(a, b)
    groups = {"uv": dict(zip("uv", powers, strict=True))}
    defect = joint_invariance(model, loss, (), tensors(model), groups=groups)["uv"]
    p, q = powers
    degree = a * p + b * q
    f, u, v = 5.0**a * 3.0**b, 5.0, 3.0
    gradient = ((a * f / u) ** 2 + (b * f / v) ** 2) ** 0.5
    assert defect.radial == pytest.approx(
        abs(degree) * f / (gradient * ((p * u) ** 2 + (q * v) ** 2) ** 0.5), abs=1e-12
    )
    assert defect.loss_change == pytest.approx(abs(2**degree - 1), abs=1e-12)
    assert defect.gradient_change == pytest.approx(abs(2**degree - 1), abs=1e-12)
    assert defect.is_invariant == (degree == 0)


def test_attention_ignores_q_against_k_and_nothing_else():
    model = GPT2Config(**SIZE, bias=True).build(seed=0).double()
    with torch.no_grad():
        for block in model.transformer.h:
            block.attn.c_attn.weight.mul_(20)  # as after training: attention matters
            block.attn.c_attn.bias.normal_(generator=torch.Generator().manual_seed(0))
    views = tensors(model)
    groups = attention_groups(views)
    assert list(groups["transformer.h.1.attn.c_attn.q/k"].items()) == [
        ("transformer.h.1.attn.c_attn.weight.q", 1.0),
        ("transformer.h.1.attn.c_attn.weight.k", -1.0),
        ("transformer.h.1.attn.c_attn.bias.q", 1.0),
        ("transformer.h.1.attn.c_attn.bias.k", -1.0),
    ]
    no_bias = {"weights only": {f"transformer.h.0.attn.c_attn.weight.{x}": s for x, s in (("q", 1.0), ("k", -1.0))}}
    found = joint_invariance(model, loss, BATCH, views, groups=groups | no_bias)
    for layer in range(2):
        against = found[f"transformer.h.{layer}.attn.c_attn.q/k"]
        assert max(against.radial, against.loss_change, against.gradient_change) < 1e-10
        assert not found[f"transformer.h.{layer}.attn.c_attn.q*k"].is_invariant
    assert not found["weights only"].is_invariant


def test_q_and_k_at_initialisation_are_not_taken_for_invariant():
    model = GPT2Config(**SIZE).build(seed=0)
    found = joint_invariance(model, loss, BATCH, tensors(model), groups=attention_groups(tensors(model)))
    together = found["transformer.h.0.attn.c_attn.q*k"]
    assert together.loss_change < 0.01  # the loss alone would not tell
    assert together.gradient_change == pytest.approx(3, rel=0.1)  # g doubles, and is doubled: |4 - 1|
    assert found["transformer.h.0.attn.c_attn.q/k"].is_invariant


def test_a_normalised_model_ignores_any_exponents():
    model = GPT2Config(**SIZE, scale_invariant=True).build(seed=0)
    stack = {v.name: float(1 + i % 3) for i, v in enumerate(tensors(model)) if "mlp" in v.name or "attn" in v.name}
    assert joint_invariance(model, loss, BATCH, tensors(model), groups={"all": stack})["all"].is_invariant


def test_one_tensor_is_the_plain_test():
    model = ResNetConfig().build(seed=0)
    batch = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(16) % 10
    views = tensors(model)
    alone = invariance(model, loss, batch, views)
    groups = {view.name: {view.name: 1.0} for view in views}
    joint = joint_invariance(model, loss, batch, views, groups=groups)
    for name, expected in alone.items():
        for field in ("radial", "loss_change", "gradient_change"):
            assert getattr(joint[name], field) == pytest.approx(
                getattr(expected, field), rel=1e-3, abs=1e-6, nan_ok=True
            )


def test_tensors_are_put_back_group_by_group_even_at_odd_exponents():
    model = GPT2Config(**SIZE).build(seed=0)
    views = tensors(model)
    odd = {views[3].name: 1 / 3, views[4].name: -0.7}
    first, second = {"a": odd, "b": {views[3].name: 1.0}}, {"b": {views[3].name: 1.0}}
    assert joint_invariance(model, loss, BATCH, views, groups=first)["b"].loss_change == pytest.approx(
        joint_invariance(model, loss, BATCH, views, groups=second)["b"].loss_change, rel=1e-3
    )


@pytest.mark.parametrize("training", [True, False])
def test_leaves_the_model_alone(training):
    model = GPT2Config(**SIZE, dropout=0.3).build(seed=0).train(training)
    model.loss(*BATCH).backward()
    before = [(p.detach().clone(), p.grad.clone()) for p in model.parameters()]
    rng = torch.get_rng_state()
    joint_invariance(model, loss, BATCH, tensors(model), groups=attention_groups(tensors(model)))
    assert all(
        torch.equal(p, w) and torch.equal(p.grad, g) for p, (w, g) in zip(model.parameters(), before, strict=True)
    )
    assert all(module.training == training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), rng)


def test_bad_groups():
    model = Product(1, 1)
    for groups in ({"g": {}}, {"g": {"w": 1.0}}, {"g": {"u": 0.0}}, {"g": {"u": float("nan")}}, {"g": {"u": 1e9}}):
        with pytest.raises(InputError):
            joint_invariance(model, loss, (), tensors(model), groups=groups)
