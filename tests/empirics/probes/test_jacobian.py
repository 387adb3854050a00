import math

import pytest
import torch
from torch import nn

from empirics.models import ResNetConfig
from empirics.probes.jacobian import jacobian_fro
from theory.errors import InputError

IMAGES = torch.randn(7, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def trained_a_little(**options) -> nn.Module:
    """A ResNet in training mode with gradients, and running statistics that are not the initial ones."""
    model = ResNetConfig(width=4, **options).build(seed=0)
    for _ in range(3):
        model(IMAGES)
    model.loss(IMAGES, torch.arange(7)).backward()
    return model


def one_by_one(model: nn.Module, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Squared norms per image (relative, raw, input): a loop over images and outputs with torch.autograd."""
    was_training = model.training
    model.eval()
    parameters = [p for p in model.parameters() if p.requires_grad]
    rows = []
    for image in images:
        x = image[None].clone().requires_grad_()
        row = torch.zeros(3, dtype=torch.float64)
        for logit in model(x)[0]:
            *by_weight, by_pixel = torch.autograd.grad(logit, [*parameters, x], retain_graph=True)
            for w, g in zip(parameters, by_weight, strict=True):
                squared = g.double().square().sum()
                row += torch.stack([w.detach().double().square().sum() * squared, squared, squared * 0])
            row[2] += by_pixel.double().square().sum()
        rows.append(row)
    model.train(was_training)
    return tuple(torch.stack(rows).unbind(1))


@pytest.mark.parametrize("scale_invariant", [False, True])
def test_equals_a_loop_over_images_and_outputs(scale_invariant):
    model = trained_a_little(scale_invariant=scale_invariant)
    result = jacobian_fro(model, IMAGES, batch_size=3)
    for name, squares in zip(("scale_invariant", "parameters", "inputs"), one_by_one(model, IMAGES), strict=True):
        value = squares.mean().sqrt().item()
        stderr = squares.std().item() / math.sqrt(7) / (2 * value)  # delta method
        assert getattr(result, name) == pytest.approx(value, rel=1e-4)
        assert getattr(result, f"{name}_stderr") == pytest.approx(stderr, rel=1e-3)
    assert result.n == 7


def test_linear_map_in_closed_form():
    model = nn.Linear(5, 3)  # J_W = x and J_b = 1 for each output, J_x = W
    x = torch.randn(4, 5)
    result = jacobian_fro(model, x)
    weight, bias = model.weight.square().sum().item(), model.bias.square().sum().item()
    mean_square = x.square().sum(1).mean().item()
    assert result.parameters**2 == pytest.approx(3 * mean_square + 3, rel=1e-5)
    assert result.scale_invariant**2 == pytest.approx(3 * mean_square * weight + 3 * bias, rel=1e-5)
    assert result.inputs**2 == pytest.approx(weight, rel=1e-5)
    assert result.inputs_stderr == pytest.approx(0, abs=1e-6)  # the same for every image


def test_scale_invariant_norm_ignores_the_scale_of_the_weights():
    model = ResNetConfig(width=4, scale_invariant=True, bn_eps=1e-30).build(seed=0)
    before = jacobian_fro(model, IMAGES)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.mul_(4)
                _batch_norm_after(model, name).running_var.mul_(16)
    after = jacobian_fro(model, IMAGES)
    assert after.scale_invariant == pytest.approx(before.scale_invariant, rel=1e-5)
    assert after.parameters == pytest.approx(before.parameters / 4, rel=1e-5)


def _batch_norm_after(model: nn.Module, convolution: str) -> nn.Module:
    return model.get_submodule(convolution.removesuffix(".weight").replace("conv", "bn"))


def test_standard_error_is_the_spread_between_samples():
    generator = torch.Generator().manual_seed(0)
    model = ResNetConfig(width=4).build(seed=0)
    results = [jacobian_fro(model, torch.randn(50, 1, 8, 8, generator=generator)) for _ in range(30)]
    spread = torch.tensor([result.scale_invariant for result in results]).std().item()
    stated = sum(result.scale_invariant_stderr for result in results) / 30
    assert 0.7 < stated / spread < 1.4


@pytest.mark.parametrize("training", [True, False])
def test_leaves_the_model_alone(training):
    model = trained_a_little().train(training)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [p.grad.clone() for p in model.parameters()]
    rng, images = torch.get_rng_state(), IMAGES.clone()
    jacobian_fro(model, IMAGES)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(p.grad, g) and p.requires_grad for p, g in zip(model.parameters(), gradients, strict=True))
    assert all(module.training == training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), rng)
    assert torch.equal(images, IMAGES)
    assert IMAGES.grad is None


def test_does_not_depend_on_mode_or_chunks():
    model = trained_a_little()
    first = jacobian_fro(model.train(), IMAGES, batch_size=7)
    second = jacobian_fro(model.eval(), IMAGES, batch_size=2)
    assert first.scale_invariant == pytest.approx(second.scale_invariant, rel=1e-5)


def test_one_image_has_no_standard_error():
    assert math.isnan(jacobian_fro(trained_a_little(), IMAGES[:1]).inputs_stderr)


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="at least one image"):
        jacobian_fro(nn.Linear(2, 2), torch.empty(0, 2))
    with pytest.raises(InputError, match="logits"):
        jacobian_fro(nn.Conv2d(1, 2, 3), IMAGES)
    with pytest.raises(InputError, match="batch_size"):
        jacobian_fro(nn.Linear(2, 2), torch.ones(1, 2), batch_size=0)
