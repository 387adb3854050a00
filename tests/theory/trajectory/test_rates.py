import numpy as np
import pytest

from theory.errors import InputError
from theory.schedules import Constant, Cosine, InverseSqrt, Linear, WarmupStableDecay
from theory.trajectory.rates import decay_rates, learning_rates, reported


@pytest.mark.parametrize(
    ("spec", "shape"),
    [
        ({"kind": "constant"}, Constant()),
        ({"kind": "linear"}, Linear()),
        ({"kind": "cosine", "warmup": 10}, Cosine(warmup=10)),
        ({"kind": "invsqrt", "warmup": 10}, InverseSqrt(warmup=10)),
        ({"kind": "wsd", "warmup": 10, "decay": 20}, WarmupStableDecay(warmup=10, decay=20)),
    ],
)
def test_mappings_are_schedules(spec, shape):
    rates = learning_rates({**spec, "peak": 0.3, "steps": 50})
    assert np.array_equal(rates, 0.3 * shape.at(np.arange(50), 50))


def test_formulas_of_the_vectors():
    """theory.md section 11, by hand."""
    t, steps, warmup, decay = np.arange(50), 50, 10, 20
    cosine = np.where(t < warmup, (t + 1) / warmup, 0.5 * (1 + np.cos(np.pi * (t - warmup) / (steps - warmup))))
    assert learning_rates({"kind": "cosine", "peak": 2.0, "steps": steps, "warmup": warmup}) == pytest.approx(
        2 * cosine
    )
    wsd = np.minimum.reduce([(t + 1) / warmup, np.ones(steps), (steps - t) / decay])
    spec = {"kind": "wsd", "peak": 2.0, "steps": steps, "warmup": warmup, "decay": decay}
    assert learning_rates(spec) == pytest.approx(2 * wsd)
    assert learning_rates({"kind": "linear", "peak": 2.0, "steps": steps}) == pytest.approx(2 * (1 - t / steps))


def test_given_mapping_is_left_alone():
    spec = {"kind": "cosine", "peak": 1.0, "steps": 3}
    learning_rates(spec)
    assert spec == {"kind": "cosine", "peak": 1.0, "steps": 3}


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({"kind": "sine", "peak": 1.0, "steps": 3}, ("kind = 'sine'", "cosine")),
        ({"kind": "cosine", "steps": 3}, ("peak = None", "finite")),
        ({"kind": "cosine", "peak": 1.0}, ("steps = None", "whole")),
        ({"kind": "cosine", "peak": 1.0, "steps": 3, "slope": 1}, ("'cosine'", "slope")),
        ({"kind": "cosine", "peak": 1.0, "steps": 3, "warmup": 4}, ("warmup = 4", "steps = 3")),
        ([[0.1]], ("schedule", "sequence")),
        ([float("inf")], ("schedule", "finite")),
    ],
)
def test_bad_input(schedule, words):
    with pytest.raises(InputError) as error:
        learning_rates(schedule)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_decay_and_steps():
    assert decay_rates([0.1, 0.2], np.ones(2)).tolist() == [0.1, 0.2]
    assert reported([2, 0], 3).tolist() == [2, 0]
    with pytest.raises(InputError, match="weight_decay"):
        decay_rates(float("nan"), np.ones(2))
