"""Equilibria of SGD, of the linear decoupled laws and of fixed-norm and cautious updates."""

# pyright: reportPrivateImportUsage=false
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

import theory
from empirics import scale_free
from paper.laws.demonstration import Demonstration, Pair, columns, pair
from paper.laws.drive import Build, Model, Settled, gaussian, settle, settled, squared_chord

NORM, ANGLE = "norm", "angle (rad/step)"
LR_WD = "lr·wd"


def norm_and_angle(
    name: str, laws: Sequence[Any], runs: Sequence[Settled], bars: tuple[float, float]
) -> tuple[Pair, Pair]:
    """The two series that an equilibrium law gives.

    Args:
        name: Name of the series.
        laws: What the law says at each point; has `norm` and `angle`.
        runs: What was measured there.
        bars: Accuracies of norm and angle.

    Returns:
        The series of the norm and of the angle.
    """
    norm, norm_error, angle, angle_error = columns([(r.norm, r.norm_error, r.angle, r.angle_error) for r in runs])
    return (
        pair(name, NORM, [law.norm for law in laws], norm, norm_error, bar=bars[0]),
        pair(name, ANGLE, [law.angle for law in laws], angle, angle_error, bar=bars[1]),
    )


def sgd_equilibrium(seed: int) -> Demonstration:
    """torch.optim.SGD in its variants, on scale-invariant weights and on others."""
    lr, x = 0.1, np.array([0.005, 0.01, 0.03])
    cases: list[tuple[str, dict[str, Any], bool, float]] = [
        ("plain", {}, True, 0.004),
        ("heavy ball 0.9", {"momentum": 0.9}, True, 0.004),
        ("Nesterov 0.9", {"momentum": 0.9, "nesterov": True}, True, 0.004),
        ("dampened 0.9, 0.5, not scale-invariant", {"momentum": 0.9, "dampening": 0.5}, False, 0.003),
    ]
    pairs: list[Pair] = []
    for name, kind, invariant, bar in cases:
        laws, runs = [], []
        for rho in x:
            wd = float(rho / lr)
            moment: dict[str, Any] = {"c2" if invariant else "g2": 1.0}
            law = theory.sgd_equilibrium(lr, wd, **kind, **moment)
            build: Build = lambda p, wd=wd, kind=kind: torch.optim.SGD(p, lr, weight_decay=wd, **kind)
            model = Model(1024 if invariant else 4096, 8, invariant)
            steps = int(12 * (1 - kind.get("momentum", 0.0)) / rho) + 800 if invariant else int(8 / rho)
            runs.append(settle(build, lr, model, law.norm, seed, skipped=steps // 4 + 100, steps=steps))
            laws.append(law)
        pairs += norm_and_angle(name, laws, runs, (bar, bar))
    return Demonstration(
        "sgd_equilibrium",
        "torch.optim.SGD, lr 0.1, on white random gradients, orthogonal to the weights and of size 1/||w|| (or, where "
        "said, independent of them), settled and then averaged over time and 8 tensors.",
        LR_WD,
        x,
        tuple(pairs),
        log_x=True,
        log_y=True,
    )


def normalized_momentum_equilibrium(seed: int) -> Demonstration:
    """Momentum normalised to unit length."""
    lr, x, pairs = 0.02, np.array([0.003, 0.01, 0.03]), []
    for beta in (0.0, 0.9):
        laws, runs = [], []
        for rho in x:
            wd = float(rho / lr)
            law = theory.normalized_momentum_equilibrium(lr, wd, beta)
            build: Build = lambda p, wd=wd, beta=beta: scale_free.NormalizedMomentum(p, lr, beta, wd)
            model, steps = Model(4096, 6, apart=True), int(10 / rho)
            runs.append(settle(build, lr, model, law.norm, seed, skipped=int(2.5 / rho), steps=steps))
            laws.append(law)
        pairs += norm_and_angle(f"momentum {beta:g}", laws, runs, (0.003, 0.003))
    return Demonstration(
        "normalized_momentum_equilibrium",
        "Normalised momentum (empirics.scale_free), lr 0.02, on white Gaussian gradients of 4,096 coordinates.",
        LR_WD,
        x,
        tuple(pairs),
        log_x=True,
        log_y=True,
    )


def decoupled_equilibrium(seed: int) -> Demonstration:
    """The law fed with the autocovariance that AdamW's updates had in the same run."""
    lr, x, d, lags = 0.02, np.array([0.01, 0.02, 0.05]), 2048, 200
    laws, runs = [], []
    for rho in x:
        wd, generator = float(rho / lr), torch.Generator().manual_seed(seed)
        w = torch.nn.Parameter(gaussian((4, d), generator) * math.sqrt(lr / (2 * wd)))
        optimizer = torch.optim.AdamW([w], lr=lr, betas=(0.9, 0.98), eps=0.0, weight_decay=wd)
        g, updates, squares, chords = gaussian((4, d), generator), [], torch.zeros(4), torch.zeros(4)
        skipped, steps = int(3 / rho) + 200, int(15 / rho) + 500
        for t in range(skipped + steps):
            g = 0.5 * g + math.sqrt(0.75) * gaussian((4, d), generator)  # correlated in time: no other law covers it
            old, w.grad = w.detach().clone(), g
            optimizer.step()
            if t >= skipped:
                updates.append((((1 - rho) * old - w.detach()) / lr).float())
                squares = squares + w.detach().square().sum(1) / steps
                chords = chords + squared_chord(old, w.detach()) / steps
        u = torch.stack(updates).flatten(1).numpy()
        c = [float(np.vdot(u[k:], u[: len(u) - k])) / (len(u) - k) / 4 for k in range(lags)]
        laws.append(theory.decoupled_equilibrium(lr, wd, c))
        runs.append(settled(squares.double().numpy(), chords.double().numpy()))
    return Demonstration(
        "decoupled_equilibrium",
        "torch.optim.AdamW, betas (0.9, 0.98), on Gaussian gradients with correlation 0.5^k; the law gets the "
        "autocovariance of the updates, 200 lags, measured in the same run.",
        LR_WD,
        x,
        norm_and_angle("", laws, runs, (0.015, 0.01)),
        log_x=True,
        log_y=True,
    )


def angle_from_relative_update(seed: int) -> Demonstration:
    """The triangle itself, and the updates that torch.optim.AdamW takes in equilibrium."""
    x, rng, lr, wd = np.geomspace(0.05, 0.5, 6), np.random.default_rng(seed), 0.1, 0.01
    a, laws, seen, adam_laws, runs = 1 - lr * wd, [], [], [], []
    for size in x:
        w = rng.standard_normal(1000)
        w /= np.linalg.norm(w)
        tangent = rng.standard_normal(1000)
        tangent -= (tangent @ w) * w
        tangent /= np.linalg.norm(tangent)
        # u of length `size` whose step keeps ||w||: ||a w - u||^2 = 1 fixes the part of u along w
        along = (a**2 + size**2 - 1) / (2 * a)
        new = a * w - along * w - math.sqrt(size**2 - along**2) * tangent
        seen.append(2 * math.asin(np.linalg.norm(new / np.linalg.norm(new) - w) / 2))
        laws.append(float(theory.angle_from_relative_update(float(size), lr, wd).angle))
        relative, rho, run = _adamw_updates(float(size), seed)
        adam_laws.append(float(theory.angle_from_relative_update(relative, rho, 1.0).angle))
        runs.append((run.angle, run.angle_error))
    angle, error = columns(runs)
    return Demonstration(
        "angle_from_relative_update",
        "A single step in 1,000 dimensions built to keep the norm; and torch.optim.AdamW, betas (0, 0.99), in "
        "equilibrium at the lr·wd that gives about this relative update, the law fed with the RMS of its measured "
        "updates.",
        "relative update",
        x,
        (pair("single step", ANGLE, laws, seen, bar=1e-6), pair("AdamW", ANGLE, adam_laws, angle, error, bar=0.006)),
        log_x=True,
        log_y=True,
    )


def _adamw_updates(size: float, seed: int) -> tuple[float, float, Settled]:
    """Relative update, lr*wd and rotation of torch.optim.AdamW where its relative update is about `size`."""
    rho, lr, rows, d = size**2 / 2, 0.02, 6, 1024
    generator = torch.Generator().manual_seed(seed)
    w = torch.nn.Parameter(gaussian((rows, d), generator) * lr / math.sqrt(2 * rho))
    optimizer = torch.optim.AdamW([w], lr, (0.0, 0.99), 0.0, rho / lr)
    skipped, steps = int(2 / rho) + 400, int(6 / rho) + 500
    updates, squares, chords = torch.zeros(rows), torch.zeros(rows), torch.zeros(rows)
    for t in range(skipped + steps):
        old, w.grad = w.detach().clone(), gaussian((rows, d), generator)
        optimizer.step()
        if t >= skipped:
            updates = updates + ((1 - rho) * old - w.detach()).square().sum(1) / steps
            squares = squares + old.square().sum(1) / steps
            chords = chords + squared_chord(old, w.detach()) / steps
    return math.sqrt(updates.sum() / squares.sum()), rho, settled(squares.numpy(), chords.numpy())


def _carried(generator: torch.Generator, rho: float, beta: float, invariant: bool) -> Settled:
    """EMA momentum under AR(1) gradients; on scale-invariant weights their memory turns with the weights."""
    lr, wd, d, rows, skipped, steps = 0.1, 0.1, 2048, 4, 400, 1500
    noise = lambda: gaussian((rows, d), generator) / math.sqrt(d)
    w = noise() * theory.correlated_equilibrium(lr, wd, rho, beta, invariant).norm
    m, x, squares, chords = torch.zeros_like(w), noise(), torch.zeros(rows), torch.zeros(rows)
    for t in range(skipped + steps):
        fresh = noise()
        unit = w / w.norm(dim=1, keepdim=True)
        if invariant:
            fresh -= (fresh * unit).sum(1, keepdim=True) * unit
            x -= (x * unit).sum(1, keepdim=True) * unit
        x = rho * x + math.sqrt(1 - rho**2) * fresh
        m = beta * m + (1 - beta) * x
        new = (1 - lr * wd) * w - lr * m
        if invariant:  # the rotation that takes the old direction to the new one carries the gradients' memory along
            after = new / new.norm(dim=1, keepdim=True)
            overlap = (x * after).sum(1, keepdim=True) / (1 + (unit * after).sum(1, keepdim=True))
            x = x - overlap * (unit + after)
        if t >= skipped:
            squares = squares + new.square().sum(1) / steps
            chords = chords + squared_chord(w, new) / steps
        w = new
    return settled(squares.double().numpy(), chords.double().numpy())


def correlated_equilibrium(seed: int) -> Demonstration:
    """Momentum under gradients with memory."""
    x, pairs = np.array([-0.6, 0.0, 0.5, 0.8]), []
    for name, beta, invariant, bars in (
        ("scale-invariant, momentum 0.8", 0.8, True, (0.02, 0.004)),
        ("scale-invariant, no momentum", 0.0, True, (0.02, 0.004)),
        ("not scale-invariant, momentum 0.8", 0.8, False, (0.004, 0.004)),
    ):
        generator = torch.Generator().manual_seed(seed)
        laws = [theory.correlated_equilibrium(0.1, 0.1, float(rho), beta, invariant) for rho in x]
        pairs += norm_and_angle(name, laws, [_carried(generator, float(rho), beta, invariant) for rho in x], bars)
    return Demonstration(
        "correlated_equilibrium",
        "EMA momentum with decoupled decay written out, lr 0.1, wd 0.1, under AR(1) gradients; on scale-invariant "
        "weights the gradients' memory is carried along with the turning weights.",
        "correlation of successive gradients",
        x,
        tuple(pairs),
    )


def hyperball_angle(seed: int) -> Demonstration:
    """Normalised momentum projected back onto a sphere."""
    x, pairs = np.array([0.03, 0.1, 0.3]), []
    for beta in (0.0, 0.5, 0.9):
        runs = []
        for lr in x:
            build: Build = lambda p, lr=lr, beta=beta: scale_free.Hyperball(p, float(lr), beta)
            skipped = 150 + int(min(600, 1 / lr**2))
            runs.append(settle(build, float(lr), Model(8192, 2, apart=True), 3.0, seed, skipped=skipped, steps=500))
        angle, error = columns([(run.angle, run.angle_error) for run in runs])
        law = [theory.hyperball_angle(float(lr), beta).angle for lr in x]
        pairs.append(pair(f"momentum {beta:g}", ANGLE, law, angle, error, bar=0.002))
    return Demonstration(
        "hyperball_angle",
        "Normalised momentum projected back to its norm after every step (empirics.scale_free.Hyperball), on white "
        "Gaussian gradients of 8,192 coordinates.",
        "lr (step relative to the norm)",
        x,
        tuple(pairs),
        log_x=True,
        log_y=True,
    )


def cautious_equilibrium(seed: int) -> Demonstration:
    """Signum whose decay acts only where update and weight agree in sign."""
    lr, x, d, rows, pairs = 0.02, np.array([0.01, 0.02, 0.04]), 4096, 6, []
    for beta in (0.0, 0.8):
        laws, runs = [], []
        for rho in x:
            wd, generator = float(rho / lr), torch.Generator().manual_seed(seed)
            law = theory.cautious_equilibrium(lr, wd, beta, d)
            w, m = gaussian((rows, d), generator) * law.rms, torch.zeros((rows, d), dtype=torch.float64)
            squares, chords, skipped, steps = torch.zeros(rows), torch.zeros(rows), int(5 / rho), int(16 / rho)
            for t in range(skipped + steps):
                m = beta * m + (1 - beta) * gaussian((rows, d), generator)
                u = m.sign()
                new = w - lr * (u + wd * w * (u * w > 0))
                if t >= skipped:
                    squares = squares + new.square().sum(1) / steps
                    chords = chords + squared_chord(w, new) / steps
                w = new
            laws.append(law)
            runs.append(settled(squares.double().numpy(), chords.double().numpy()))
        pairs += norm_and_angle(f"momentum {beta:g}", laws, runs, (0.03, 0.03))
    return Demonstration(
        "cautious_equilibrium",
        "Signum written out, lr 0.02, decay only on coordinates whose update and weight have the same sign, both read "
        "before the step; white Gaussian gradients of 4,096 coordinates.",
        LR_WD,
        x,
        tuple(pairs),
        log_x=True,
        log_y=True,
    )


DEMONSTRATIONS: dict[str, Callable[[int], Demonstration]] = {
    f.__name__: f
    for f in (
        angle_from_relative_update,
        cautious_equilibrium,
        correlated_equilibrium,
        decoupled_equilibrium,
        hyperball_angle,
        normalized_momentum_equilibrium,
        sgd_equilibrium,
    )
}
