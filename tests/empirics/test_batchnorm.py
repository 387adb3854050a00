import pytest
import torch
from torch import nn

from empirics.batchnorm import recomputed
from empirics.models import ResNetConfig
from theory.errors import InputError

IMAGES = 3 + 2 * torch.randn(40, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_evaluates_as_training_does_on_the_full_batch():
    model = ResNetConfig().build(seed=0).double()
    images = IMAGES.double()
    in_training = model(images)
    fresh = recomputed(model, images)
    torch.testing.assert_close(fresh(images), in_training, rtol=1e-10, atol=1e-10)
    assert not torch.allclose(model.eval()(images), in_training, rtol=1e-2)  # what the stale averages give
    # The statistics belong to the given images, not to the ones that are evaluated.
    torch.testing.assert_close(fresh(images)[:3], fresh(images[:3]), rtol=1e-10, atol=1e-10)


def test_first_layer_has_the_moments_of_its_input():
    model = ResNetConfig().build(seed=0)
    activations = model.conv(IMAGES).detach().double().transpose(0, 1).flatten(1)
    fresh = recomputed(model, IMAGES)
    torch.testing.assert_close(fresh.bn.running_mean.double(), activations.mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(fresh.bn.running_var.double(), activations.var(1, correction=0), rtol=1e-4, atol=1e-5)


def test_in_chunks_the_first_layer_is_exact_and_the_others_are_close():
    """Mean and variance of a whole from those of its parts are an identity; behind the first layer a chunk's own
    statistics differ from all of them by about one over the root of its 10 x 64 numbers a channel, 4 %."""
    model, images = ResNetConfig().build(seed=0).double(), IMAGES.double()
    whole, parts = recomputed(model, images), recomputed(model, images, chunk=13)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(parts.bn, name), getattr(whole.bn, name), rtol=1e-12, atol=1e-12)
    assert not torch.equal(parts(images), whole(images))
    gap = (parts(images) - whole(images)).norm() / whole(images).norm()
    stale = (model.eval()(images) - whole(images)).norm() / whole(images).norm()
    assert gap < 0.1 < stale


@pytest.mark.parametrize("training", [True, False])
def test_leaves_the_model_alone(training):
    model = ResNetConfig().build(seed=0).train(training)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    rng = torch.get_rng_state()
    fresh = recomputed(model, IMAGES)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(module.training == training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), rng)
    assert not any(module.training for module in fresh.modules())
    assert all(torch.equal(p, fresh.get_parameter(name)) for name, p in model.named_parameters())
    assert not {p.data_ptr() for p in model.parameters()} & {p.data_ptr() for p in fresh.parameters()}
    assert not any(module._forward_pre_hooks for module in fresh.modules())
    assert set(fresh.state_dict()) == set(state)


def test_vectors_as_well_as_images():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()
    x = torch.randn(10, 3, dtype=torch.float64)
    torch.testing.assert_close(recomputed(model, x)(x), model.train()(x), rtol=1e-12, atol=1e-12)


def test_models_without_batchnorm_are_only_copied():
    class NoForward(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))

    model = NoForward()
    fresh = recomputed(model, IMAGES)
    assert fresh is not model
    assert torch.equal(fresh.weight, model.weight)


def test_no_images_are_refused():
    with pytest.raises(InputError, match="at least one image"):
        recomputed(ResNetConfig().build(seed=0), IMAGES[:0])
