"""A small real network, scale-invariant in three matrices, trained in float64: the ground of the exact laws."""

# pyright: reportPrivateImportUsage=false
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn import functional as F
from torch.optim import Optimizer

from paper.laws.demonstration import Array

EPS = 1e-30
"""Of the normalisations: nothing beside the variances that it is added to."""


@dataclass(frozen=True)
class Task:
    """Labels of a random teacher, learnt through two batch normalisations and a layer normalisation."""

    inputs: Tensor
    labels: Tensor
    batches: Tensor
    start: tuple[Tensor, ...]
    head: Tensor

    def loss(self, weights: Sequence[Tensor], step: int, eps: float = EPS) -> Tensor:
        """Cross-entropy of a minibatch; the head is fixed.

        Args:
            weights: The three matrices.
            step: Which minibatch.
            eps: Of the normalisations.

        Returns:
            The loss, a scalar.
        """
        x, y = self.inputs[self.batches[step]], self.labels[self.batches[step]]
        x = torch.tanh(F.batch_norm(x @ weights[0].T, None, None, training=True, eps=eps))
        x = torch.tanh(F.layer_norm(x @ weights[1].T, weights[1].shape[:1], eps=eps))
        x = torch.tanh(F.batch_norm(x @ weights[2].T, None, None, training=True, eps=eps))
        return F.cross_entropy(x @ self.head.T, y)


def task(seed: int) -> Task:
    """Make the task.

    Args:
        seed: Of data and initial weights.

    Returns:
        The task, with 1,000 minibatches of 32.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs, first, second = normal(512, 16), normal(16, 16), normal(16, 4)
    labels = (torch.tanh(inputs @ first / 4) @ second).argmax(1)
    batches = torch.randint(512, (1_000, 32), generator=generator)
    start = (normal(24, 16) / 4, normal(24, 24) / 24**0.5, normal(24, 24) / 24**0.5)
    return Task(inputs, labels, batches, start, normal(4, 24) / 2)


@dataclass(frozen=True)
class Run:
    """What a run went through, at every step."""

    losses: Array
    """Loss before each step, shape (T,)."""
    norms: Array
    """Norms before the first and after each step, shape (T+1, 3)."""
    gradients: Array
    """Gradient norms of each step, shape (T, 3)."""
    units: list[list[Array]]
    """Unit vectors before the first and after each step."""

    def chords(self) -> Array:
        """Distance between the unit vectors before and after each step, shape (T, 3)."""
        pairs = zip(self.units[:-1], self.units[1:], strict=True)
        return np.array([[np.linalg.norm(b - a) for a, b in zip(old, new, strict=True)] for old, new in pairs])

    def gap(self, other: Run) -> Array:
        """Largest distance between a matrix's unit vectors in both runs after each step, shape (T,)."""
        pairs = zip(self.units[1:], other.units[1:], strict=True)
        return np.array([max(float(np.linalg.norm(a - b)) for a, b in zip(*pair, strict=True)) for pair in pairs])


def train(
    problem: Task,
    build: Callable[[list[Parameter]], Optimizer],
    steps: int,
    plan: Callable[[int], Mapping[str, Any]] = lambda step: {},
    *,
    scale: float = 1.0,
    buffer: float = 0.0,
) -> Run:
    """Train the network.

    Args:
        problem: The task.
        build: Makes the optimizer from the three matrices.
        steps: Number of steps.
        plan: What to set in the optimizer's group before each step.
        scale: Factor on the initial weights.
        buffer: Momentum buffer before the first step, as a multiple of the initial weights.

    Returns:
        The run.
    """
    weights = [Parameter(scale * w) for w in problem.start]
    optimizer = build(weights)
    if buffer:
        for w in weights:
            optimizer.state[w]["momentum_buffer"] = buffer * w.detach()
    losses, norms, gradients, units = [], [], [], []

    def look() -> None:
        norms.append([w.detach().norm().item() for w in weights])
        units.append([w.detach().numpy() / size for w, size in zip(weights, norms[-1], strict=True)])

    look()
    for step in range(steps):
        optimizer.param_groups[0].update(plan(step))
        optimizer.zero_grad()
        value = problem.loss(weights, step)
        value.backward()
        gradients.append([w.grad.norm().item() for w in weights if w.grad is not None])
        optimizer.step()
        losses.append(value.item())
        look()
    return Run(np.array(losses), np.array(norms), np.array(gradients), units)
