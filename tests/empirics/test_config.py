from dataclasses import replace

import pytest

from empirics.config import TrainConfig
from empirics.data import ImageData, TextData
from empirics.models import GPT2Config, ResNetConfig
from theory.errors import InputError
from theory.optimizers import SGD, AdamW, Decay
from theory.schedules import Cosine, Piecewise, WarmupStableDecay
from theory.serialize import from_json, to_json

TEXT = TrainConfig(
    name="lm",
    model=GPT2Config(vocab_size=1024, block_size=64, n_layer=1, n_head=1, n_embd=8),
    data=TextData(),
    optimizer=AdamW(lr=1e-3, weight_decay=0.1),
    schedule=Cosine(warmup=10, final=0.1),
    steps=100,
    batch_size=8,
)
IMAGES = TrainConfig(
    name="digits", model=ResNetConfig(), data=ImageData(), optimizer=SGD(lr=0.1), steps=100, batch_size=8
)


@pytest.mark.parametrize("config", [TEXT, IMAGES, replace(TEXT, schedule=Piecewise(knots=((0, 1.0), (50, 0.1))))])
def test_json_round_trip_keeps_value_and_hash(config):
    again = from_json(to_json(config))
    assert again == config
    assert again.hash == config.hash


def test_the_hash_tells_contents_apart_but_not_spellings():
    assert replace(TEXT, steps=100.0, grad_clip=1).hash == replace(TEXT, grad_clip=1.0).hash
    assert replace(TEXT, seed=1).hash != TEXT.hash
    assert TEXT.directory == f"lm-{TEXT.hash[:8]}"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": "a/b"}, "name = 'a/b' is not allowed"),
        ({"name": "../up"}, "name"),
        ({"name": ""}, "name"),
        ({"steps": 0}, "steps = 0 is not allowed: it must be a whole number >= 1"),
        ({"steps": 1.5}, "steps = 1.5"),
        ({"grad_clip": -1.0}, "grad_clip = -1.0"),
        ({"grad_clip": float("nan")}, "grad_clip = nan"),
        ({"precision": "fp16"}, "precision = 'fp16' .* one of auto, float32, bf16"),
        ({"decay": "none"}, "decay = 'none' .* 'matrices' or 'all'"),
        ({"compile": "yes"}, "compile = 'yes'"),
        ({"keep_checkpoints": 0}, "keep_checkpoints = 0"),
        ({"rotation_every": -1}, "rotation_every = -1"),
        ({"model": "gpt2"}, "model = 'gpt2' .* one of GPT2Config, ResNetConfig"),
        ({"optimizer": None}, "optimizer = None .* one of SGD, Adam, AdamW"),
        ({"schedule": 0.1}, "schedule = 0.1"),
        ({"schedule": Cosine(warmup=101)}, "warmup = 101 is longer than the run"),
        ({"schedule": WarmupStableDecay(warmup=60, decay=60)}, "longer than the run"),
        ({"optimizer": AdamW(lr=10.0, weight_decay=0.1)}, "overshoots zero"),
        ({"optimizer": AdamW(lr=0.1, decay=Decay.CAUTIOUS)}, "optimizer.decay = 'cautious'"),
        ({"optimizer": AdamW(lr=0.1, decay=Decay.SCHEDULED)}, "optimizer.decay = 'scheduled'"),
        ({"optimizer": AdamW(lr=0.0, decay=Decay.INDEPENDENT)}, "optimizer.lr = 0.0"),
        ({"data": ImageData()}, "TextData for a language model"),
        ({"model": ResNetConfig()}, "ImageData for a ResNet"),
        ({"data": TextData(block_size=128)}, "data.block_size = 128 .* at most model.block_size = 64"),
        ({"data": TextData(vocab_size=2048)}, "data.vocab_size = 2048 .* at most model.vocab_size = 1024"),
    ],
)
def test_each_bad_field_gets_its_sentence(change, sentence):
    with pytest.raises(InputError, match=sentence):
        replace(TEXT, **change)


def test_an_unknown_field_in_a_file_is_refused():
    with pytest.raises(InputError, match="has no field 'lr'"):
        from_json(to_json(TEXT).replace('"steps"', '"lr"', 1))
