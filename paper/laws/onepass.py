"""One pass over fresh data: least squares by Monte Carlo."""

# pyright: reportPrivateImportUsage=false
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch.nn import Parameter

import theory
from paper.laws.demonstration import Array, Demonstration, columns, mean_error, pair

H = np.array([1.0, 0.5, 0.25, 0.12, 0.06, 0.03])
TARGET = np.array([1.0, -1.0, 0.5, 1.0, -0.5, 1.0])


def _descend(
    eigenvalues: Array,
    lrs: Array,
    decay: float,
    target: Array,
    noise: float,
    batch: int,
    runs: int,
    at: list[int],
    seed: int,
) -> tuple[Array, Array]:
    """Excess risk of the last and of the averaged iterate after the listed steps, each (len(at), runs)."""
    generator, h = torch.Generator().manual_seed(seed), torch.as_tensor(eigenvalues).float()
    goal = torch.as_tensor(target).float()
    w, total = Parameter(torch.zeros(runs, len(h))), torch.zeros((runs, len(h)))
    optimizer, last, averaged = torch.optim.SGD([w], 0.1, weight_decay=decay), [], []
    for t, lr in enumerate(lrs):
        x = torch.randn((runs, batch, len(h)), generator=generator) * h.sqrt()
        label = (x * goal).sum(2) + noise * torch.randn((runs, batch), generator=generator)
        residual = (x * w.detach()[:, None]).sum(2) - label
        w.grad = (residual[:, :, None] * x).mean(1)
        optimizer.param_groups[0]["lr"] = float(lr)
        optimizer.step()
        total = total + w.detach()
        if t in at:
            last.append(((w.detach() - goal).square() * h).sum(1).double().numpy() / 2)
            averaged.append(((total / (t + 1) - goal).square() * h).sum(1).double().numpy() / 2)
    return np.array(last), np.array(averaged)


RATES = 0.4 * np.minimum(1.0, 2.0 * (1 - np.arange(120) / 120))
AT = [3, 6, 11, 19, 39, 59, 79, 99, 119]


def least_squares_trajectory(seed: int) -> Demonstration:
    """Last and averaged iterates of torch.optim.SGD with decay."""
    runs = _descend(H, RATES, 0.02, TARGET, 0.7, 2, 80_000, AT, seed)
    law = theory.least_squares_trajectory(H, RATES, 0.02, TARGET, 0.49, 2, AT)
    pairs = []
    for name, samples, predicted in (
        ("last iterate", runs[0], law.excess),
        ("average of iterates", runs[1], law.excess_average),
    ):
        pairs.append(pair(name, "excess risk", predicted, *mean_error(samples), bar=0.015))
    return Demonstration(
        "least_squares_trajectory",
        "torch.optim.SGD, wd 0.02, batch 2, lr 0.4 and then linearly to 0, on fresh Gaussian data with six "
        "eigenvalues; 80,000 runs.",
        "step",
        np.array(AT) + 1.0,
        tuple(pairs),
        log_x=True,
        log_y=True,
    )


def bias_variance(seed: int) -> Demonstration:
    """The same, without label noise, and with nothing to learn."""
    law = theory.bias_variance(H, RATES, 0.02, TARGET, 0.49, 2, AT)
    bias = _descend(H, RATES, 0.02, TARGET, 0.0, 2, 80_000, AT, seed)
    variance = _descend(H, RATES, 0.02, 0 * TARGET, 0.7, 2, 80_000, AT, seed)
    pairs = []
    for name, samples, predicted in (
        ("bias, last iterate", bias[0], law.bias),
        ("variance, last iterate", variance[0], law.variance),
        ("bias, average", bias[1], law.bias_average),
        ("variance, average", variance[1], law.variance_average),
    ):
        pairs.append(pair(name, "excess risk", predicted, *mean_error(samples), bar=0.015))
    return Demonstration(
        "bias_variance",
        "torch.optim.SGD, wd 0.02, batch 2, lr 0.4 and then linearly to 0, on fresh Gaussian data: without label noise "
        "(bias) and with nothing to learn (variance); 80,000 runs each.",
        "step",
        np.array(AT) + 1.0,
        tuple(pairs),
        log_x=True,
        log_y=True,
    )


def least_squares_stationary(seed: int) -> Demonstration:
    """Where constant learning rates settle, by Monte Carlo."""
    x, rows, h = np.array([0.1, 0.2, 0.4, 0.6]), [], H[:4]
    for lr in x:
        steps = int(6 / (lr * h.min()))
        at = list(range(steps // 2, steps, 5))
        last, _ = _descend(h, np.full(steps, lr), 0.0, 0 * h, 0.7, 2, 16_000, at, seed)
        rows.append((theory.least_squares_stationary(h, float(lr), 0.49, 2).excess, *mean_error(last.mean(0))))
    law, seen, error = columns(rows)
    return Demonstration(
        "least_squares_stationary",
        "torch.optim.SGD, batch 2, at constant learning rate on fresh Gaussian data with four eigenvalues, averaged "
        "over time and 16,000 runs once settled.",
        "lr",
        x,
        (pair("", "excess risk", law, seen, error, bar=0.02),),
        log_x=True,
        log_y=True,
    )


DEMONSTRATIONS: dict[str, Callable[[int], Demonstration]] = {
    f.__name__: f for f in (bias_variance, least_squares_stationary, least_squares_trajectory)
}
