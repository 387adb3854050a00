import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from theory.errors import InputError
from theory.optimizers import SGD, AdamW, Decay
from theory.probe import Probe, TensorProbe
from theory.recipe import Group, Recipe
from theory.schedules import Constant, Cosine, Piecewise
from theory.serialize import content_hash, from_dict, from_json, settle, to_dict, to_json


def test_everything_survives_json():
    values = [
        AdamW(0.1, decay=Decay.CORRECTED),
        SGD(0.1, 0.9, nesterov=True),
        Piecewise(3, ((0, 1.0), (5, 0.5)), "linear"),
        Group("w", (3, 4), scale_invariant="row", norm0=1.5, weight_decay=0.0),
        Probe(10, {"a": TensorProbe(c2=2.0), "b": TensorProbe(norm=1.0, long_run_ratio=3.0)}),
        Recipe(AdamW(0.1, decay=Decay.SCHEDULED), Cosine(2), 9, (Group("w", (2,)),), Constant(1)),
    ]
    for value in values:
        again = from_json(to_json(value, indent=1))
        assert again == value
        assert type(again) is type(value)
        assert content_hash(again) == content_hash(value)
    assert len({content_hash(value) for value in values}) == len(values)


def test_hash_does_not_depend_on_spelling():
    anyhow: Any = np.bool_(False), [3, 4], (4.0,), [0.5, 0], np.int64(2), 9.0, np.float32(0.5)
    no, shape, vector, betas, two, nine, half = anyhow
    groups: Any = [Group("w", shape, norm0=1), Group("b", vector, decayed=no)]
    spelled = Recipe(AdamW(np.float64(1), betas, weight_decay=0), Cosine(two, 0), nine, groups)
    plain = Recipe(
        AdamW(1.0, (0.5, 0.0), weight_decay=-0.0),
        Cosine(2, 0.0),
        9,
        (Group("w", (3, 4), norm0=1.0), Group("b", (4,), decayed=False)),
    )
    assert spelled == plain
    assert spelled.hash == plain.hash
    assert spelled.to_json() == plain.to_json()
    turned = json.dumps(dict(reversed(json.loads(plain.to_json()).items())))
    assert Recipe.from_json(turned).hash == plain.hash
    assert json.loads(to_json(AdamW(half)))["lr"] == 0.5
    assert len(plain.hash) == 64


def test_hash_of_known_content_stays():
    """Run directories are named by it: a change here orphans them."""
    assert content_hash({"b": [1, 2.5, None], "a": "x"}) == content_hash({"a": "x", "b": (1, 2.5, None)})
    assert content_hash({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", ("not JSON",)),
        ('{"kind": "Lamb", "lr": 1}', ("kind = 'Lamb'", "AdamW")),
        ('{"kind": []}', ("kind = []", "AdamW")),
        ('{"kind": "AdamW"}', ("AdamW", "'lr'", "given")),
        ('{"kind": "AdamW", "lr": 1, "rho": 2}', ("AdamW has no field 'rho'", "given: 2", "betas")),
        ('{"kind": "AdamW", "lr": NaN}', ("lr = nan", "finite")),
    ],
)
def test_bad_text(text, words):
    with pytest.raises(InputError) as error:
        from_json(text)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_numbers_that_json_cannot_hold_are_refused():
    with pytest.raises(ValueError, match="JSON"):
        to_json({"x": float("nan")})


def test_plain_values():
    assert to_dict({1: (Decay.NONE, 2)}) == {"1": ["none", 2]}
    assert from_dict({"a": [1, {"b": 2}]}) == {"a": (1, {"b": 2})}


def test_settle():
    @dataclass(frozen=True)
    class Point:
        x: float

    point = Point(1.0)
    settle(point, x=2.0)
    assert point == Point(2.0)
