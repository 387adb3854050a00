import math

import pytest
import torch
from torch import nn

from empirics.models import GPT2Config, ResNetConfig
from empirics.probes.invariance import GRADIENT_TOLERANCE, RADIAL_TOLERANCE, Defect, invariance
from empirics.tensors import tensors

IMAGES = torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(32) % 10
TOKENS = torch.randint(64, (4, 16), generator=torch.Generator().manual_seed(0))
GPT2_SIZE = {"vocab_size": 64, "block_size": 16, "n_layer": 2, "n_head": 2, "n_embd": 32}


def loss(model: nn.Module, batch: tuple) -> torch.Tensor:
    return model.loss(*batch)


def defects(model: nn.Module, *batch: torch.Tensor) -> dict[str, Defect]:
    return invariance(model, loss, batch, tensors(model))


class Power(nn.Module):
    """|<a, w>|^degree: homogeneous of known degree."""

    def __init__(self, degree: float) -> None:
        super().__init__()
        self.weight, self.degree = nn.Parameter(torch.tensor([3.0, 4.0, 12.0])), degree

    def loss(self, a: torch.Tensor) -> torch.Tensor:
        return (a @ self.weight).abs() ** self.degree


@pytest.mark.parametrize("degree", [1, 2, 0.5])
def test_homogeneous_loss_in_closed_form(degree):
    a = torch.tensor([1.0, 2.0, 2.0])
    (defect,) = defects(Power(degree), a).values()
    assert defect.radial == pytest.approx(35 / (13 * 3), rel=1e-6)  # the gradient is along a
    assert defect.loss_change == pytest.approx(2**degree - 1, rel=1e-6)
    assert defect.gradient_change == pytest.approx(2**degree - 1, rel=1e-6)
    assert not defect.is_invariant


def test_scale_invariant_gpt2():
    result = defects(GPT2Config(**GPT2_SIZE, scale_invariant=True).build(seed=0), TOKENS, TOKENS.roll(-1, 1))
    matrices = [name for name in result if "attn" in name or "mlp" in name]
    assert len(matrices) == 2 * 6  # Q, K, V, O, fc, proj: fused projections are taken apart
    for name in matrices:
        assert result[name].is_invariant, name
        assert result[name].radial < 1e-6
    assert not result["transformer.wte.weight"].is_invariant


def test_plain_gpt2_is_not_scale_invariant():
    model = GPT2Config(**GPT2_SIZE).build(seed=0)
    result = defects(model, TOKENS, TOKENS.roll(-1, 1))
    assert not any(defect.is_invariant for defect in result.values())
    queries = result["transformer.h.0.attn.c_attn.weight.q"]
    assert queries.loss_change < 1e-5  # invisible in the loss,
    assert queries.gradient_change == pytest.approx(1, abs=0.01)  # plain in the gradient, which does not change at all


@pytest.mark.parametrize("scale_invariant", [False, True])
def test_resnet(scale_invariant):
    model = ResNetConfig(scale_invariant=scale_invariant).build(seed=0)
    result = defects(model, IMAGES, LABELS)
    convolutions = {name for name in result if "conv" in name}
    assert len(convolutions) == 9
    assert all(result[name].is_invariant for name in convolutions)
    assert ("head.weight" in result) == (not scale_invariant)
    assert scale_invariant or not result["head.weight"].is_invariant


def test_batch_statistics_even_in_eval_mode():
    model = ResNetConfig(bn_eps=1e-30).build(seed=0).eval()
    result = defects(model, IMAGES, LABELS)
    assert result["stages.0.0.conv1.weight"].gradient_change < 1e-4
    assert float(model.bn.running_mean.abs().max()) == 0  # still the initial value


@pytest.mark.parametrize("training", [True, False])
def test_leaves_the_model_alone(training):
    resnet = ResNetConfig().build(seed=0).train(training)
    gpt2 = GPT2Config(**GPT2_SIZE, dropout=0.3).build(seed=0).train(training)
    for model, batch in ((resnet, (IMAGES, LABELS)), (gpt2, (TOKENS, TOKENS))):
        model.loss(*batch).backward()
        state = {name: value.clone() for name, value in model.state_dict().items()}
        gradients = [p.grad.clone() for p in model.parameters()]
        rng = torch.get_rng_state()
        defects(model, *batch)
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
        assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), gradients, strict=True))
        assert all(module.training == training for module in model.modules())
        assert torch.equal(torch.get_rng_state(), rng)


def test_frozen_tensors_can_be_tested():
    model = ResNetConfig(scale_invariant=True).build(seed=0)
    result = invariance(model, loss, (IMAGES, LABELS), tensors(model, trainable=False))
    assert result["head.weight"].radial > RADIAL_TOLERANCE
    assert not model.head.weight.requires_grad


def test_tensors_are_restored_one_by_one():
    model = ResNetConfig().build(seed=0)
    views = tensors(model)
    together = invariance(model, loss, (IMAGES, LABELS), views)
    alone = invariance(model, loss, (IMAGES, LABELS), views[-2:-1])
    assert alone["head.weight"] == together["head.weight"]


def test_zero_tensor_and_zero_gradient_are_undecided():
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.zero, self.unused = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.ones(3))

        def loss(self, x: torch.Tensor) -> torch.Tensor:
            return (self.zero + x).square().sum()

    result = defects(Partly(), torch.ones(3))
    assert math.isnan(result["zero"].radial)
    assert math.isnan(result["unused"].radial)
    assert not any(defect.is_invariant for defect in result.values())


def test_thresholds():
    assert Defect(RADIAL_TOLERANCE, RADIAL_TOLERANCE, GRADIENT_TOLERANCE).is_invariant
    for bad in ((0.011, 0, 0), (0, 0.011, 0), (0, 0, 0.21), (math.nan, 0, 0), (0, math.nan, 0), (0, 0, math.nan)):
        assert not Defect(*bad).is_invariant
