import copy

import pytest
import torch
from torch import nn

from bridge.describe import audit, describe
from bridge.runs import batch_loss
from empirics import scale_free
from empirics.data import ImageData
from empirics.models import GPT2Config, ResNetConfig
from theory.dispatch import equilibrium
from theory.errors import InputError
from theory.optimizers import SGD, Adam, AdamW, Decay, Lion, Muon, Signum

GPT2 = GPT2Config(vocab_size=64, block_size=8, n_layer=1, n_head=2, n_embd=16)


def test_fused_projection_is_three_groups_with_the_norms_of_its_parts():
    model = GPT2.build(seed=0)
    recipe = describe(model, torch.optim.AdamW(model.parameters(), lr=1e-3), steps=10)
    groups = {group.name: group for group in recipe.groups}
    fused = model.get_parameter("transformer.h.0.attn.c_attn.weight")
    for part, rows in zip("qkv", fused.detach().split(16), strict=True):
        group = groups[f"transformer.h.0.attn.c_attn.weight.{part}"]
        assert group.shape == (16, 16)
        assert group.norm0 == pytest.approx(rows.double().norm().item(), rel=1e-6)  # float32 weights, float64 sum
    assert "transformer.h.0.attn.c_attn.weight" not in groups


def test_groups_have_their_own_rate_and_decay():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    optimizer = torch.optim.AdamW(
        [
            {"params": model[0].parameters()},
            {"params": model[1].parameters(), "lr": 2e-4, "weight_decay": 0.05},
            {"params": model[2].parameters(), "weight_decay": 0.0},
        ],
        lr=1e-3,
        weight_decay=0.1,
    )
    recipe = describe(model, optimizer)
    assert recipe.optimizer == AdamW(lr=1e-3, weight_decay=0.1)
    assert [group.lr_factor for group in recipe.groups] == pytest.approx([1.0, 0.2, 1.0])
    assert [recipe.decay_of(group) for group in recipe.groups] == [0.1, 0.05, 0.0]


def test_peak_rate_is_read_from_a_scheduler_that_warms_up():
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: (step + 1) / 100)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.005)
    assert describe(model, optimizer).optimizer.lr == 0.5


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-4), SGD(0.1, 0.9, weight_decay=1e-4)),
        (lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.2), Adam(0.1, weight_decay=0.2)),
        (
            lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.2, decoupled_weight_decay=True),
            AdamW(0.1, weight_decay=0.2, decay=Decay.DECOUPLED),
        ),
    ],
)
def test_optimizers_are_recognised_with_their_convention(build, expected):
    model = nn.Linear(2, 2)
    assert describe(model, build(model.parameters())).optimizer == expected


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda p: torch.optim.RMSprop(p), "RMSprop"),
        (lambda p: torch.optim.AdamW(p, amsgrad=True), "amsgrad"),
        (lambda p: torch.optim.SGD(p, lr=0.1, maximize=True), "maximize"),
    ],
)
def test_unknown_optimizers_are_refused_by_name(build, word):
    model = nn.Linear(2, 2)
    with pytest.raises(InputError, match=word):
        describe(model, build(model.parameters()))


def test_an_optimizer_of_another_model_is_refused():
    with pytest.raises(InputError, match="optimizer"):
        describe(nn.Linear(2, 2), torch.optim.SGD(nn.Linear(2, 2).parameters(), lr=0.1))


def test_convolutions_before_batchnorm_are_invariant_and_gains_are_not():
    model = ResNetConfig(width=4).build(seed=0)
    batch = ImageData(train=200).open().batch(0, 32)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.01)
    before, rng = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    table = audit(model, optimizer, loss_fn=batch_loss, batch=batch).set_index("tensor")
    convolutions = [name for name in table.index if "conv" in name]
    assert len(convolutions) == 9
    assert set(table.loc[convolutions, "scale_invariant"]) == {"yes"}
    assert set(table.loc[["bn.weight", "head.weight"], "scale_invariant"]) == {"no"}
    assert table.loc["conv.weight", "convention"] == "coupled"
    assert table.loc["conv.weight", "equilibrium_angle"] == pytest.approx((2 * 0.1 * 0.01) ** 0.5, rel=1e-3)
    assert table.loc[["head.weight"], "equilibrium_angle"].isna().all()  # not invariant: no law
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert torch.equal(rng, torch.get_rng_state())
    assert model.training


def test_audit_without_a_loss_says_that_invariance_was_not_tested():
    model = nn.Linear(2, 2)
    table = audit(model, torch.optim.AdamW([model.weight], lr=0.1)).set_index("tensor")
    assert table.loc["weight", "scale_invariant"] == "not tested"
    assert table.loc["bias", "group"] == "none"
    assert table.loc["bias", "decayed"] == "no"


@pytest.mark.parametrize(
    ("build", "law"),
    [
        (lambda p: torch.optim.Muon(p, lr=0.02, weight_decay=0.1), Muon),
        (lambda p: scale_free.Lion(p, lr=1e-3, weight_decay=0.1), Lion),
        (lambda p: scale_free.Signum(p, lr=1e-3, weight_decay=0.1), Signum),
    ],
)
def test_every_optimizer_that_theory_knows_is_described_and_audited(build, law):
    """The audit's equilibrium is that of dl.equilibrium at the same rates."""
    model = nn.Linear(16, 8, bias=False)
    optimizer = build(model.parameters())
    recipe = describe(model, optimizer, steps=10)
    assert isinstance(recipe.optimizer, law)
    assert (recipe.optimizer.lr, recipe.optimizer.weight_decay) == (optimizer.param_groups[0]["lr"], 0.1)
    row = audit(model, optimizer).iloc[0]
    settled = equilibrium(recipe.optimizer, recipe.groups[0])
    assert (row["equilibrium_norm"], row["equilibrium_angle"]) == (settled.norm, settled.angle)
