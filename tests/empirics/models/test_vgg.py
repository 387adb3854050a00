import pytest
import torch

from empirics.models import VGGConfig
from theory.errors import InputError
from theory.serialize import from_json, to_json

IMAGES = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_vgg16_is_as_large_as_published():
    """Thirteen 3x3 convolutions, 14,714,688 weights and biases (arXiv 1409.1556, table 1, D), and one linear layer."""
    with torch.device("meta"):
        model = VGGConfig(in_channels=3).build(seed=0)
    sizes = [p.numel() for name, p in model.named_parameters() if name.startswith("convs")]
    assert sum(sizes) == 14_714_688
    assert len(sizes) == 26
    assert not any("bn" in name or "norm" in name for name, _ in model.named_modules())


@pytest.mark.parametrize("side", [8, 16, 32])
def test_any_image_size(side):
    model = VGGConfig(width=4, in_channels=3).build(seed=0)
    assert model(IMAGES[..., :side, :side]).shape == (4, 10)


def test_it_is_not_scale_invariant_and_homogeneous_without_biases():
    model = VGGConfig(width=4, blocks=(1, 1), in_channels=3).build(seed=0)
    before = model(IMAGES)
    with torch.no_grad():
        model.convs[0].weight *= 2  # biases are 0 at the start: ReLU lets the factor through
    torch.testing.assert_close(model(IMAGES), 2 * before, rtol=1e-4, atol=1e-5)


def test_the_seed_is_the_only_randomness():
    first, second = (VGGConfig(width=4).build(seed=3).state_dict() for _ in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_configuration():
    config = VGGConfig(width=8, blocks=(1, 2))
    assert from_json(to_json(config)) == config
    with pytest.raises(InputError, match="blocks = 0 is not allowed"):
        VGGConfig(blocks=(1, 0))
    with pytest.raises(InputError, match=r"blocks = \(\) is not allowed"):
        VGGConfig(blocks=())
