"""Torch's own optimizers driven by synthetic gradients: the independent oracle of the laws."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)
# the same examples in every run, so that a failure here is a failure anywhere
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=50)
settings.load_profile("repeatable")


@dataclass(frozen=True)
class Sample:
    """Squared norms (T+1, rows) and squared chords 2(1 - cos) of each step (T, rows); rows are independent tensors."""

    squares: np.ndarray
    chords: np.ndarray

    def norm(self, steps: slice = slice(None), bins: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Root mean squared norm after each `bins` steps taken together, and its relative standard error over rows."""
        return _root(self.squares[1:][steps], bins)

    def angle(self, steps: slice = slice(None), bins: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """RMS rotation (2 asin of half the RMS chord) of each `bins` steps, and its relative standard error."""
        chord, error = _root(self.chords[steps], bins)
        return 2 * np.arcsin(chord / 2), error


def _root(values: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    means = values.reshape(-1, bins, values.shape[1]).mean(axis=1)
    rows = means.shape[1]
    spread = means.std(axis=1, ddof=1) / np.sqrt(rows)
    mean = means.mean(axis=1)
    return np.sqrt(mean), spread / (2 * mean)


def _gradient(w: torch.Tensor, second_moment: float, scale_invariant: bool, noise: Callable) -> torch.Tensor:
    g = noise(w.shape) * (second_moment / w.shape[1]) ** 0.5
    if scale_invariant:
        size = w.norm(dim=1, keepdim=True)
        g = g - (g * w).sum(1, keepdim=True) / size**2 * w
        g = g / g.norm(dim=1, keepdim=True) * second_moment**0.5 / size
    return g


def _gaussian(shape: torch.Size) -> torch.Tensor:
    return torch.randn(shape).double()


def _simulate(
    build: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer],
    lrs: Iterable[float],
    *,
    d: int,
    rows: int,
    norm0: float,
    scale_invariant: bool,
    second_moment: float = 1.0,
    scales: Sequence[float] | np.ndarray | None = None,
    noise: Callable[[torch.Size], torch.Tensor] = _gaussian,
    seed: int = 0,
) -> Sample:
    torch.manual_seed(seed)
    start = _gaussian(torch.Size((rows, d)))
    w = torch.nn.Parameter(start / start.norm(dim=1, keepdim=True) * norm0)
    optimizer = build([w])
    size = None if scales is None else torch.as_tensor(scales, dtype=torch.float64)
    squares, chords = [w.detach().square().sum(1)], []
    for lr in lrs:
        optimizer.param_groups[0]["lr"] = float(lr)
        old = w.detach().clone()
        if size is None:
            w.grad = _gradient(old, second_moment, scale_invariant, noise)
        else:  # scale-invariant only on average: gradients differ in size from coordinate to coordinate
            w.grad = noise(old.shape) * size / old.norm(dim=1, keepdim=True)
        optimizer.step()
        before, after = squares[-1], w.detach().square().sum(1)
        moved = (w.detach() - old).square().sum(1)
        chords.append((moved - (after.sqrt() - before.sqrt()) ** 2) / (after * before).sqrt())
        squares.append(after)
    return Sample(torch.stack(squares).numpy(), torch.stack(chords).numpy())


@pytest.fixture(scope="session")
def simulate() -> Callable[..., Sample]:
    """Run a torch optimizer on white gradients; rows are independent tensors of d coordinates.

    Scale-invariant gradients are orthogonal to w and of the exact size sqrt(second_moment)/||w||; the others are
    Gaussian (or `noise`) with E||g||^2 = second_moment whatever w is.
    """
    return _simulate
