import dataclasses
import inspect

import pytest
import torch

from theory.errors import InputError
from theory.optimizers import SGD, Adam, AdamW, Decay


@pytest.mark.parametrize("spec", [SGD, Adam, AdamW])
def test_arguments_are_torchs(spec):
    """Same names, same defaults (lr must be given here)."""
    theirs = inspect.signature(getattr(torch.optim, spec.__name__)).parameters
    for field in dataclasses.fields(spec):
        if field.name not in ("lr", "decay"):
            assert field.default == theirs[field.name].default, field.name
    assert "lr" in theirs


def test_decay_conventions():
    assert AdamW(0.1).decay is Decay.DECOUPLED
    assert AdamW(0.1, decay=Decay("independent")).decay is Decay.INDEPENDENT
    assert SGD(0.1).decay is Adam(0.1).decay is Decay.COUPLED


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: AdamW(lr=-1), ("lr = -1", ">= 0")),
        (lambda: AdamW(lr=float("inf")), ("lr = inf", "finite")),
        (lambda: AdamW(lr="fast"), ("lr = 'fast'", "number")),  # pyright: ignore
        (lambda: AdamW(1e-3, betas=(0.9, 1.0)), ("betas[1] = 1.0", "< 1")),
        (lambda: AdamW(1e-3, betas=(-0.1, 0.9)), ("betas[0] = -0.1", ">= 0")),
        (lambda: AdamW(1e-3, betas=0.9), ("betas = 0.9", "pair")),  # pyright: ignore
        (lambda: AdamW(1e-3, eps=-1e-8), ("eps = -1e-08", ">= 0")),
        (lambda: AdamW(1e-3, weight_decay=-0.1), ("weight_decay = -0.1", ">= 0")),
        (lambda: AdamW(1e-3, decay="coupled"), ("decay = 'coupled'", "decoupled")),  # pyright: ignore
        (lambda: AdamW(1e-3, decay="weird"), ("decay = 'weird'", "decoupled")),  # pyright: ignore
        (lambda: Adam(1e-3, betas=(0.9, 0.9, 0.9)), ("betas", "pair")),  # pyright: ignore
        (lambda: SGD(0.1, momentum=1.0), ("momentum = 1.0", "< 1")),
        (lambda: SGD(0.1, 0.9, dampening=1.1), ("dampening = 1.1", "<= 1")),
        (lambda: SGD(0.1, nesterov=True), ("nesterov", "momentum > 0")),
        (lambda: SGD(0.1, 0.9, 0.1, nesterov=True), ("dampening = 0.1", "dampening = 0")),
    ],
)
def test_bad_input(make, words):
    with pytest.raises(InputError) as error:
        make()
    assert all(word in str(error.value) for word in words), str(error.value)
    assert "\n" not in str(error.value)
