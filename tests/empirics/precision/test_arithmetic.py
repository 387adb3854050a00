import pytest
import torch

from empirics.precision.arithmetic import arithmetic
from theory.errors import InputError


@pytest.mark.parametrize(
    ("precision", "name", "low"),
    [
        ("auto", "auto", False),
        ("float32", "float32", False),
        ("bf16", "bf16", True),
        ("fp16", "fp16", True),
        ("bf16-weights:nearest", "bf16-weights", True),
        ("bf16-weights:stochastic", "bf16-weights:stochastic", True),
        ("emulated:m7e8", "emulated:m7e8", True),
        ("emulated:m07e08:nearest", "emulated:m7e8", True),
        ("emulated:m10e5:stochastic", "emulated:m10e5:stochastic", True),
        ("emulated:m23e8", "emulated:m23e8", False),
    ],
)
def test_one_spelling_each(precision, name, low):
    found = arithmetic(precision)
    assert (found.name, found.low) == (name, low)
    assert arithmetic(name) == found


def test_auto_is_bf16_on_cuda():
    assert arithmetic("auto", "cuda").autocast
    assert not arithmetic("float32", "cuda").autocast


@pytest.mark.parametrize(
    "precision",
    [
        "fp8",
        "bf16-weights:up",
        "emulated",
        "emulated:m24e8",
        "emulated:m7e1",
        "emulated:m7",
        "emulated:m7e8:up",
        None,
        7,
    ],
)
def test_anything_else_is_refused_with_what_is_allowed(precision):
    with pytest.raises(InputError, match=r"precision = .* one of auto, float32, bf16, .*or emulated:m<mantissa bits"):
        arithmetic(precision)


def test_the_context_rounds_and_its_noise_is_its_own():
    x, state = torch.full((64, 1), 1.002), torch.get_rng_state()
    one = torch.ones(1, 1)
    nearest, stochastic = arithmetic("emulated:m7e8"), arithmetic("emulated:m7e8:stochastic")
    with nearest.rounded():
        assert (x @ one).unique().tolist() == [1.0]
    draws = []
    for _ in range(2):
        noise = stochastic.noise(3, "cpu")
        with stochastic.rounded(noise):
            draws.append(x @ one)
    assert torch.equal(*draws)
    assert draws[0].unique().tolist() == [1.0, 1.0078125]
    assert nearest.noise(3, "cpu") is None
    with arithmetic("float32").rounded():
        assert (x @ one).equal(x)
    assert torch.equal(torch.get_rng_state(), state)
