"""torch's own optimizers on random gradients: the model that most laws speak of, simulated literally."""

# pyright: reportPrivateImportUsage=false
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from paper.laws.demonstration import Array, root_mean_error

Build = Callable[[list[Parameter]], Optimizer]
Noise = Callable[[tuple[int, ...], torch.Generator], Tensor]


@dataclass(frozen=True)
class Model:
    """Random gradients on independent tensors."""

    d: int
    """Coordinates of each tensor."""
    rows: int = 8
    """Number of independent tensors."""
    scale_invariant: bool = False
    """Gradients orthogonal to the weights and of size sqrt(second_moment)/||w||; else independent of the weights."""
    second_moment: float = 1.0
    """E||g||^2, on the unit sphere if scale-invariant."""
    apart: bool = False
    """Whether the optimizer must see each tensor as a parameter of its own."""


def gaussian(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Standard normal numbers, drawn in float32 for speed, as float64."""
    return torch.randn(shape, generator=generator).double()


def gradient(w: Tensor, model: Model, generator: torch.Generator, noise: Noise = gaussian) -> Tensor:
    """One random gradient for each row of w.

    Args:
        w: Weights, shape (rows, d).
        model: What the gradients are like.
        generator: Source of randomness.
        noise: Draws entries of unit variance.

    Returns:
        Gradients, shape (rows, d).
    """
    g = noise(tuple(w.shape), generator).mul_((model.second_moment / model.d) ** 0.5)
    if model.scale_invariant:
        square = w.square().sum(1, keepdim=True)
        g -= (g * w).sum(1, keepdim=True) / square * w
        g *= (model.second_moment / square).sqrt() / g.norm(dim=1, keepdim=True)
    return g


def start(model: Model, norm: float, generator: torch.Generator) -> list[Parameter]:
    """Random weights of the given norm: one matrix whose rows are the tensors, or one parameter a row.

    Args:
        model: Their number and size.
        norm: ||w|| of each.
        generator: Source of randomness.

    Returns:
        The parameters.
    """
    w = gaussian((model.rows, model.d), generator)
    w *= norm / w.norm(dim=1, keepdim=True)
    return [Parameter(row.clone()[None]) for row in w] if model.apart else [Parameter(w)]


def squared_chord(old: Tensor, new: Tensor) -> Tensor:
    """2(1 - cos) between the rows of two matrices, without cancellation, shape (rows,)."""
    before, after = old.norm(dim=1), new.norm(dim=1)
    return ((new - old).square().sum(1) - (after - before) ** 2) / (after * before)


def walk(
    build: Build,
    lrs: Iterable[float],
    model: Model,
    norm0: float,
    seed: int,
    *,
    weight_decays: Sequence[float] | None = None,
    noise: Noise = gaussian,
    every: int = 1,
) -> tuple[Array, Array]:
    """Drive an optimizer with random gradients.

    Args:
        build: Makes the optimizer from its parameters.
        lrs: Learning rate of each step.
        model: What the gradients are like.
        norm0: ||w|| at the start.
        seed: Of the random numbers.
        weight_decays: torch's coefficient of each step; the optimizer's own if None.
        noise: Draws entries of unit variance.
        every: Measure every so many steps.

    Returns:
        Squared norms after, and squared chords of, the measured steps, each of shape (measured steps, rows).
    """
    generator = torch.Generator().manual_seed(seed)
    parameters = start(model, norm0, generator)
    optimizer = build(parameters)
    squares, chords = [], []
    for t, lr in enumerate(lrs):
        for group in optimizer.param_groups:
            group["lr"] = float(lr)
            if weight_decays is not None:
                group["weight_decay"] = float(weight_decays[t])
        old = torch.cat([p.detach() for p in parameters]) if model.apart else parameters[0].detach()
        g = gradient(old, model, generator, noise)
        watched = t % every == every - 1
        if watched and not model.apart:
            old = old.clone()
        for p, part in zip(parameters, g.split(1) if model.apart else [g], strict=True):
            p.grad = part
        optimizer.step()
        if watched:
            new = torch.cat([p.detach() for p in parameters]) if model.apart else parameters[0].detach()
            squares.append(new.square().sum(1))
            chords.append(squared_chord(old, new))
    return torch.stack(squares).numpy(), torch.stack(chords).numpy()


@dataclass(frozen=True)
class Settled:
    """Norm and rotation of an optimizer that has settled, with their standard errors over tensors."""

    norm: float
    norm_error: float
    angle: float
    angle_error: float


def settle(
    build: Build,
    lr: float,
    model: Model,
    norm0: float,
    seed: int,
    *,
    skipped: int,
    steps: int,
    noise: Noise = gaussian,
    every: int = 2,
) -> Settled:
    """Let an optimizer settle at constant settings, then average.

    Args:
        build: Makes the optimizer from its parameters.
        lr: Learning rate.
        model: What the gradients are like.
        norm0: ||w|| at the start.
        seed: Of the random numbers.
        skipped: Steps before averaging.
        steps: Steps averaged over.
        noise: Draws entries of unit variance.
        every: Measure every so many steps.

    Returns:
        Norm and angle (rad/step).
    """
    squares, chords = walk(build, [lr] * (skipped + steps), model, norm0, seed, noise=noise, every=every)
    return settled(squares[skipped // every :].mean(0), chords[skipped // every :].mean(0))


def settled(squares: Array, chords: Array) -> Settled:
    """Norm and angle from time averages of independent tensors.

    Args:
        squares: Mean squared norms, shape (rows,).
        chords: Mean squared chords, shape (rows,).

    Returns:
        Norm and angle (rad/step).
    """
    norm, norm_error = root_mean_error(squares)
    chord, chord_error = root_mean_error(chords)
    angle = 2 * np.arcsin(chord / 2)
    return Settled(float(norm), float(norm_error), float(angle), float(chord_error / np.cos(angle / 2)))
