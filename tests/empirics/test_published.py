"""The published hyper-parameters, written down again from the paper's appendix and code."""

import numpy as np
import pytest

from empirics.elsewhere import on_data
from empirics.experiments import EXPERIMENTS, experiment
from empirics.published import PUBLISHED, SCALES
from theory.errors import InputError
from theory.serialize import from_json, to_json


def values(config, text):
    """Fields by dotted names."""
    found = {}
    for name in text.split():
        value = config
        for part in name.split("."):
            value = getattr(value, part)
        found[name] = value
    return found


GPT2 = {
    "model.n_layer": 12,
    "model.n_head": 12,
    "model.n_embd": 768,
    "model.block_size": 1024,
    "model.vocab_size": 50304,
    "model.bias": False,
    "model.dropout": 0.0,
    "data.source": "openwebtext",
    "data.vocab_size": 50257,
    "data.block_size": 1024,
    "data.replacement": True,
    "optimizer.lr": 6e-4,
    "optimizer.betas": (0.9, 0.95),
    "optimizer.weight_decay": 0.1,
    "schedule.warmup": 400,
    "schedule.final": 0.1,
    "steps": 50_000,
    "batch_size": 256,
    "accumulate": 16,
    "micro_batch": 16,
    "grad_clip": 1.0,
    "precision": "bf16",
    "decay": "matrices",
}
BLOCK256 = GPT2 | {
    "model.block_size": 256,
    "data.block_size": 256,
    "data.replacement": False,  # its 3.3 of 9 billion tokens fit into one pass
    "accumulate": 8,
    "micro_batch": 32,
}
MICRO = BLOCK256 | {"model.n_layer": 4, "model.n_head": 4, "model.n_embd": 192}
RESNET18 = {
    "model.width": 64,
    "model.blocks": (2, 2, 2, 2),
    "model.in_channels": 3,
    "model.num_classes": 10,
    "model.scale_invariant": False,
    "data.source": "cifar10",
    "data.train": 50_000,
    "data.label_noise": 0.0,
    "optimizer.lr": 0.08,
    "optimizer.momentum": 0.0,
    "optimizer.weight_decay": 0.0125,
    "schedule.knots": ((0, 1.0), (195_000, 1e-4 / 0.08)),
    "steps": 390_000,
    "batch_size": 128,
    "decay": "all",
}
RESNET34 = RESNET18 | {
    "model.blocks": (3, 4, 6, 3),
    "model.num_classes": 100,
    "data.source": "cifar100",
    "optimizer.lr": 0.15,
    "optimizer.weight_decay": 0.01,
    "schedule.knots": ((0, 1.0), (195_000, 1e-4 / 0.15)),
}
VGG16 = {key: x for key, x in RESNET18.items() if key != "model.scale_invariant"} | {
    "model.blocks": (2, 2, 3, 3, 3),
    "optimizer.lr": 0.1,
    "optimizer.weight_decay": 0.008,
    "schedule.knots": ((0, 1.0), (195_000, 1e-4 / 0.1)),
}
INVARIANT = {key: x for key, x in RESNET18.items() if key != "schedule.knots"} | {
    "model.scale_invariant": True,
    "optimizer.lr": 0.001,
    "optimizer.weight_decay": 0.0,
    "fixed_norm": 1.0,
    "steps": 39_000,
}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt2_124m", GPT2),
        ("gpt2_124m_block256", BLOCK256),
        ("gpt2_micro", MICRO),
        ("resnet18_cifar10", RESNET18),
        ("resnet34_cifar100", RESNET34),
        ("vgg16_cifar10", VGG16),
        ("resnet18_scale_invariant", INVARIANT),
    ],
)
def test_at_scale_paper_it_is_the_papers_run(name, expected):
    assert values(experiment(name, scale="paper"), " ".join(expected)) == expected


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_exists_at_every_scale_under_one_name_each(name):
    configs = [experiment(name, scale=scale, seed=3) for scale in SCALES]
    assert len({config.directory for config in configs}) == 3
    assert configs[0].data.source in ("python", "digits")
    assert all(config.seed == 3 and from_json(to_json(config)) == config for config in configs)
    assert EXPERIMENTS[name](seed=3) == configs[0]
    small, middle, _ = (config.steps * config.batch_size for config in configs)
    assert small < middle


@pytest.mark.parametrize("name", ["gpt2_124m", "gpt2_124m_block256", "gpt2_micro"])
def test_shorter_language_models_decay_as_far(name):
    for scale in SCALES:
        config = experiment(name, scale=scale)
        assert config.optimizer.lr * config.optimizer.weight_decay * config.steps == pytest.approx(3)


def test_the_published_gpt2_has_124_million_parameters():
    """12 * 12 * 768^2 matrices, (50,304 + 1,024) * 768 embeddings and 25 * 768 gains."""
    model = experiment("gpt2_124m", scale="paper").model.build(seed=0)
    assert sum(p.numel() for p in model.parameters()) == 12 * 12 * 768**2 + (50304 + 1024) * 768 + 25 * 768


def test_only_the_papers_gpt2_sees_windows_again(tmp_path):
    """Its 50,000 steps of 256 windows need 13.1 of OpenWebText's 9 billion tokens; the others refuse to repeat any."""
    for name in ("train", "val"):
        np.zeros(5_000, dtype=np.uint16).tofile(tmp_path / f"{name}.bin")
    for name in ("gpt2_124m", "gpt2_124m_block256", "gpt2_micro"):
        config = on_data(experiment(name, scale="paper"), f"bin:{tmp_path}")
        data = config.data.open()
        if name == "gpt2_124m":
            data.check(config.steps, config.batch_size)
        else:
            with pytest.raises(InputError, match="tokens are missing"):
                data.check(config.steps, config.batch_size)


def test_other_experiments_have_one_scale_and_unknown_scales_are_refused():
    with pytest.raises(InputError, match="scale = 'paper' is not allowed: resnet_noisy_digits has the scale cpu only"):
        experiment("resnet_noisy_digits", scale="paper")
    with pytest.raises(InputError, match="scale = 'tpu' is not allowed: it must be one of cpu, gpu, paper"):
        experiment("gpt2_124m", scale="tpu")
