from dataclasses import replace

import pytest

from empirics.config import FREE, LATER, TrainConfig
from empirics.data import ImageData, TextData
from empirics.experiments import experiment
from empirics.models import GPT2Config, PreActResNetConfig, ResNetConfig, VGGConfig
from empirics.plan import Probes
from theory.errors import InputError
from theory.optimizers import SGD, Adam, AdamW, Decay, Hyperball, Lion, Muon, NormalizedMomentum, Signum
from theory.schedules import Constant, Cosine, Linear, Piecewise, WarmupStableDecay
from theory.serialize import content_hash, from_json, to_dict, to_json

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


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("gpt2_small_text", "10ae3d6afd8282935bd02d6012ffc177e8447bad6834b101bec5d935d1f69146"),
        ("gpt2_medium_text", "034e15bf62878d847ebafb22e6d3b40ec1b1f504989b3cdc5a42f25b6c790ce0"),
        ("resnet_noisy_digits", "18f24ebebdb5b4d558095ba2710d69a5dc0d528b36f2e28602526e47806e4537"),
        ("resnet_noisy_digits_invariant", "d2ab296ad33c19e1624011024dced78bbb32208db2b775fe43ae9a872070832d"),
    ],
)
def test_finished_runs_are_found_again(name, known):
    """Hashes from before accumulation, averages, twins and all the other later fields."""
    assert experiment(name).hash == known


LATER_VALUES = {
    "ends_on": ("spike",),
    "weight_decay_schedule": Linear(),
    "accumulate": 2,
    "tf32": True,
    "averages": ("ema:10", "swa:5"),
    "init_from": "other@100",
    "fixed_norm": 1.0,
    "match": "other",
    "match_by": "mean",
    "match_factor": 0.25,
    "twin": "other",
    "twin_of": "matrices",
    "others": AdamW(lr=0.1),
}


@pytest.mark.parametrize("field", LATER)
def test_a_later_field_counts_where_it_is_set(field):
    base = replace(TEXT, optimizer=Muon(lr=1e-3)) if field == "others" else TEXT
    if field == "weight_decay_schedule":
        scheduled = AdamW(lr=1e-3, decay=Decay.SCHEDULED)
        base, other = (replace(TEXT, optimizer=scheduled, weight_decay_schedule=x) for x in (Constant(), Linear()))
    else:
        other = replace(base, **{field: LATER_VALUES[field]})
    assert other.hash != base.hash
    assert from_json(to_json(other)) == other
    assert replace(base, keep_every=100).hash == base.hash


@pytest.mark.parametrize(
    ("given", "spelling"),
    [
        (["b", "a", "a"], "names:a,b"),
        ("names:b, a", "names:a,b"),
        ("regex:mlp|attn", "regex:mlp|attn"),
    ],
)
def test_decay_is_spelled_in_one_way(given, spelling):
    assert replace(TEXT, decay=given).decay == spelling


@pytest.mark.parametrize(
    "optimizer", [Lion(1e-3), Signum(1e-3), NormalizedMomentum(1e-3), Muon(1e-3), Hyperball(1e-3), Adam(1e-3)]
)
@pytest.mark.parametrize("model", [VGGConfig(), PreActResNetConfig(), ResNetConfig()])
def test_every_optimizer_and_model_is_allowed(optimizer, model):
    config = replace(IMAGES, model=model, optimizer=optimizer)
    assert from_json(to_json(config)) == config


@pytest.mark.parametrize("config", [TEXT, IMAGES, replace(TEXT, schedule=Piecewise(knots=((0, 1.0), (50, 0.1))))])
def test_json_round_trip_keeps_value_and_hash(config):
    again = from_json(to_json(config))
    assert again == config
    assert again.hash == config.hash


def test_the_hash_is_that_of_the_training():
    """Probes and what came later leave it as it was: known from before there were any."""
    known = {key: x for key, x in to_dict(TEXT).items() if key not in (*FREE, *LATER)}
    del known["data"]["replacement"]
    assert TEXT.hash == content_hash(known)
    assert replace(TEXT, probes=Probes(hessian_trace=10)).hash == TEXT.hash
    assert replace(TEXT, data=replace(TEXT.data, replacement=True)).hash != TEXT.hash
    assert replace(TEXT, ends_on=("spike",)).hash != TEXT.hash
    assert replace(TEXT, ends_on=["drift", "spike"]) == replace(TEXT, ends_on=("spike", "drift"))
    assert replace(TEXT, precision="emulated:m7e8:nearest").hash == replace(TEXT, precision="emulated:m7e8").hash


def test_activations_are_not_for_resnets():
    assert replace(IMAGES, probes=Probes(activations=0)).hash == IMAGES.hash
    with pytest.raises(InputError, match=r"probes.activations = 10 .* auto or 0 for a ResNet"):
        replace(IMAGES, probes=Probes(activations=10))


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
        ({"precision": "fp8"}, "precision = 'fp8' .* one of auto, float32, bf16"),
        ({"precision": "emulated:m30e8"}, "precision = 'emulated:m30e8' .* such as emulated:m7e8"),
        ({"precision": "emulated:m7e8", "compile": True}, "compile = True .* false under an emulated precision"),
        ({"ends_on": ("nan",)}, "ends_on = .* any of spike, drift"),
        ({"probes": None}, "probes = None"),
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
        (
            {"optimizer": AdamW(lr=0.1, decay=Decay.SCHEDULED)},
            "weight_decay_schedule = None .* a schedule exactly when",
        ),
        ({"weight_decay_schedule": Linear()}, "weight_decay_schedule = .* a schedule exactly when"),
        ({"others": AdamW(lr=0.1)}, "others = .* None, or an AdamW beside Muon"),
        ({"accumulate": 3}, "accumulate = 3 .* a divisor of batch_size = 8"),
        ({"averages": ("mean",)}, "averages = 'mean' .* such as ema:100"),
        ({"averages": "swa:100"}, "averages = 'swa:100' .* first step below steps = 100"),
        ({"averages": "ema:0"}, "averages = 'ema:0'"),
        ({"fixed_norm": -1.0}, "fixed_norm = -1.0"),
        ({"match_by": "row"}, "match_by = 'row' .* one of tensor, mean, global"),
        ({"twin": "a", "match": "b"}, "twin = 'a' .* empty beside match, fixed_norm or others"),
        ({"twin_of": "all"}, "twin_of = 'all'"),
        ({"tf32": "yes"}, "tf32 = 'yes'"),
        ({"decay": "regex:("}, "decay = 'regex:\\(' is not a regular expression"),
        ({"decay": "names:"}, "decay = 'names:'"),
        ({"keep_every": -1}, "keep_every = -1"),
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
