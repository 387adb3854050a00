"""Training step by step in float64, so that a run and its twin can be laid side by side."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from theory.equivalence.run import TwinRun

EXACT = 1e-10  # what the equality must hold to: rounding (1e-16) times its growth over 200 steps, at most 1e5 here
EPS = 1e-30  # of the normalisations, nothing beside the variances (above 1e-4) it is added to: exactly scale-invariant


@dataclass(frozen=True)
class Run:
    """What a run went through: `losses` (T,), unit vectors and `norms` (T, tensors) after each step."""

    losses: np.ndarray
    units: list[list[np.ndarray]]
    norms: np.ndarray

    def assert_same(self, twin: "Run", ratio: np.ndarray) -> None:
        """Losses, directions and known norm ratios agree at every step, and the runs are worth comparing."""
        assert np.max(np.abs(self.losses - twin.losses)) < EXACT
        assert np.max(self.gap(twin)) < EXACT
        np.testing.assert_allclose(self.norms[:, :3] / twin.norms[:, :3], np.outer(ratio, [1, 1, 1]), rtol=1e-9)
        assert np.mean(self.losses[-20:]) < 0.5 * self.losses[0]  # it learns,
        assert ratio[-1] < 0.8  # and decay is no trifle

    def gap(self, other: "Run") -> np.ndarray:
        """Largest chord between the directions of a tensor in both runs after each step, shape (T,)."""
        pairs = zip(self.units, other.units, strict=True)
        return np.array([max(float(np.linalg.norm(u - v)) for u, v in zip(*pair, strict=True)) for pair in pairs])


class Lion(Optimizer):
    """Chen et al., arXiv 2302.06675, word for word: torch has none."""

    def __init__(
        self, params: Any, lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99), weight_decay: float = 0
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for w in group["params"]:
                m = self.state[w].setdefault("m", torch.zeros_like(w))
                update = torch.sign(beta1 * m + (1 - beta1) * w.grad)
                w.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=group["lr"])
                m.mul_(beta2).add_(w.grad, alpha=1 - beta2)


def _settings(plan: TwinRun | Mapping[str, Any], step: int) -> dict[str, Any]:
    """The optimizer's settings at a step: one value, or one per step, for each."""
    if isinstance(plan, TwinRun):
        plan = {name: value for name in ("lr", "betas", "eps") if (value := getattr(plan, name)) is not None}
    return {name: value if np.ndim(value) == 0 else _plain(value[step]) for name, value in plan.items()}


def _plain(value: Any) -> float | tuple[float, float]:
    return float(value) if np.ndim(value) == 0 else (float(value[0]), float(value[1]))


def _train(
    build: Callable[[list[Tensor]], Optimizer],
    start: Sequence[Tensor],
    loss: Callable[[list[Tensor], int], Tensor],
    steps: int,
    plan: TwinRun | Mapping[str, Any] | Callable[[Optimizer, int], None],
    buffer: float = 0.0,
) -> Run:
    """Train; `plan` says how the first parameter group is set before each step, `buffer` is SGD's per unit weight."""
    weights: list[Tensor] = [torch.nn.Parameter(w.clone()) for w in start]
    optimizer = build(weights)
    if buffer:
        for w in weights:
            optimizer.state[w]["momentum_buffer"] = buffer * w.detach()
    losses, units, norms = [], [], []
    for step in range(steps):
        if callable(plan):
            plan(optimizer, step)
        else:
            optimizer.param_groups[0].update(_settings(plan, step))
        optimizer.zero_grad()
        value = loss(weights, step)
        value.backward()
        optimizer.step()
        losses.append(value.item())
        norms.append([w.norm().item() for w in weights])
        units.append([w.detach().numpy() / size for w, size in zip(weights, norms[-1], strict=True)])
    return Run(np.array(losses), units, np.array(norms))


def _sphere(curvatures: Any) -> Callable[[list[Tensor], int], Tensor]:
    """loss_t(w) = w'diag(h_t)w/(2||w||^2), the scale-invariant problem of the vectors."""
    h = torch.tensor(np.asarray(curvatures), dtype=torch.float64)
    return lambda weights, step: (h[step] * weights[0].square()).sum() / (2 * weights[0].square().sum())


@pytest.fixture(scope="session")
def train() -> Callable[..., Run]:
    """Train tensors with an optimizer, setting its first parameter group by a twin, by lists or by a function."""
    return _train


@pytest.fixture(scope="session")
def sphere() -> Callable[[Any], Callable[[list[Tensor], int], Tensor]]:
    """Losses w'diag(h_t)w/(2||w||^2) from the curvatures h_t, shape (T, d)."""
    return _sphere


@pytest.fixture(scope="session")
def lion() -> type[Lion]:
    """Lion as published."""
    return Lion


@dataclass(frozen=True)
class Task:
    """Labels of a random teacher, learnt by three scale-invariant matrices and a head."""

    inputs: torch.Tensor
    labels: torch.Tensor
    batches: torch.Tensor
    start: tuple[torch.Tensor, ...]
    head: torch.Tensor

    def loss(self, weights, step):
        """Cross-entropy of a minibatch; the second matrix is invariant as a whole, the others row by row."""
        head = weights[3] if len(weights) == 4 else self.head
        x, y = self.inputs[self.batches[step]], self.labels[self.batches[step]]
        x = torch.tanh(F.batch_norm(x @ weights[0].T, None, None, training=True, eps=EPS))
        x = torch.tanh(F.layer_norm(x @ weights[1].T, weights[1].shape[:1], eps=EPS))
        x = torch.tanh(F.batch_norm(x @ weights[2].T, None, None, training=True, eps=EPS))
        return F.cross_entropy(x @ head.T, y)


@pytest.fixture(scope="module")
def task():
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs, first, second = normal(512, 16), normal(16, 16), normal(16, 4)
    return Task(
        inputs,
        (torch.tanh(inputs @ first / 4) @ second).argmax(1),
        torch.randint(512, (1_500, 32), generator=generator),
        (normal(24, 16) / 4, normal(24, 24) / 24**0.5, normal(24, 24) / 24**0.5),
        normal(4, 24) / 2,
    )


@pytest.fixture(scope="module")
def learn(train, task):
    """Train the network; the decayed run and its twin differ in nothing but optimizer and plan."""

    def run(build, steps, plan, *, buffer=0.0, start=task.start):
        return train(build, start, task.loss, steps, plan, buffer)

    return run
