import pytest
import torch
import torch.nn.functional as F

from empirics.models import PreActResNetConfig, ResNetConfig
from theory.serialize import from_json, to_json

IMAGES = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(16) % 10


def test_eighteen_layers_have_the_convolutions_of_the_plain_network():
    blocks = {"width": 64, "blocks": (2, 2, 2, 2), "in_channels": 3}
    with torch.device("meta"):
        pre, plain = PreActResNetConfig(**blocks).build(0), ResNetConfig(**blocks).build(0)
    convolutions = [sum(p.numel() for p in m.parameters() if p.dim() == 4) for m in (pre, plain)]
    assert convolutions[0] == convolutions[1] == 11_159_232
    assert sum(p.numel() for p in plain.parameters()) == 11_173_962  # the ResNet-18 for CIFAR of the literature


def test_the_stream_is_never_normalised():
    model = PreActResNetConfig(in_channels=3).build(seed=0)
    block = model.stages[0][0]
    torch.nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 8, 8, 8)
    assert torch.equal(block(x), x)


def test_a_projection_reads_the_first_activation():
    model = PreActResNetConfig(in_channels=3).build(seed=0).eval()
    block = model.stages[1][0]
    torch.nn.init.zeros_(block.conv2.weight)
    x = torch.randn(2, 8, 8, 8)
    expected = F.conv2d(F.relu(x / (1 + 1e-5) ** 0.5), block.shortcut.weight, stride=2)  # fresh BatchNorm in eval
    torch.testing.assert_close(block(x), expected)


def test_scale_invariance_is_joint():
    """Without gains, everything that writes into the stream may be scaled together, in double precision exactly."""
    model = PreActResNetConfig(in_channels=3, blocks=(1,), scale_invariant=True, bn_eps=1e-30).build(0).double()
    images = IMAGES.double()
    before = model.loss(images, LABELS).item()
    with torch.no_grad():
        model.stages[0][0].conv2.weight *= 3
    alone = model.loss(images, LABELS).item()
    with torch.no_grad():
        model.conv.weight *= 3
    assert model.loss(images, LABELS).item() == pytest.approx(before, rel=1e-12)
    assert alone != pytest.approx(before, rel=1e-3)
    with torch.no_grad():
        model.stages[0][0].conv1.weight *= 7  # inside a branch, before a BatchNorm: invariant alone
    assert model.loss(images, LABELS).item() == pytest.approx(before, rel=1e-12)
    assert not model.head.weight.requires_grad


def test_configuration():
    config = PreActResNetConfig(width=16, blocks=(3, 4, 6, 3))
    assert from_json(to_json(config)) == config
    assert config != ResNetConfig(width=16, blocks=(3, 4, 6, 3))
    states = [PreActResNetConfig().build(seed=1).state_dict() for _ in range(2)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
