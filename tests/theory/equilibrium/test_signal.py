"""AdamW with a signal: against torch.optim.AdamW coordinate by coordinate, and its noise-only limit."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from theory import adamw_equilibrium, adamw_signal_noise
from theory.errors import InputError


@pytest.mark.parametrize(
    ("snr", "betas", "lr", "wd"),
    [
        (0.1, (0.9, 0.99), 0.02, 0.5),
        (-0.5, (0.9, 0.99), 0.02, 0.5),
        (1.0, (0.9, 0.98), 0.02, 0.25),
        (2.0, (0.5, 0.99), 0.02, 0.25),
        (0.05, (0.9, 0.95), 0.02, 0.5),
    ],
)
def test_torch_settles_there(snr, betas, lr, wd):
    d, skipped, steps = 4_000, 900, 1_000
    law = adamw_signal_noise(lr, wd, snr, betas)
    torch.manual_seed(0)
    w = torch.nn.Parameter(law.mean + law.std * torch.randn(d, dtype=torch.float64))
    optimizer = torch.optim.AdamW([w], lr=lr, weight_decay=wd, betas=betas, eps=1e-30)
    means, squares = [], []
    for t in range(skipped + steps):
        w.grad = 3.0 * (snr + torch.randn(d).double())  # any scale
        optimizer.step()
        if t >= skipped and t % 20 == 0:
            means.append(w.detach().mean().item())
            squares.append(w.detach().var().item())
    mean, std = float(np.mean(means)), math.sqrt(np.mean(squares))
    error = std / math.sqrt(d * steps * lr * wd / 2)  # of the mean: steps/(2/(lr*wd)) independent draws of d weights
    assert abs(law.mean - mean) < 0.005 * abs(mean) + 4 * error
    # the docstring's bars, 1 % (4 % below beta2 = 0.99), and 1 % for sampling
    assert law.std == pytest.approx(std, rel=0.05 if betas[1] < 0.99 else 0.02)
    assert law.rms == pytest.approx(math.hypot(mean, std), rel=0.015)  # bar of theory.md 4.2
    short = math.sqrt(lr / (2 * wd * (1 + snr**2)))
    if abs(snr) >= 0.5:  # the draft's variance leaves out that a large gradient also raises the denominator
        assert short / std > 1.1


@given(lr=st.floats(1e-4, 0.05), wd=st.floats(0.01, 1.0), b1=st.floats(0, 0.95), b2=st.floats(0.95, 0.9999))
def test_without_signal_it_is_the_noise_equilibrium(lr, wd, b1, b2):
    law, noise = adamw_signal_noise(lr, wd, 0.0, (b1, b2)), adamw_equilibrium(lr, wd, (b1, b2), 1)
    assert law.mean == 0
    assert (law.std, law.rms) == pytest.approx((noise.rms, noise.rms), rel=1e-9)


@given(snr=st.floats(-1e6, 1e6), lr=st.floats(1e-4, 0.05), wd=st.floats(0.01, 1.0), scale=st.floats(0.2, 5))
def test_bounded_odd_and_covariant(snr, lr, wd, scale):
    law = adamw_signal_noise(lr, wd, snr)
    assert abs(law.mean) <= 1 / wd * (1 + 1e-3)  # Xie & Li: |w| <= 1/wd; the expansion may exceed it by O(1-beta2)
    assert adamw_signal_noise(lr, wd, -snr).mean == -law.mean
    moved = adamw_signal_noise(scale * lr, wd / scale, snr)
    assert (moved.mean, moved.std) == pytest.approx((scale * law.mean, scale * law.std), rel=1e-6, abs=1e-12)
    assert law.rms == pytest.approx(math.hypot(law.mean, law.std))


def test_mean_and_spread_are_equal_at_the_critical_snr():
    snr = adamw_signal_noise(1e-3, 0.01, 0.0).critical_snr
    law = adamw_signal_noise(1e-3, 0.01, snr)
    assert abs(law.mean) == pytest.approx(law.std, rel=1e-3)


def test_long_memory_limit_of_the_variance():
    # lr*wd << 1-beta2: the DC gain of xi - (s/2) y is 1/e on xi and -s/(2e) on xi^2 - 1, divided by sqrt(e)
    for s in (0.3, 1.0, 3.0):
        law, e = adamw_signal_noise(1e-7, 0.1, s, (0.0, 0.999)), 1 + s**2
        assert law.std**2 == pytest.approx(1e-7 / 0.2 * (1 + s**2 / 2) / e**3, rel=2e-3)


@pytest.mark.parametrize("wrong", [{"weight_decay": 0.0}, {"snr": math.inf}, {"betas": (0.9, 1.0)}])
def test_bad_input_gets_one_sentence(wrong):
    with pytest.raises(InputError, match="is not allowed: it must be"):
        adamw_signal_noise(**{"lr": 0.01, "weight_decay": 0.1, "snr": 0.1, **wrong})
