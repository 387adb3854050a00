"""Torch's optimizers on gradients that lean on the weights, or that a normalisation's eps holds back."""

from collections.abc import Callable

import numpy as np
import pytest
import torch


def _lean(
    build: Callable, lrs, *, d: int, rows: int, norm0: float, radial: float, scale_invariant: bool, second: float = 1.0
):
    torch.manual_seed(0)
    start = torch.randn(rows, d).double()
    w = torch.nn.Parameter(start / start.norm(dim=1, keepdim=True) * norm0)
    optimizer = build([w])
    squares, chords = [w.detach().square().sum(1)], []
    for lr in lrs:
        optimizer.param_groups[0]["lr"] = float(lr)
        old = w.detach().clone()
        size = old.norm(dim=1, keepdim=True)
        noise, along = torch.randn(rows, d).double(), old / size
        if scale_invariant:  # noise orthogonal to w and of exact size
            noise = noise - (noise * along).sum(1, keepdim=True) * along
            noise = noise / noise.norm(dim=1, keepdim=True)
        else:
            noise = noise / d**0.5
        g = ((1 - radial**2) ** 0.5 * noise + radial * along) * second**0.5
        w.grad = g / size if scale_invariant else g
        optimizer.step()
        before, after = squares[-1], w.detach().square().sum(1)
        moved = (w.detach() - old).square().sum(1)
        chords.append((moved - (after.sqrt() - before.sqrt()) ** 2) / (after * before).sqrt())
        squares.append(after)
    squares, chords = torch.stack(squares).numpy(), torch.stack(chords).numpy()
    return np.sqrt(squares.mean(1)), chords.mean(1)


@pytest.fixture(scope="session")
def lean() -> Callable:
    """Norms (T+1,) and squared chords (T,), averaged over rows, under noise plus radial*||g|| w/||w||."""
    return _lean


@pytest.fixture(scope="session")
def rms_angle() -> Callable:
    """RMS rotation over bins of `bins` steps, from squared chords."""

    def average(chords, bins: int):
        return 2 * np.arcsin(np.sqrt(np.asarray(chords).reshape(-1, bins).mean(1)) / 2)

    return average
