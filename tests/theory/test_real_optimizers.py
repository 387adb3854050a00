"""Laws against torch's own optimizers on synthetic gradients; bounds: the laws' accuracy plus four sampling errors."""

import numpy as np
import pytest
import torch

from theory import adamw_equilibrium, adamw_trajectory, sgd_equilibrium, sgd_trajectory
from theory.schedules import Cosine, Piecewise


def simulate(build, lrs, *, d, rows, norm0, scale_invariant, c2=1.0, seed=0):
    """Drive a torch optimizer with white gradients; returns RMS norms after and RMS angles during every step."""
    torch.manual_seed(seed)
    w = torch.nn.Parameter(torch.randn(rows, d, dtype=torch.float64))
    w.data *= norm0 / w.data.norm(dim=1, keepdim=True)
    optimizer = build([w])
    norms, angles = [], []
    for lr in lrs:
        optimizer.param_groups[0]["lr"] = float(lr)
        old = w.detach().clone()
        g = torch.randn_like(old) * (c2 / d) ** 0.5
        if scale_invariant:
            size = old.norm(dim=1, keepdim=True)
            g = (g - (g * old).sum(1, keepdim=True) / size**2 * old) / size
        w.grad = g
        optimizer.step()
        new = w.detach()
        r, s = old.norm(dim=1), new.norm(dim=1)
        chord2 = ((new - old).norm(dim=1) ** 2 - (s - r) ** 2) / (r * s)
        angles.append((2 * torch.asin(chord2.clamp(min=0).sqrt() / 2)).square().mean().sqrt().item())
        norms.append(s.square().mean().sqrt().item())
    return np.array(norms), np.array(angles)


@pytest.mark.parametrize(
    ("momentum", "dampening", "nesterov"), [(0.0, 0.0, False), (0.9, 0.0, False), (0.9, 0.5, False), (0.9, 0.0, True)]
)
def test_sgd_equilibrium(momentum, dampening, nesterov):
    lr, wd = 0.1, 0.02
    kinds = {"momentum": momentum, "dampening": dampening, "nesterov": nesterov}
    law = sgd_equilibrium(lr, wd, **kinds, c2=1.0)
    steps = int(12 * law.relaxation_steps) + 600
    norms, angles = simulate(
        lambda p: torch.optim.SGD(p, lr=lr, weight_decay=wd, **kinds),
        [lr] * steps,
        d=1024,
        rows=4,
        norm0=law.norm,
        scale_invariant=True,
    )
    late = slice(steps - 500, None)
    # 0.4 % is the law's bar; with d = 1024 and 500 steps x 4 rows the sampling error is about 0.1 %
    assert np.sqrt(np.mean(norms[late] ** 2)) == pytest.approx(law.norm, rel=0.008)
    assert np.sqrt(np.mean(angles[late] ** 2)) == pytest.approx(law.angle, rel=0.008)


@pytest.mark.parametrize("betas", [(0.9, 0.95), (0.9, 0.999), (0.0, 0.98)])
def test_adamw_equilibrium(betas):
    lr, wd, d = 0.02, 0.25, 512
    law = adamw_equilibrium(lr, wd, betas, d)
    norms, angles = simulate(
        lambda p: torch.optim.AdamW(p, lr=lr, weight_decay=wd, betas=betas, eps=1e-30),
        [lr] * 4_000,
        d=d,
        rows=4,
        norm0=law.norm,
        scale_invariant=False,
    )
    late = slice(2_000, None)
    # bar 0.4 %; norm: 2000 steps = 20 relaxation times, 2048 coordinates: sampling error 0.4 % at most
    assert np.sqrt(np.mean(norms[late] ** 2)) == pytest.approx(law.norm, rel=0.02)
    assert np.sqrt(np.mean(angles[late] ** 2)) == pytest.approx(law.angle, rel=0.01)


SCHEDULES = {
    "cosine": Cosine(warmup=50, final=0.1).at(np.arange(800), 800),
    "drop": Piecewise(knots=((0, 1.0), (400, 0.1))).at(np.arange(800), 800),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("momentum", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
def test_sgd_trajectory(schedule, momentum, nesterov):
    lrs = 0.1 * SCHEDULES[schedule]
    norms, angles = simulate(
        lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.02, momentum=momentum, nesterov=nesterov),
        lrs,
        d=1024,
        rows=8,
        norm0=3.0,
        scale_invariant=True,
    )
    law = sgd_trajectory(lrs, 0.02, momentum, nesterov, norm0=3.0, c2=1.0)
    assert norms == pytest.approx(law.norm, rel=0.01)  # bar 1 %
    windows = lambda values: np.sqrt((values.reshape(-1, 20) ** 2).mean(axis=1))
    assert windows(angles) == pytest.approx(windows(law.angle), rel=0.02)  # bar 2 % over 20 steps


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("scale_invariant", [True, False])
@pytest.mark.parametrize("betas", [(0.9, 0.95), (0.9, 0.999)])
def test_adamw_trajectory(schedule, scale_invariant, betas):
    lrs, d = 0.01 * SCHEDULES[schedule], 1024
    norms, angles = simulate(
        lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.2, betas=betas, eps=1e-30),
        lrs,
        d=d,
        rows=8,
        norm0=2.0,
        scale_invariant=scale_invariant,
    )
    law = adamw_trajectory(lrs, 0.2, betas, 2.0, d, scale_invariant=scale_invariant)
    assert norms == pytest.approx(law.norm, rel=0.015)  # bar 1 %, sampling 0.5 % (norm of 8 x 1024 coordinates)
    windows = lambda values: np.sqrt((values[100:].reshape(-1, 50) ** 2).mean(axis=1))
    assert windows(angles) == pytest.approx(windows(law.angle), rel=0.02)  # bar 1 % over 50 steps, sampling 0.5 %
