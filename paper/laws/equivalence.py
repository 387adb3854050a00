"""Runs with decay and their twins without, on a real network."""

# pyright: reportPrivateImportUsage=false
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

import theory
from empirics import scale_free
from paper.laws.demonstration import Array, Demonstration, Pair, pair
from paper.laws.network import Run, task, train

STEPS = 200
SHOWN = np.arange(9, STEPS, 10)


def _rates(peak: float) -> Array:
    t = np.arange(STEPS)
    return peak * np.minimum((t + 1) / 20, 0.55 + 0.45 * np.cos(np.pi * np.maximum(t - 20, 0) / (STEPS - 20)))


def _of(run: Any) -> Callable[[int], Mapping[str, Any]]:
    """What to set at each step of a `TwinRun`."""

    def plan(step: int) -> Mapping[str, Any]:
        now: dict[str, Any] = {"lr": float(run.lr[step])}
        if run.betas is not None:
            now["betas"] = (float(run.betas[step, 0]), float(run.betas[step, 1]))
        if run.eps is not None:
            now["eps"] = float(run.eps[step])
        return now

    return plan


def _pairs(name: str, decayed: Run, twin: Run, ratio: Array) -> list[Pair]:
    """Norm ratio, loss and direction of the decayed run, against what the twin says of them."""
    seen = (decayed.norms[1:] / twin.norms[1:])[SHOWN]
    worst = np.argmax(np.abs(seen / ratio[SHOWN, None] - 1), axis=1)
    gap = decayed.gap(twin)[SHOWN]
    return [
        pair(name, "norm over the twin's", ratio[SHOWN], seen[np.arange(len(SHOWN)), worst], bar=1e-9),
        pair(name, "training loss", twin.losses[SHOWN], decayed.losses[SHOWN], bar=1e-8),
        pair(name, "distance of directions", np.zeros_like(gap), gap, bar=1e-8, absolute=True),
    ]


def _demonstration(law: str, pairs: list[Pair], what: str) -> Demonstration:
    return Demonstration(
        law,
        f"{what}, with decay and as the twin without it, training the same small network with three scale-invariant "
        "matrices (normalisations with eps 1e-30, float64); the worst of the three matrices is shown.",
        "step",
        SHOWN + 1.0,
        tuple(pairs),
    )


def sgd_exponential_lr(seed: int) -> Demonstration:
    """Constant learning rates, the twin from its own momentum buffer."""
    problem, pairs = task(seed), []
    for mu, lr in ((0.0, 1.0), (0.9, 0.2)):
        law = theory.sgd_exponential_lr(lr, 0.01, mu)
        decayed = train(problem, lambda p, mu=mu, lr=lr: torch.optim.SGD(p, lr, mu, weight_decay=0.01), STEPS)
        twin = train(
            problem,
            lambda p, mu=mu: torch.optim.SGD(p, momentum=mu),
            STEPS,
            lambda t, lr=lr, law=law: {"lr": lr * law.alpha ** (-2.0 * t - 1)},
            buffer=law.buffer_coefficient,
        )
        pairs += _pairs(f"momentum {mu:g}", decayed, twin, law.alpha ** (np.arange(STEPS) + 1.0))
    return _demonstration("sgd_exponential_lr", pairs, "torch.optim.SGD at constant learning rate")


def sgd_exponential_schedule(seed: int) -> Demonstration:
    """Warm-up and cosine, with dampening too."""
    problem, pairs = task(seed), []
    for name, kind, peak in (
        ("momentum 0.9", {"momentum": 0.9}, 0.2),
        ("momentum 0.9, dampening 0.8", {"momentum": 0.9, "dampening": 0.8}, 1.0),
    ):
        rates = _rates(peak)
        law = theory.sgd_exponential_schedule(rates, 0.01, **kind)
        build = lambda p, wd, kind=kind: torch.optim.SGD(p, weight_decay=wd, **kind)
        decayed = train(problem, lambda p, b=build: b(p, 0.01), STEPS, lambda t, r=rates: {"lr": float(r[t])})
        twin = train(problem, lambda p, b=build: b(p, 0.0), STEPS, _of(law))
        pairs += _pairs(name, decayed, twin, law.norm_ratio)
    return _demonstration("sgd_exponential_schedule", pairs, "torch.optim.SGD under warm-up and cosine")


def adamw_exponential_lr(seed: int) -> Demonstration:
    """torch.optim.AdamW against torch.optim.Adam, eps included."""
    problem, rates, pairs = task(seed), _rates(0.02), []
    for betas, eps in (((0.9, 0.99), 1e-8), ((0.8, 0.95), 1e-3)):
        law = theory.adamw_exponential_lr(rates, 0.5, betas, eps)
        build = lambda p, b=betas, e=eps: torch.optim.AdamW(p, 0.02, b, e, 0.5)
        decayed = train(problem, build, STEPS, lambda t: {"lr": float(rates[t])})
        twin = train(problem, torch.optim.Adam, STEPS, _of(law))
        pairs += _pairs(f"betas {betas[0]:g}, {betas[1]:g}, eps {eps:g}", decayed, twin, law.norm_ratio)
    return _demonstration(
        "adamw_exponential_lr", pairs, "torch.optim.AdamW under warm-up and cosine, the twin torch.optim.Adam"
    )


def lion_exponential_lr(seed: int) -> Demonstration:
    """Lion at constant learning rate."""
    problem, pairs = task(seed), []
    for betas in ((0.9, 0.99), (0.95, 0.95)):
        law = theory.lion_exponential_lr(0.01, 0.5, betas)
        decayed = train(problem, lambda p, b=betas: scale_free.Lion(p, 0.01, b, 0.5), STEPS)
        twin = train(
            problem,
            lambda p, law=law: scale_free.Lion(p, 0.01, law.betas),
            STEPS,
            lambda t, law=law: {"lr": 0.01 * law.growth ** (t + 1)},
        )
        ratio = law.growth ** -(np.arange(STEPS) + 1.0)
        pairs += _pairs(f"betas {betas[0]:g}, {betas[1]:g}", decayed, twin, ratio)
    return _demonstration("lion_exponential_lr", pairs, "Lion (empirics.scale_free) at constant learning rate")


def lion_exponential_schedule(seed: int) -> Demonstration:
    """Lion under warm-up and cosine."""
    problem, rates, pairs = task(seed), _rates(0.01), []
    for betas in ((0.9, 0.99), (0.95, 0.98)):
        law = theory.lion_exponential_schedule(rates, 0.5, betas)
        build = lambda p, b=betas: scale_free.Lion(p, 0.01, b, 0.5)
        decayed = train(problem, build, STEPS, lambda t: {"lr": float(rates[t])})
        twin = train(problem, scale_free.Lion, STEPS, _of(law))
        pairs += _pairs(f"betas {betas[0]:g}, {betas[1]:g}", decayed, twin, law.norm_ratio)
    return _demonstration("lion_exponential_schedule", pairs, "Lion (empirics.scale_free) under warm-up and cosine")


DEMONSTRATIONS: dict[str, Callable[[int], Demonstration]] = {
    f.__name__: f
    for f in (
        adamw_exponential_lr,
        lion_exponential_lr,
        lion_exponential_schedule,
        sgd_exponential_lr,
        sgd_exponential_schedule,
    )
}
