"""Does decay survive bfloat16? Asked of torch's own kernels and optimizers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from theory import bf16_scale_survival, coupled_l2_survival, rounding_drift_gain
from theory.errors import InputError
from theory.precision.bf16 import normal_sizes

THRESHOLD = 1 - 2**-9


def _binade(dtype: torch.dtype = torch.bfloat16, bits: int = 8) -> torch.Tensor:
    return (1 + torch.arange(2 ** (bits - 1), dtype=torch.float64) / 2 ** (bits - 1)).to(dtype)


@given(st.floats(0.0, 1.0, exclude_min=True, exclude_max=True) | st.floats(0.99, THRESHOLD + 1e-4))
def test_survival_is_what_mul_does_to_every_mantissa(factor):
    before = _binade()
    after = before.clone().mul_(factor)
    law = bf16_scale_survival(factor)
    assert law.fraction_changed == (after != before).double().mean().item()
    change = (1 - after.double() / before.double()).mean().item()
    assert law.mean_relative_change == pytest.approx(change / (1 - factor), rel=1e-9)


def test_the_threshold_holds_for_every_normal_number_of_either_sign():
    """All 65,280 finite patterns but subnormals: none moves at 1 - 2^-9, some do at the next float32 below."""
    values = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    values = values[values.isfinite() & (values.abs() >= torch.finfo(torch.bfloat16).tiny)]
    assert torch.equal(values.clone().mul_(THRESHOLD), values)
    below = float(np.nextafter(np.float32(THRESHOLD), np.float32(0)))
    assert not torch.equal(values.clone().mul_(below), values)
    assert bf16_scale_survival(THRESHOLD).fraction_changed == 0
    assert bf16_scale_survival(below).fraction_changed > 0


def test_the_threshold_of_other_formats():
    """2^-(p+1) with p significant bits: 2^-12 for float16."""
    values = _binade(torch.float16, 11)
    assert torch.equal(values.clone().mul_(1 - 2**-12), values)
    assert not torch.equal(values.clone().mul_(1 - 2**-12 - 2**-24), values)


def _train(decay, lr, steps=20, **kernel):
    torch.manual_seed(0)
    w = torch.nn.Parameter(torch.randn(4096).bfloat16())
    optimizer = torch.optim.AdamW([w], lr=lr, weight_decay=decay, **kernel)
    for _ in range(steps):
        w.grad = torch.randn(4096).bfloat16()
        optimizer.step()
    return w.detach()


@pytest.mark.parametrize("foreach", [True, False])
def test_torch_adamw_ignores_decay_below_the_threshold_and_only_there(foreach):
    assert torch.equal(_train(0.1, 6e-4, foreach=foreach), _train(0.0, 6e-4, foreach=foreach))
    assert torch.equal(_train(1.0, 2**-9, foreach=foreach), _train(0.0, 2**-9, foreach=foreach))
    assert not torch.equal(_train(1.3, 2**-9, foreach=foreach), _train(0.0, 2**-9, foreach=foreach))


def test_fused_kernels_round_once_and_keep_the_decay_that_steps_dither():
    """Two weights of 1.5 that step by +-lr and decay by 0.02 ulp; over lr/ulp at 2,000 quantiles of N(0, 0.4)."""
    ulp, size = 2.0**-7, 0.4
    shrink = 0.02 * ulp / 1.5
    lost = {True: 0.0, False: 0.0}
    for lr in (size * ulp * normal_sizes(2_000)).tolist():
        for fused in lost:
            w = torch.nn.Parameter(torch.tensor([1.5, 1.5]).bfloat16())
            w.grad = torch.tensor([1.0, -1.0]).bfloat16()  # Adam's first step has the size lr whatever the gradient
            torch.optim.AdamW([w], lr=lr, weight_decay=shrink / lr, fused=fused, foreach=False).step()
            lost[fused] += (1.5 - w.detach().double().mean().item()) / 2_000
    assert lost[False] == 0
    # a weight moves on for each quantile within 0.02 of half an ulp: 37 of them, counted to about one
    assert lost[True] / (1.5 * shrink) == pytest.approx(rounding_drift_gain(size).gain, rel=0.03)


def test_second_moments_above_the_threshold_never_forget():
    v = _binade()
    for beta2, forgets in ((0.999, False), (THRESHOLD, False), (0.99, True)):
        assert torch.equal(v.clone().mul_(beta2), v) is not forgets
        assert (bf16_scale_survival(beta2).fraction_changed > 0) is forgets


@given(st.floats(1e-6, 0.999999))
def test_survival_is_a_share_and_large_steps_survive_whole(factor):
    law = bf16_scale_survival(factor)
    assert 0 <= law.fraction_changed <= 1
    assert law.mean_relative_change >= 0
    if factor < 0.99:
        assert law.mean_relative_change == pytest.approx(1, rel=2**-9 / (1 - factor))  # half an ulp of 1 at most


def test_quoted_numbers():
    """Theory.md 9.1 and 9.7, to the digits given there."""
    assert bf16_scale_survival(1 - 2**-8).mean_relative_change == pytest.approx(1.38, abs=0.005)
    assert bf16_scale_survival(0.99).mean_relative_change == pytest.approx(0.98, abs=0.005)
    assert bf16_scale_survival(1e-300).fraction_changed == 1
    shares = [coupled_l2_survival(2.0**k).fraction for k in (-5, -9, -11, -13)]
    assert shares == pytest.approx([1.0, 0.795, 0.28, 0.07], abs=0.006)


@pytest.mark.parametrize("power", [-5, -8, -9, -11, -13])
def test_coupled_decay_added_by_torch(power):
    """Regression of g.add(w, alpha=wd) - g on wd*w over 4e6 pairs; bar 3 %, theory.md 9.7, and 4 standard errors."""
    torch.manual_seed(0)
    decay = 2.0**power
    g, w = torch.randn(4_000_000).bfloat16(), torch.randn(4_000_000).bfloat16()
    moved = g.add(w, alpha=decay).double() - g.double()
    term = decay * w.double()
    products = moved * term
    share = products.mean().item() / term.square().mean().item()
    error = products.std().item() / math.sqrt(4_000_000) / term.square().mean().item()
    assert abs(coupled_l2_survival(decay).fraction - share) < 0.03 * share + 4 * error


def test_the_coefficient_itself_is_rounded_on_a_cpu():
    """So weight_decay = 0.1 acts as 0.10010 where it is coupled: within 2^-9, far inside the law's bar."""
    torch.manual_seed(0)
    g, w = torch.randn(4096).bfloat16(), torch.randn(4096).bfloat16()
    assert torch.equal(g.add(w, alpha=0.1), g.add(w, alpha=float(torch.tensor(0.1).bfloat16())))


@given(st.floats(0, 10), st.floats(0, 10))
def test_more_of_a_larger_term_survives(one, other):
    low, high = sorted((one, other))
    assert 0 <= coupled_l2_survival(low).fraction <= coupled_l2_survival(high).fraction + 1e-12 <= 1 + 2e-12


def test_coupled_extremes():
    assert coupled_l2_survival(0.0).fraction == 0
    assert coupled_l2_survival(1e300).fraction == pytest.approx(1, abs=1e-12)
    # a gradient of one size g: the average would be the gain at ratio/ulp(g), which lies between those of the extremes
    assert rounding_drift_gain(2**-9 / 2**-7).gain < coupled_l2_survival(2**-9).fraction < 1


@pytest.mark.parametrize("factor", [0.0, 1.0, 1.5, -0.5, math.nan, "0.9", None])
def test_bad_factors_get_one_sentence(factor):
    with pytest.raises(InputError, match="is not allowed: it must be"):
        bf16_scale_survival(factor)


@pytest.mark.parametrize("ratio", [-0.1, math.inf, math.nan, "0.9", None])
def test_bad_ratios_get_one_sentence(ratio):
    with pytest.raises(InputError, match="is not allowed: it must be"):
        coupled_l2_survival(ratio)
