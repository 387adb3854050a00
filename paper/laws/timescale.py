"""How long weights remember: their updates, and their own direction."""

# pyright: reportPrivateImportUsage=false
from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

import theory
from empirics import scale_free
from paper.laws.demonstration import Demonstration, mean_error, pair
from paper.laws.drive import gaussian
from paper.laws.equilibrium import LR_WD


def timescale(seed: int) -> Demonstration:
    """Shrink of weights without gradients."""
    del seed
    x, lr, pairs = np.geomspace(1e-6, 1e-4, 5), 0.01, []
    for name, momentum, dampening, bar in (
        ("AdamW", 0.0, 0.0, 1e-9),
        ("SGD", 0.0, 0.0, 1e-9),
        ("SGD, momentum 0.9", 0.9, 0.0, 0.01),
        ("SGD, momentum 0.9, dampening 0.5", 0.9, 0.5, 0.01),
    ):
        law, seen = [], []
        for rho in x:
            wd = float(rho) / lr
            w = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
            optimizer = (
                torch.optim.AdamW([w], lr, weight_decay=wd)
                if name == "AdamW"
                else torch.optim.SGD([w], lr, momentum, dampening, wd)
            )
            before = 1.0
            for _ in range(400 if momentum else 1):  # until the buffer has filled
                before, w.grad = w.item(), torch.zeros_like(w)
                optimizer.step()
            seen.append(before / (before - w.item()))
            law.append(theory.timescale(lr, wd, 32, 1000, 100, momentum=momentum, dampening=dampening).steps)
        pairs.append(pair(name, "time scale (steps)", law, seen, bar=bar))
    return Demonstration(
        "timescale",
        "Real optimizers on weights without gradient: the weight over what one step takes from it, for momentum once "
        "its buffer has filled.",
        LR_WD,
        x,
        tuple(pairs),
        log_x=True,
        log_y=True,
        note="A definition for decoupled decay and plain SGD (1e-9); with momentum it is the long-run shrink to "
        "leading order in lr·wd/(1 − momentum)², for which the specification states no bar: 1 % is used.",
    )


def ema_weights(seed: int) -> Demonstration:
    """What is left in the end of the update of each single step."""
    del seed
    steps, wd, pairs, s = 400, 2.0, [], np.arange(400) / 400
    at = np.arange(9, steps, 15)
    shapes = {"constant": np.ones(steps), "linear": 1 - s, "cosine": 0.5 * (1 + np.cos(np.pi * s))}
    for name, shape in shapes.items():
        # coordinate t gets a gradient at step t alone; the last one none at all, but a weight of one at the start
        w = torch.nn.Parameter(torch.zeros(steps + 1, dtype=torch.float64))
        w.data[-1] = 1.0
        optimizer = scale_free.Signum([w], momentum=0.0, weight_decay=wd)
        for t in range(steps):
            optimizer.param_groups[0]["lr"] = 0.01 * float(shape[t])
            w.grad = torch.zeros_like(w)
            w.grad[t] = -1.0
            optimizer.step()
        law = theory.ema_weights(0.01 * shape, wd)
        kept = wd * w.detach().numpy()[:-1]
        pairs.append(pair(name, "share of the final weights", law.weight[at], kept[at], bar=1e-9))
    return Demonstration(
        "ema_weights",
        "Signum without momentum (empirics.scale_free), wd 2, peak lr 0.01, on 400 coordinates that each get a "
        "gradient at one step only: what is left of it after the run.",
        "step",
        at + 1.0,
        tuple(pairs),
    )


def direction_autocorrelation(seed: int) -> Demonstration:
    """Cosines between the weights of two steps."""
    lr, wd, d, pairs = 0.1, 0.1, 10_000, []
    lags = np.array([1, 3, 10, 20, 40, 70, 100, 130, 160])
    for beta in (0.0, 0.9):
        generator = torch.Generator().manual_seed(seed)
        w = torch.nn.Parameter(gaussian((1, d), generator))
        w.data *= math.sqrt(1 / 0.2) / w.data.norm()
        optimizer, units = scale_free.NormalizedMomentum([w], lr, beta, wd), []
        for t in range(300 + 2400):
            w.grad = torch.randn((1, d), generator=generator).double()
            optimizer.step()
            if t >= 300:
                units.append((w.detach() / w.detach().norm()).float()[0])
        u, rows = torch.stack(units), []
        for lag in lags:
            cosines = (u[lag:] * u[:-lag]).sum(1).double().numpy()
            # 8 stretches of the run: not quite independent, 2.7 time scales each
            rows.append(mean_error(np.array([part.mean() for part in np.array_split(cosines, 8)])))
        law = theory.direction_autocorrelation(lr, wd, beta, lags).cos
        seen, error = (np.array(column) for column in zip(*rows, strict=True))
        pairs.append(pair(f"momentum {beta:g}", "mean cosine", law, seen, error, bar=0.025))
    return Demonstration(
        "direction_autocorrelation",
        "Normalised momentum (empirics.scale_free), lr 0.1, wd 0.1, on white Gaussian gradients of 10,000 coordinates, "
        "24 time scales.",
        "steps apart",
        lags.astype(float),
        tuple(pairs),
        log_y=True,
    )


DEMONSTRATIONS: dict[str, Callable[[int], Demonstration]] = {
    f.__name__: f for f in (direction_autocorrelation, ema_weights, timescale)
}
