"""Norms and rotations on the way: recursions, closed forms, conventions, relaxation."""

# pyright: reportPrivateImportUsage=false
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import theory
from paper.laws.demonstration import Array, Demonstration, Pair, columns, mean_error, pair, root_mean_error
from paper.laws.drive import Build, Model, gaussian, gradient, start, walk
from paper.laws.equilibrium import ANGLE, LR_WD, NORM


def _binned(values: Array, width: int) -> tuple[Array, Array]:
    return root_mean_error(values.reshape(-1, width, values.shape[1]).mean(axis=1))


def _along(
    name: str, law: Any, squares: Array, chords: Array, at: Array, width: int, bars: tuple[float, float]
) -> tuple[Pair, Pair]:
    """Norms at the ends of bins of steps, and RMS angles over each bin."""
    norm, norm_error = root_mean_error(squares[at])
    chord, chord_error = _binned(chords, width)
    angles = np.sqrt((law.angle**2).reshape(-1, width).mean(axis=1))
    return (
        pair(name, NORM, law.norm[at], norm, norm_error, bar=bars[0]),
        pair(name, ANGLE, angles, 2 * np.arcsin(chord / 2), chord_error, bar=bars[1]),
    )


def _cosine(peak: float, steps: int, warmup: int) -> Array:
    t = np.arange(steps)
    down = 0.5 * (1 + np.cos(np.pi * (t - warmup) / (steps - warmup)))
    return peak * np.where(t < warmup, (t + 1) / warmup, down)


def _wsd(peak: float, steps: int, warmup: int, decay: int) -> Array:
    t = np.arange(steps)
    return peak * np.minimum(1, np.minimum((t + 1) / warmup, (steps - t) / decay))


def sgd_trajectory(seed: int) -> Demonstration:
    """torch.optim.SGD under schedules."""
    steps, width, wd = 600, 20, 0.05
    pairs: list[Pair] = []
    at = np.arange(width - 1, steps, width)
    cases: list[tuple[str, dict[str, Any], Array]] = [
        ("heavy ball 0.9, cosine", {"momentum": 0.9}, _cosine(0.1, steps, 40)),
        ("Nesterov 0.8, WSD", {"momentum": 0.8, "nesterov": True}, _wsd(0.2, steps, 40, 200)),
    ]
    for name, kind, rates in cases:
        build: Build = lambda p, kind=kind: torch.optim.SGD(p, 0.1, weight_decay=wd, **kind)
        squares, chords = walk(build, rates, Model(1024, 12, True), 0.7, seed)
        law = theory.sgd_trajectory(rates, wd, norm0=0.7, c2=1.0, **kind)
        pairs += _along(name, law, squares, chords, at, width, (0.01, 0.02))
    return Demonstration(
        "sgd_trajectory",
        "torch.optim.SGD, wd 0.05, under two schedules of the learning rate, on white gradients orthogonal to the "
        "weights and of size 1/||w||; 12 tensors of 1,024 coordinates, angles averaged over 20 steps.",
        "step",
        at + 1.0,
        tuple(pairs),
    )


def adamw_trajectory(seed: int) -> Demonstration:
    """torch.optim.AdamW under schedules."""
    steps, width, d, pairs = 1000, 50, 4096, []
    at = np.arange(width - 1, steps, width)
    for name, betas, wd, norm0, rates in (
        ("betas 0.9, 0.95, cosine", (0.9, 0.95), 0.3, 3.0, _cosine(0.02, steps, 50)),
        ("betas 0.9, 0.99, WSD", (0.9, 0.99), 0.1, 6.0, _wsd(0.02, steps, 50, 300)),
    ):
        build: Build = lambda p, betas=betas, wd=wd: torch.optim.AdamW(p, 0.02, betas, 1e-30, wd)
        squares, chords = walk(build, rates, Model(d, 8, True), norm0, seed)
        law = theory.adamw_trajectory(rates, wd, betas, norm0, d)
        pairs += _along(name, law, squares, chords, at, width, (0.01, 0.01))
    return Demonstration(
        "adamw_trajectory",
        "torch.optim.AdamW under two schedules of the learning rate, on white gradients orthogonal to the weights and "
        "of size 1/||w||; 8 tensors of 4,096 coordinates, angles averaged over 50 steps.",
        "step",
        at + 1.0,
        tuple(pairs),
    )


def closed_form_norm(seed: int) -> Demonstration:
    """torch.optim.SGD and AdamW at the end of five schedules."""
    x, steps, pairs = np.array([0.25, 0.5, 1.0, 2.0]), 1200, []
    s = (np.arange(steps) + 0.5) / steps
    shapes: dict[str, tuple[Array, dict[str, float]]] = {
        "linear": (1 - s, {}),
        "cosine": (np.cos(np.pi * s / 2) ** 2, {}),
        "wsd": (np.minimum(1, (1 - s) / 0.3), {"decay_fraction": 0.3}),
        "warmup": (s, {}),
        "invsqrt": (1 / np.sqrt(1 + 3 * s), {"y": 4.0}),
    }
    lr, norm0 = 0.5, 0.5
    for kind, (shape, parameters) in shapes.items():
        seen, law = [], []
        for kappa in x:
            # SGD on scale-invariant weights: r = (R/R*)^2 and twice the kappa; invsqrt counts it over t0 = T/3
            wd = float(kappa) / (lr * steps) * (3 if kind == "invsqrt" else 1)
            build: Build = lambda p, wd=wd: torch.optim.SGD(p, lr, weight_decay=wd)
            peak = lr / (2 * wd)  # R*^2 = lr c2/(2 wd)
            start_norm = norm0 * peak**0.25
            squares, _ = walk(build, lr * shape, Model(8, 1, True), start_norm, seed, every=steps)
            seen.append(math.sqrt(float(squares[-1, 0])) / peak**0.25)
            law.append(theory.closed_form_norm(kind, 2 * float(kappa), norm0**4, **parameters).r ** 0.25)
        pairs.append(pair(f"SGD, {kind}", "norm over its equilibrium", law, seen, bar=0.002))
    return Demonstration(
        "closed_form_norm",
        "torch.optim.SGD, 1,200 steps of five schedules, on gradients orthogonal to the weights and of size 1/||w||, "
        "started at half the equilibrium norm of the peak rate.",
        "peak lr·wd·steps (invsqrt: its first third)",
        x,
        tuple(pairs),
        log_x=True,
    )


def _adam_norms(rates: Array, decays: Array, shape: tuple[int, int], norm0: float, seed: int, at: list[int]) -> Array:
    """Squared norms of AdamW's weights after the listed steps, shape (steps, rows), from buffers that have filled."""
    generator, idle = torch.Generator().manual_seed(seed), 100
    w = torch.randn(shape, generator=generator)
    w = torch.nn.Parameter(w * (norm0 / w.norm(dim=1, keepdim=True)))
    optimizer, out = torch.optim.AdamW([w], 0.1, (0.9, 0.95), 1e-30), []
    for t in range(-idle, len(rates)):
        optimizer.param_groups[0].update(lr=float(rates[t]) if t >= 0 else 0.0, weight_decay=float(decays[max(t, 0)]))
        # Adam divides gradients by their own size: only how that changes, as 1/||w||, is felt
        w.grad = torch.randn(shape, generator=generator) / w.detach().norm(dim=1, keepdim=True)
        optimizer.step()
        if t in at:
            out.append(w.detach().double().square().sum(1).numpy())
    return np.array(out)


def gradient_rise(seed: int) -> Demonstration:
    """Gradient norms of AdamW after a decay to zero."""
    x, lr, rho, pairs = np.array([0.5, 1.0, 3.0]), 0.02, 1e-3, []
    for kind in ("linear", "cosine"):
        rows = []
        for i, kappa in enumerate(x):
            steps = round(float(kappa) / rho)
            s = (np.arange(steps) + 0.5) / steps
            rates = lr * (1 - s if kind == "linear" else np.cos(np.pi * s / 2) ** 2)
            shape = (4, 12_288)
            norm0 = theory.adamw_equilibrium(lr, rho / lr, (0.9, 0.95), shape[1]).norm
            squares = _adam_norms(rates, np.full(len(rates), rho / lr), shape, norm0, seed + i, [len(rates) - 1])
            norm, error = root_mean_error(squares[0])
            rows.append((norm0 / norm, error * norm0 / norm**2))
        seen, error = columns(rows)
        law = [theory.gradient_rise(kind, float(k)).rise for k in x]
        pairs.append(pair(f"AdamW, {kind}", "gradient norm, end over start", law, seen, error, bar=0.01))
    return Demonstration(
        "gradient_rise",
        "torch.optim.AdamW, peak lr·wd 0.001, betas (0.9, 0.95), from equilibrium through a decay to zero, on random "
        "gradients of size 1/||w||; 4 tensors of 12,288 coordinates.",
        "peak lr·wd·steps",
        x,
        tuple(pairs),
        log_x=True,
    )


def decay_convention_norm(seed: int) -> Demonstration:
    """AdamW whose decay follows the learning rate, its square, or nothing."""
    x, lr, rho, pairs = np.array([0.5, 1.0, 2.0]), 0.02, 1e-3, []
    names = {"adamw": 0.02, "corrected": 0.02, "independent": 0.1}
    for convention, bar in names.items():
        rows = []
        for i, kappa in enumerate(x):
            steps = round(float(kappa) / rho)
            shape = np.cos(np.pi * (np.arange(steps) + 0.5) / steps / 2) ** 2
            factor = {"adamw": np.ones(steps), "corrected": shape, "independent": 1 / shape}[convention]
            norm0 = theory.adamw_equilibrium(lr, rho / lr, (0.9, 0.95), 12_288).norm
            at = [steps // 2 - 1, steps - 1]
            squares = _adam_norms(lr * shape, rho / lr * factor, (4, 12_288), norm0, seed + i, at) / norm0**2
            means, errors = squares.mean(1), squares.std(1, ddof=1) / 2
            rows.append((means[0], errors[0], means[1], errors[1]))
        half, half_error, end, end_error = columns(rows)
        laws = [theory.decay_convention_norm(convention, "cosine", float(k)) for k in x]
        halfway = 0.04 if convention == "independent" else bar
        pairs += [
            pair(convention, "R/R*, halfway", [law.r_half for law in laws], half, half_error, bar=halfway),
            pair(convention, "R/R*, at the end", [law.r_end for law in laws], end, end_error, bar=bar),
        ]
    return Demonstration(
        "decay_convention_norm",
        "torch.optim.AdamW, peak lr·wd 0.001, betas (0.9, 0.95), from equilibrium through a cosine to zero with its "
        "decay coefficient set at every step; 4 tensors of 12,288 coordinates.",
        "peak lr·wd·steps",
        x,
        tuple(pairs),
        log_x=True,
        log_y=True,
    )


def relaxation_time(seed: int) -> Demonstration:
    """Two runs on the same random numbers, one displaced: how fast their norms meet."""
    x, lr, pairs = np.array([0.002, 0.005, 0.01]), 0.1, []
    cases: list[tuple[str, str, Callable[[float], Build], float, dict[str, Any]]] = [
        ("SGD", "sgd", lambda wd: lambda p: torch.optim.SGD(p, lr, weight_decay=wd), 0.0, {}),
        ("SGD, momentum 0.5", "sgd", lambda wd: lambda p: torch.optim.SGD(p, lr, 0.5, weight_decay=wd), 0.5, {}),
        ("AdamW", "adamw", lambda wd: lambda p: torch.optim.AdamW(p, lr, (0.9, 0.99), 1e-30, wd), 0.0, {}),
    ]
    for name, optimizer, make, momentum, extra in cases:
        law, seen = [], []
        for rho in x:
            wd = float(rho) / lr
            law.append(theory.relaxation_time(optimizer, lr, wd, momentum, **extra).steps)
            equilibrium = (
                theory.sgd_equilibrium(lr, wd, momentum, c2=1.0)
                if optimizer == "sgd"
                else theory.adamw_equilibrium(lr, wd, (0.9, 0.99), 8192)
            )
            model = Model(2048, 4, True) if optimizer == "sgd" else Model(8192, 6)
            seen.append(_meeting(make(wd), equilibrium.norm, law[-1], seed, model))
        pairs.append(pair(name, "e-folding time (steps)", law, *columns(seen), bar=0.02))
    return Demonstration(
        "relaxation_time",
        "Two runs of the real optimizer on the same random gradients, one started 1 % further out: the e-folding time "
        "of the difference of their squared norms.",
        LR_WD,
        x,
        tuple(pairs),
        log_x=True,
        log_y=True,
    )


def _meeting(build: Build, norm: float, expected: float, seed: int, model: Model) -> tuple[float, float]:
    """e-folding time of the difference of squared norms, fitted over 1.5 expected times, and its standard error."""
    generator = torch.Generator().manual_seed(seed)
    first = start(model, norm, generator)
    runs = [first[0], torch.nn.Parameter(first[0].detach() * 1.01)]
    optimizers = [build([run]) for run in runs]
    gaps, settling = [], int(0.5 * expected) + 50
    for t in range(settling + int(1.5 * expected)):
        noise = gaussian((model.rows, model.d), generator)
        for run, optimizer in zip(runs, optimizers, strict=True):
            run.grad = gradient(run.detach(), model, generator, lambda *_, n=noise: n.clone())
            optimizer.step()
        if t >= settling:
            gaps.append((runs[1].detach().square().sum(1) - runs[0].detach().square().sum(1)).numpy())
    slopes = np.polyfit(np.arange(len(gaps)), np.log(np.array(gaps)), 1)[0]
    rate, error = mean_error(-slopes)
    return 1 / float(rate), float(error / rate**2)


DEMONSTRATIONS: dict[str, Callable[[int], Demonstration]] = {
    f.__name__: f
    for f in (
        adamw_trajectory,
        closed_form_norm,
        decay_convention_norm,
        gradient_rise,
        relaxation_time,
        sgd_trajectory,
    )
}
