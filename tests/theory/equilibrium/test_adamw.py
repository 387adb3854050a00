"""AdamW's equilibrium: against torch.optim.AdamW under several kinds of noise, and in its limits."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from theory import adamw_equilibrium, normalized_momentum_equilibrium
from theory.equilibrium.adamw import second_moment_corrections
from theory.errors import InputError


def signs(shape):
    return torch.randint(0, 2, shape).double() * 2 - 1


def laplace(shape):
    return torch.distributions.Laplace(0.0, 0.5**0.5).sample(shape).double()


@pytest.mark.parametrize(
    ("betas", "scale_invariant", "kurtosis", "noise", "bar"),
    [
        # bars of theory.md 2.5; noise None is Gaussian
        ((0.9, 0.95), True, 3.0, None, 0.004),
        ((0.9, 0.999), True, 3.0, None, 0.004),
        ((0.9, 0.95), False, 3.0, None, 0.004),
        ((0.95, 0.99), False, 3.0, None, 0.004),
        ((0.0, 0.99), False, 3.0, None, 0.004),
        ((0.9, 0.95), False, 1.0, signs, 0.004),
        ((0.9, 0.99), False, 6.0, laplace, 0.004),
        ((0.9, 0.95), False, 6.0, laplace, 0.01),
    ],
)
def test_torch_settles_there(simulate, betas, scale_invariant, kurtosis, noise, bar):
    lr, wd, d = 0.02, 1.0, 1024
    law = adamw_equilibrium(lr, wd, betas, d, kurtosis)
    # started at the law's norm: the first steps' larger updates are forgotten with the second moment
    skipped = 250 + int(4 / (1 - betas[1]))
    sample = simulate(
        lambda p: torch.optim.AdamW(p, lr=lr, weight_decay=wd, betas=betas, eps=1e-30),
        [lr] * (skipped + 2_500),
        d=d,
        rows=8,
        norm0=law.norm,
        scale_invariant=scale_invariant,
        **({"noise": noise} if noise else {}),
    )
    late = slice(skipped, None)
    for (measured, error), predicted in zip(
        (sample.norm(late, 2_500), sample.angle(late, 2_500)), (law.norm, law.angle), strict=True
    ):
        assert error[0] < bar / 2
        assert abs(predicted / measured[0] - 1) < bar + 3 * error[0]


@pytest.mark.parametrize("betas", [(0.9, 0.95), (0.9, 0.999), (0.0, 0.99)])
def test_leading_order(betas):
    """rms^2 = S lr/2wd, angle^2 = 2 lr wd (1-beta1)/(1+beta1) U/S as lr*wd -> 0: the gap is linear in lr*wd."""
    one_step, long_run = second_moment_corrections(betas)
    gaps = []
    for wd in (1e-2, 1e-3):
        law = adamw_equilibrium(1e-2, wd, betas, 10)
        square = 2 * 1e-2 * wd * (1 - betas[0]) / (1 + betas[0]) * one_step / long_run
        gaps.append((law.rms**2 / (long_run * 1e-2 / (2 * wd)) - 1, law.angle**2 / square - 1))
    for coarse, fine in zip(*gaps, strict=True):
        assert abs(fine) < 2e-5 / (1 - betas[0])
        assert coarse / fine == pytest.approx(10, rel=0.01)


@given(st.floats(0, 0.99), st.floats(0, 0.9999))
def test_constant_size_gradients_need_no_correction(beta1, beta2):
    assert second_moment_corrections((beta1, beta2), 1.0) == (1.0, 1.0)


@given(st.floats(0.6, 0.9999), st.floats(1, 3))
def test_without_momentum_updates_are_white(beta2, kurtosis):
    """With beta1 = 0 the update's sign is the gradient's, fresh every step: one-step and long-run variance agree."""
    one_step, long_run = second_moment_corrections((0.0, beta2), kurtosis)
    assert one_step == pytest.approx(long_run, rel=1e-12)


@given(st.floats(0, 0.99), st.floats(0, 1), st.floats(1, 3))
def test_corrections_vanish_with_the_second_moments_noise(beta1, distance, kurtosis):
    """Both corrections are first order in (kurtosis-1)(1-beta2), with coefficients of order one."""
    beta2 = 1 - 1e-4 * distance
    assert second_moment_corrections((beta1, beta2), kurtosis) == pytest.approx((1, 1), abs=2e-4 * distance + 1e-12)


def test_skeleton_is_normalized_momentum():
    """Under constant-size gradients AdamW is an average of white noise: the norm of 2.4 times sqrt(d(1-b)/(1+b))."""
    law, skeleton = adamw_equilibrium(0.01, 0.5, (0.9, 0.99), 64, 1.0), normalized_momentum_equilibrium(0.01, 0.5, 0.9)
    assert law.norm == pytest.approx(skeleton.norm * math.sqrt(64 * 0.1 / 1.9), rel=1e-12)
    assert law.angle == pytest.approx(skeleton.angle, rel=1e-12)
    assert law.rms == pytest.approx(law.norm / 8)
    assert law.effective_lr == pytest.approx(0.01 / law.rms)
    assert law.relaxation_steps == pytest.approx(100)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0.1, 10.0), ("lr * weight_decay = 1.0", "(0, 1)")),
        ((0.1, 0.0), ("lr * weight_decay = 0.0", "(0, 1)")),
        ((-0.1, 0.1), ("lr = -0.1", ">= 0")),
        ((0.1, 0.1, (0.9, 1.0)), ("betas[1] = 1.0", "< 1")),
        ((0.1, 0.1, (1.0, 0.9)), ("betas[0] = 1.0", "< 1")),
        ((0.1, 0.1, (0.9, 0.99), 0), ("d = 0", ">= 1")),
        ((0.1, 0.1, (0.9, 0.99), 4, 0.5), ("noise_kurtosis = 0.5", ">= 1")),
        ((0.1, 0.1, (0.0, 0.5), 4, 10.0), ("noise_kurtosis = 10.0", "smaller")),
    ],
)
def test_bad_input(arguments, words):
    with pytest.raises(InputError) as error:
        adamw_equilibrium(*arguments)
    assert all(word in str(error.value) for word in words), str(error.value)
