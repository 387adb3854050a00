import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from empirics import checkpoint
from empirics.config import TrainConfig
from empirics.data import ImageData, TextData
from empirics.measure import LOSS, PROBES, Subject, applicable, measure, quantities
from empirics.models import GPT2Config, ResNetConfig
from empirics.plan import Probes
from empirics.probes.hessian import hessian_trace
from empirics.train import train
from theory.errors import InputError
from theory.optimizers import SGD, AdamW


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bin")
    rng = np.random.default_rng(0)
    for name, count in (("train", 3000), ("val", 600)):
        rng.integers(50, size=count).astype(np.uint16).tofile(folder / f"{name}.bin")
    return TrainConfig(
        name="gpt2",
        model=GPT2Config(vocab_size=50, block_size=8, n_layer=1, n_head=2, n_embd=16, dropout=0.1),
        data=TextData(source=f"bin:{folder}", vocab_size=50, block_size=8, val_windows=16),
        optimizer=AdamW(lr=0.01, weight_decay=0.1),
        steps=12,
        batch_size=4,
    )


@pytest.fixture
def images():
    return TrainConfig(
        name="resnet",
        model=ResNetConfig(width=2),
        data=ImageData(train=100),
        optimizer=SGD(lr=0.1),
        steps=4,
        batch_size=16,
    )


@pytest.mark.parametrize("kind", ["text", "images"])
def test_every_applicable_probe_measures_and_changes_nothing(kind, request):
    config = request.getfixturevalue(kind)
    model, data = config.model.build(0), config.data.open()
    before, rng = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    modes = [module.training for module in model.modules()]
    subject = Subject.of(model, data, examples=4, rel_error=0.3, top=2, critical=True)
    names = applicable(model)
    bundles = measure(subject, names)
    assert [bundle.probe for bundle in bundles] == list(names)
    for bundle in bundles:
        assert bundle.readings
        assert bundle.seconds > 0
        assert bundle.gradients > 0
        if bundle.probe != "invariance":  # a bias that is still 0 has no angle to its gradient: 0/0
            assert all(np.isfinite(reading.value) for reading in bundle.readings), bundle.probe
    by_name = {reading.quantity: reading for bundle in bundles for reading in bundle.readings}
    for estimated in ("jacobian_fro", "hessian_trace", "gauss_newton_trace", "hessian_top", "noise_scale"):
        assert by_name[estimated].stderr >= 0
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), rng)
    assert [module.training for module in model.modules()] == modes
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_together_they_are_all_probes(text, images):
    assert {*applicable(text.model.build(0)), *applicable(images.model.build(0))} == set(PROBES)


def test_examples_are_fixed_and_spread_over_the_held_out_windows(text):
    model, data = text.model.build(0), text.data.open()
    windows = torch.cat([inputs for inputs, _ in data.validation(5)])
    assert torch.equal(Subject.of(model, data, examples=4).batch[0], windows[[0, 4, 8, 12]])
    assert torch.equal(Subject.of(model, data, examples=99).batch[0], windows)


def test_the_loss_is_the_models_own(text, images):
    for config in (text, images):
        model, data = config.model.build(0).eval(), config.data.open()
        batch = data.batch(0, 4)
        assert LOSS(model, batch).item() == pytest.approx(model.loss(*batch).item(), rel=1e-6)


def test_what_the_loop_records_is_what_is_measured_on_its_checkpoint(text, tmp_path):
    end = Probes(hessian_trace="end", noise_scale="end", jacobian="end", examples=4, rel_error=0.3)
    record = train(replace(text, probes=end), tmp_path, device="cpu")
    model, data = text.model.build(1), text.data.open()
    checkpoint.load(checkpoint.checkpoints(record.path / "checkpoints")[-1], model=model)
    subject = Subject.of(model, data, examples=4, rel_error=0.3, seed=text.steps - 1)
    for bundle in measure(subject, ["hessian_trace", "noise_scale", "jacobian"]):
        for quantity, values in quantities(bundle.readings).items():
            for tensor, value in values.items():
                assert record.series(quantity, tensor).to_dict() == {text.steps - 1: value}
    direct = hessian_trace(model, LOSS, subject.batch, rel_error=0.3, max_products=300, seed=text.steps - 1)
    assert record.series("hessian_trace")[text.steps - 1] == direct.value


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        ([], "probes = 'nothing' .* some of jacobian, hessian_trace"),
        (["sharpness"], "probes = 'sharpness' .* some of"),
        (["jacobian_inputs"], "probes = 'jacobian_inputs'"),
    ],
)
def test_what_cannot_be_measured_is_refused(text, names, sentence):
    subject = Subject.of(text.model.build(0), text.data.open(), examples=4)
    with pytest.raises(InputError, match=sentence):
        measure(subject, names)
