"""Stochastic rounding: against numerical integration, and AdamW whose bfloat16 weights are rounded at random."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from theory import adamw_equilibrium, stochastic_rounding_equilibrium
from theory.errors import InputError
from theory.precision.stochastic import rounding_variance


@pytest.mark.parametrize("size", [1e-3, 0.05, 0.149, 0.151, 0.3, 0.7, 2.0])
def test_variance_is_the_mean_of_f_times_one_minus_f(size):
    reach = math.ceil(12 * size)
    total = sum(
        quad(lambda x, k=k: (x - k) * (k + 1 - x) * norm.pdf(x, scale=size), k, k + 1, epsrel=1e-11)[0]
        if size > 0.02
        else quad(lambda x, k=k: (x - k) * (k + 1 - x) * norm.pdf(x, scale=size), max(k, -1 / 50), min(k + 1, 1 / 50))[
            0
        ]
        for k in range(-reach, reach)
    )
    # the short form below 0.15 leaves out steps of more than one ulp, a normal tail of 3e-11 at most
    assert float(rounding_variance(size)) == pytest.approx(total, rel=1e-8)


def test_variance_lies_between_none_and_a_sixth():
    sizes = np.concatenate([[0.0], np.geomspace(1e-300, 1e300, 2_000)])
    variances = rounding_variance(sizes)
    assert variances[0] == 0
    assert np.all((variances >= 0) & (variances <= 1 / 6))
    assert np.all(np.diff(variances) >= -1e-12)


def _stochastic(value: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Float32 to bfloat16, up with the probability of the remainder: 16 random bits added before truncation."""
    bits = value.view(torch.int32)
    noise = torch.randint(0, 2**16, value.shape, dtype=torch.int32, generator=generator)
    return ((bits + noise) & ~0xFFFF).view(torch.float32)


@pytest.mark.parametrize(
    ("lr", "decay", "betas", "warmup", "steps"),
    [
        (0.001, 2.0, (0.9, 0.95), 0, 1_200),
        (0.003, 0.8, (0.0, 0.9), 0, 1_000),
        (0.001, 0.1, (0.99, 0.99), 500, 1_000),  # steps well below an ulp, once the momentum has settled
    ],
)
def test_against_adamw_with_stochastically_rounded_weights(lr, decay, betas, warmup, steps):
    """Two torch.optim.AdamW on the same gradients, one with its weights rounded after every step.

    Adam's update does not look at the weights, so what separates the two is rounding noise alone, and its mean square
    over that of the weights is inflation^2 - 1: measured to 2 % without waiting for the weights' own average, and
    before it has settled, because noise of variance V a step accumulates as V (1 - a^2t)/(1 - a^2).
    """
    generator, count = torch.Generator().manual_seed(0), 16_000
    law = stochastic_rounding_equilibrium(lr, decay, betas)
    start = law.rms * torch.randn(count, generator=generator)
    pair = [torch.nn.Parameter(start.bfloat16().float()) for _ in range(2)]
    optimizer = torch.optim.AdamW(pair, lr=lr, betas=betas, weight_decay=decay, eps=0.0)
    apart, square = torch.zeros(count, dtype=torch.float64), 0.0
    for t in range(-warmup, steps):
        pair[0].grad = pair[1].grad = torch.randn(count, generator=generator)
        optimizer.step()
        if t >= 0:
            pair[0].data = _stochastic(pair[0].data, generator)
        if t >= steps - 100:
            apart += (pair[0].data - pair[1].data).double().square() / 100
            square += pair[1].data.double().square().mean().item() / 100
    settled = 1 - (1 - lr * decay) ** (2 * steps - 100)
    inflation = math.sqrt(1 + apart.mean().item() / settled / square)
    error = apart.std().item() / apart.mean().item() / math.sqrt(count)
    assert error < 0.02
    assert law.inflation**2 - 1 == pytest.approx(inflation**2 - 1, rel=0.02 + 3 * error)
    assert law.rms == pytest.approx(inflation * math.sqrt(square), rel=0.005 + 3 / math.sqrt(2 * count))


def test_rounding_to_nearest_would_lose_this_decay_and_stochastic_rounding_keeps_it():
    """lr*wd = 2^-10, below the threshold: the mean of one decay step is unbiased over a million roundings."""
    generator = torch.Generator().manual_seed(0)
    w = torch.full((1_000_000,), 1.25)
    after = _stochastic(w * (1 - 2**-10), generator)
    error = after.double().std().item() / 1_000
    assert abs(after.double().mean().item() - 1.25 * (1 - 2**-10)) < 4 * error
    assert torch.equal((w * (1 - 2**-10)).bfloat16().float(), w)


@pytest.mark.parametrize("decay", [1e-12, 1e-6, 1e-3, 0.1, 10.0, 900.0])
def test_inflation_is_a_fixed_point_at_least_one_and_grows_as_decay_fades(decay):
    law = stochastic_rounding_equilibrium(1e-3, decay)
    assert law.inflation >= 1
    assert law.inflation == pytest.approx(law.rms / adamw_equilibrium(1e-3, decay, (0.9, 0.999), d=1).norm, rel=1e-12)
    assert stochastic_rounding_equilibrium(1e-3, decay / 2).inflation > law.inflation - 1e-12


def test_usual_recipes_are_inflated_by_less_than_three_per_cent():
    inflations = [stochastic_rounding_equilibrium(lr, 0.1, (0.9, 0.95)).inflation for lr in (1e-2, 3e-3, 6e-4)]
    assert all(1.001 < inflation < 1.03 for inflation in inflations)


@pytest.mark.parametrize(
    "call",
    [
        lambda: stochastic_rounding_equilibrium(0.0, 0.1),
        lambda: stochastic_rounding_equilibrium(1e-3, 0.0),
        lambda: stochastic_rounding_equilibrium(1.0, 2.0),
        lambda: stochastic_rounding_equilibrium(math.nan, 0.1),
        lambda: stochastic_rounding_equilibrium(1e-3, 0.1, (1.0, 0.9)),
        lambda: stochastic_rounding_equilibrium(1e-3, 0.1, (0.9, -0.1)),
    ],
)
def test_bad_input_gets_one_sentence(call):
    with pytest.raises(InputError, match="is not allowed: it must be"):
        call()
