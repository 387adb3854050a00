import pytest
import torch

from empirics.models import ResNetConfig
from theory.errors import InputError
from theory.serialize import from_json, to_json

IMAGES = torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(16) % 10


def test_about_twenty_thousand_parameters():
    assert 19_000 < sum(p.numel() for p in ResNetConfig().build(seed=0).parameters()) < 21_000


@pytest.mark.parametrize("blocks", [(1, 1, 1), (2, 1, 3), (1,)])
def test_stages_double_the_channels_and_halve_the_image(blocks):
    model = ResNetConfig(width=4, blocks=blocks, in_channels=3, num_classes=7).build(seed=0)
    x, shapes = torch.relu(model.bn(model.conv(torch.randn(2, 3, 16, 16)))), []
    for stage in model.stages:
        x = stage(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(4 * 2**i, 16 // 2**i, 16 // 2**i) for i in range(len(blocks))]
    assert [len(stage) for stage in model.stages] == list(blocks)
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, 7)


def test_residual_path():
    model = ResNetConfig().build(seed=0).eval()
    block, x = model.stages[0][0], torch.rand(2, 8, 8, 8)
    torch.nn.init.zeros_(block.bn2.weight)
    torch.testing.assert_close(block(x), x)  # identity shortcut, and nothing else is left


def test_initialisation_is_hes():
    model = ResNetConfig(width=32).build(seed=0)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 4:
            fan_out = parameter.size(0) * parameter[0, 0].numel()
            assert parameter.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1), name
        elif parameter.dim() == 1:
            assert bool((parameter == (0.0 if name.endswith("bias") else 1.0)).all()), name
    assert model.head.weight.std().item() == pytest.approx(128**-0.5, rel=0.1)


def test_seed_is_the_only_randomness():
    models = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        before = torch.get_rng_state()
        models.append(ResNetConfig().build(seed=5).state_dict())
        assert torch.equal(torch.get_rng_state(), before)
    other = ResNetConfig().build(seed=6).state_dict()
    assert all(torch.equal(value, models[1][name]) for name, value in models[0].items())
    assert not torch.equal(models[0]["conv.weight"], other["conv.weight"])


def test_loss_is_mean_nats():
    model = ResNetConfig().build(seed=0).eval()
    picked = model(IMAGES).softmax(-1)[torch.arange(16), LABELS]
    assert model.loss(IMAGES, LABELS).item() == pytest.approx(-picked.log().mean().item(), rel=1e-5)


def test_every_convolution_is_scale_invariant():
    model = ResNetConfig(scale_invariant=True, bn_eps=1e-30).build(seed=0).double()
    images = IMAGES.double()
    loss = model.loss(images, LABELS).item()
    convolutions = [p for p in model.parameters() if p.requires_grad]
    assert len(convolutions) == 9
    assert all(p.dim() == 4 for p in convolutions)
    for weight in convolutions:
        with torch.no_grad():
            weight.mul_(3.7)
        assert model.loss(images, LABELS).item() == pytest.approx(loss, rel=1e-12)
    with torch.no_grad():
        model.head.weight.mul_(3.7)
    assert model.loss(images, LABELS).item() != pytest.approx(loss, rel=1e-3)


def test_bn_eps_is_used():
    exact, blunt = (ResNetConfig(scale_invariant=True, bn_eps=eps).build(seed=0) for eps in (1e-30, 0.1))
    assert not torch.allclose(exact(IMAGES), blunt(IMAGES), rtol=1e-3)


def test_learns():
    model = ResNetConfig().build(seed=0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first = model.loss(IMAGES, LABELS).item()
    for _ in range(30):
        optimizer.zero_grad()
        model.loss(IMAGES, LABELS).backward()
        optimizer.step()
    assert model.loss(IMAGES, LABELS).item() < first / 5


@pytest.mark.parametrize(
    ("field", "value"),
    [("width", 0), ("blocks", ()), ("blocks", (1, 0)), ("bn_eps", 0.0), ("bn_eps", float("nan")), ("num_classes", -1)],
)
def test_bad_shapes_are_refused(field, value):
    with pytest.raises(InputError, match=field):
        ResNetConfig(**{field: value})


def test_json_round_trip():
    config = ResNetConfig(blocks=(2, 1), scale_invariant=True)
    assert from_json(to_json(config)) == config
