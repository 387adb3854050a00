import pytest

from empirics.plan import SCHEDULED, Probes
from theory.errors import InputError
from theory.serialize import from_json, to_json


@pytest.mark.parametrize(
    ("when", "spelled", "steps"),
    [
        (0, 0, []),
        ("0", 0, []),
        (30, 30, [0, 30, 60, 90]),
        ("log:1", "log:1", [0, 1, 10]),
        ("end", "end", [99]),
        ("end+log:2+40", "40+log:2+end", [0, 1, 3, 10, 32, 40, 80, 99]),
    ],
)
def test_when_a_probe_measures(when, spelled, steps):
    for name in SCHEDULED:
        probes = Probes(**{name: when})
        assert getattr(probes, name) == spelled
        schedule = probes.schedule(name, steps=100)
        assert [step for step in range(100) if schedule is not None and schedule.due(step)] == steps
    assert from_json(to_json(probes)) == probes


def test_automatic_activations():
    assert Probes().schedule("activations", steps=10) is None
    assert Probes().schedule("activations", steps=10, auto=50).every == 50
    assert Probes.none().schedule("activations", steps=10, auto=50) is None


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"jacobian": "often"}, "probes.jacobian = 'often' .* 'log:<steps a decade>', 'end'"),
        ({"jacobian": "10+20"}, "probes.jacobian"),
        ({"jacobian": "log:0"}, "probes.jacobian"),
        ({"hessian_top": -1}, "probes.hessian_top = -1"),
        ({"signal": None}, "probes.signal = None"),
        ({"signal": "auto"}, "probes.signal = 'auto'"),
        ({"windows": (10, 1)}, "probes.windows = .* rising"),
        ({"windows": (1, 10), "windows_every": 5}, "probes.windows_every = 5 .* at least 10"),
        ({"examples": 2}, "probes.examples = 2"),
        ({"rel_error": 0}, "probes.rel_error = 0"),
        ({"lags": -1}, "probes.lags = -1"),
    ],
)
def test_each_bad_field_gets_its_sentence(change, sentence):
    with pytest.raises(InputError, match=sentence):
        Probes(**change)
