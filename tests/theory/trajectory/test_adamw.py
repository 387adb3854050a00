"""AdamW's exact recursion against torch.optim.AdamW under schedules; covariance and monotonicity."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from theory import adamw_equilibrium, adamw_trajectory, rescaled_hyperparameters
from theory.errors import InputError
from theory.schedules import Cosine, Piecewise

STEPS = 800
SCHEDULES = {
    "cosine": Cosine(warmup=50, final=0.1).at(np.arange(STEPS), STEPS),
    "jumps": Piecewise(knots=((0, 0.5), (300, 1.0), (600, 0.1))).at(np.arange(STEPS), STEPS),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("scale_invariant", [True, False])
@pytest.mark.parametrize("betas", [(0.9, 0.95), (0.9, 0.999)])
@pytest.mark.parametrize("start", [0.3, 2.0])
def test_torch_takes_the_same_path(simulate, schedule, scale_invariant, betas, start):
    lrs, wd, d = 0.01 * SCHEDULES[schedule], 0.5, 2048
    norm0 = start * adamw_equilibrium(0.01, wd, betas, d).norm
    law = adamw_trajectory(lrs, wd, betas, norm0, d, scale_invariant=scale_invariant)
    sample = simulate(
        lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=wd, betas=betas, eps=1e-30),
        lrs,
        d=d,
        rows=4 if scale_invariant else 24,
        norm0=norm0,
        scale_invariant=scale_invariant,
    )
    norm, error = sample.norm()
    assert error.max() < 0.006  # else the sample says nothing
    # bars of theory.md 3.2: norm 1 %, angle 1 % over 50 steps; 4 standard errors, as 800 steps are looked at
    assert np.all(np.abs(law.norm / norm - 1) < 0.01 + 4 * error)
    angle, error = sample.angle(bins=50)
    predicted = np.sqrt((law.angle.reshape(-1, 50) ** 2).mean(axis=1))
    assert np.all(np.abs(predicted / angle - 1) < 0.01 + 4 * error)


def test_the_second_moments_lag_matters():
    """From a tenth of the equilibrium gradients fall as the norm grows, and beta2 = 0.999 remembers the large ones."""
    fast, slow = (adamw_trajectory([0.01] * 200, 0.0, (0.9, b2), 0.3, 1024).norm for b2 in (0.9, 0.999))
    assert np.all(slow[20:] < 0.95 * fast[20:])


@given(start=st.floats(0.2, 4), rho=st.floats(2e-3, 0.1), fixed=st.booleans())
def test_ends_at_the_equilibrium(start, rho, fixed):
    betas = (0.9, 0.95)
    law = adamw_equilibrium(0.01, rho / 0.01, betas, 64)
    steps = 400 + int(30 * law.relaxation_steps)
    run = adamw_trajectory(
        [0.01] * steps, rho / 0.01, betas, start * law.norm, 64, [steps - 1], scale_invariant=not fixed
    )
    assert run.norm[0] == pytest.approx(law.norm, rel=1e-6)
    assert run.angle[0] == pytest.approx(law.angle, rel=1e-5)


def test_small_displacements_relax_at_the_stated_rate():
    law = adamw_equilibrium(0.001, 1.0, (0.9, 0.95), 64)
    runs = [
        adamw_trajectory([0.001] * 3_000, 1.0, (0.9, 0.95), scale * law.norm, 64, scale_invariant=False).norm ** 2
        for scale in (1.0, 1.01)  # their difference is free of the first steps' transient
    ]
    displacement, later = runs[1] - runs[0], int(law.relaxation_steps)
    assert displacement[1_000] / displacement[1_000 + later] == pytest.approx(np.e, rel=0.01)


@given(lr=st.floats(1e-4, 0.1), rho=st.floats(0, 0.05), scale=st.floats(0.1, 10), beta2=st.sampled_from([0.95, 0.999]))
def test_scaled_weights_take_the_same_directions(lr, rho, scale, beta2):
    new = rescaled_hyperparameters("adamw", lr, rho / lr, 0.0, scale)
    shape = Cosine(warmup=5).at(np.arange(40), 40)
    first = adamw_trajectory(lr * shape, rho / lr, (0.9, beta2), 1.0, 64)
    second = adamw_trajectory(new.lr * shape, new.weight_decay, (0.9, beta2), scale, 64)
    assert second.norm == pytest.approx(scale * first.norm, rel=1e-9)
    assert second.angle == pytest.approx(first.angle, rel=1e-6)


@given(rho=st.floats(1e-4, 0.02), factor=st.floats(1.05, 3), start=st.floats(0.1, 1), fixed=st.booleans())
def test_decay_shrinks_and_rate_grows_the_norm(rho, factor, start, fixed):
    lr, wd, betas = 0.01, rho / 0.01, (0.9, 0.95)
    norm0 = start * adamw_equilibrium(lr, wd, betas, 64).norm
    norms = [
        adamw_trajectory([a] * 100, b, betas, norm0, 64, scale_invariant=not fixed).norm
        for a, b in ((lr, wd), (lr, factor * wd), (factor * lr, wd))
    ]
    assert np.all(norms[1] < norms[0])
    assert np.all(norms[2] > norms[0])


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.0)])
def test_short_runs_and_no_decay(count, betas):
    run = adamw_trajectory([0.1] * count, 0.0, betas, norm0=1.0, d=100, noise_kurtosis=1.0)
    assert run.norm[0] == pytest.approx(np.sqrt(2))  # the first update is a sign in every coordinate
    assert run.angle[0] == pytest.approx(np.pi / 4)
    assert np.all(np.isfinite(run.norm))
    still = adamw_trajectory([0.0] * count, 0.1, betas, norm0=1.0, d=100)
    assert np.all(still.norm == 1.0)
    assert np.all(still.angle == 0.0)


def test_from_zero():
    run = adamw_trajectory([0.1] * 3, 0.1, (0.9, 0.99), norm0=0.0, d=4, scale_invariant=False)
    assert run.norm[0] > 0
    assert run.angle[0] == 0  # from nowhere


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"weight_decay": 10.0}, ("lr * weight_decay = 1.0", "below 1")),
        ({"weight_decay": -1.0}, ("weight_decay = -1.0", ">= 0")),
        ({"betas": (0.9, 1.0)}, ("betas[1] = 1.0", "< 1")),
        ({"norm0": 0.0}, ("norm0 = 0", "positive")),
        ({"norm0": -1.0}, ("norm0 = -1.0", ">= 0")),
        ({"d": 0}, ("d = 0", ">= 1")),
        ({"d": 2.5}, ("d = 2.5", "whole")),
        ({"steps": [-1]}, ("steps = [-1]", "between 0 and 2")),
    ],
)
def test_bad_input(arguments, words):
    given = {"schedule": [0.1] * 3, "weight_decay": 0.1, "betas": (0.9, 0.99), "norm0": 1.0, "d": 4}
    with pytest.raises(InputError) as error:
        adamw_trajectory(**{**given, **arguments})
    assert all(word in str(error.value) for word in words), str(error.value)
