"""Sign methods and orthogonalised momentum: Lion, Signum, Muon, and the arcsine laws behind them."""

# pyright: reportPrivateImportUsage=false
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.integrate import quad
from scipy.special import ndtr

import theory
from empirics import scale_free
from paper.laws.demonstration import Demonstration, columns, mean_error, pair
from paper.laws.drive import Build, Model, settle, settled, squared_chord
from paper.laws.equilibrium import LR_WD, norm_and_angle


def arcsine(seed: int) -> Demonstration:
    """Probability of equal signs, by numerical integration."""
    x = np.linspace(-0.99, 0.99, 13)
    seen = []
    for rho in x:
        slope = rho / math.sqrt(1 - rho**2)
        both = quad(lambda y, k=slope: math.exp(-y * y / 2) * ndtr(k * y), 0, 12, epsabs=1e-14, epsrel=1e-13)[0]
        seen.append(4 * both / math.sqrt(2 * math.pi) - 1)
    law = theory.arcsine(x).correlation
    return Demonstration(
        "arcsine",
        "Correlation of the signs of two normal variables by numerical integration of their joint density over a "
        "quadrant.",
        "correlation of the variables",
        x,
        (pair("", "correlation of their signs", law, seen, bar=1e-9, absolute=True),),
    )


def _sweep(law: Callable[[float], Any], build: Callable[[float], Build], x: np.ndarray, seed: int) -> tuple[list, list]:
    laws, runs = [], []
    for rho in x:
        expected = law(float(rho))
        runs.append(
            settle(
                build(float(rho)),
                0.02,
                Model(4096, 8),
                expected.norm,
                seed,
                skipped=int(2.5 / rho) + 300,
                steps=int(8 / rho),
            )
        )
        laws.append(expected)
    return laws, runs


def lion_equilibrium(seed: int) -> Demonstration:
    """Lion on Gaussian noise."""
    x, lr, pairs = np.array([0.005, 0.01, 0.03]), 0.02, []
    for betas in ((0.9, 0.99), (0.95, 0.98)):
        laws, runs = _sweep(
            lambda rho, betas=betas: theory.lion_equilibrium(lr, rho / lr, betas, 4096),
            lambda rho, betas=betas: lambda p: scale_free.Lion(p, lr, betas, rho / lr),
            x,
            seed,
        )
        pairs += norm_and_angle(f"betas {betas[0]:g}, {betas[1]:g}", laws, runs, (0.004, 0.004))
    return Demonstration(
        "lion_equilibrium",
        "Lion (empirics.scale_free), lr 0.02, on white Gaussian gradients, averaged over time and 8 tensors of 4,096 "
        "coordinates.",
        LR_WD,
        x,
        tuple(pairs),
        log_x=True,
        log_y=True,
    )


def signum_equilibrium(seed: int) -> Demonstration:
    """Signum on Gaussian noise."""
    x, lr, pairs = np.array([0.005, 0.01, 0.03]), 0.02, []
    for beta in (0.0, 0.9):
        laws, runs = _sweep(
            lambda rho, beta=beta: theory.signum_equilibrium(lr, rho / lr, beta, 4096),
            lambda rho, beta=beta: lambda p: scale_free.Signum(p, lr, beta, rho / lr),
            x,
            seed,
        )
        pairs += norm_and_angle(f"momentum {beta:g}", laws, runs, (0.004, 0.004))
    return Demonstration(
        "signum_equilibrium",
        "Signum (empirics.scale_free), lr 0.02, on white Gaussian gradients, averaged over time and 8 tensors of 4,096 "
        "coordinates.",
        LR_WD,
        x,
        tuple(pairs),
        log_x=True,
        log_y=True,
    )


def matrix_arcsine(seed: int) -> Demonstration:
    """Polar factors of random matrices, by singular value decomposition."""
    x, rng, pairs = np.array([0.6, 0.7, 0.8, 0.9, 0.97]), np.random.default_rng(seed), []
    for shape in ((128, 128), (96, 288)):
        rows = []
        for rho in x:
            values = []
            for _ in range(16):
                g, other = rng.standard_normal((2, *shape))
                first, second = (_polar(m) for m in (g, rho * g + math.sqrt(1 - rho**2) * other))
                values.append(np.sum(first * second) / min(shape))
            rows.append([float(v) for v in mean_error(values)])
        seen, error = columns(rows)
        law = theory.matrix_arcsine(shape, x).correlation
        name = f"{shape[0]} × {shape[1]}"
        pairs.append(pair(name, "correlation of polar factors", law, seen, error, bar=0.01))
    return Demonstration(
        "matrix_arcsine",
        "Polar factors of 16 pairs of Gaussian matrices with correlated entries, by singular value decomposition.",
        "correlation of the entries",
        x,
        tuple(pairs),
    )


def _polar(matrix: np.ndarray) -> np.ndarray:
    u, _, v = np.linalg.svd(matrix, full_matrices=False)
    return u @ v


def muon_equilibrium(seed: int) -> Demonstration:
    """torch.optim.Muon on Gaussian noise."""
    x, lr, copies, pairs = np.array([0.03, 0.05, 0.1]), 0.02, 4, []
    for shape, kind in (
        ((48, 48), {"momentum": 0.9, "nesterov": True}),
        ((40, 80), {"momentum": 0.8, "nesterov": False, "adjust_lr_fn": "match_rms_adamw"}),
    ):
        laws, runs = [], []
        for rho in x:
            law = theory.muon_equilibrium(lr, float(rho) / lr, shape, **kind)
            generator = torch.Generator().manual_seed(seed)
            weights = [torch.nn.Parameter(torch.randn(shape, generator=generator) * law.rms) for _ in range(copies)]
            optimizer = torch.optim.Muon(weights, lr=lr, weight_decay=float(rho) / lr, **kind)
            squares, chords, skipped, steps = torch.zeros(copies), torch.zeros(copies), int(3 / rho) + 40, int(25 / rho)
            flat = lambda weights=weights: torch.stack([w.detach().flatten() for w in weights]).double()
            for t in range(skipped + steps):
                old = flat()
                for w in weights:
                    w.grad = torch.randn(shape, generator=generator)
                optimizer.step()
                if t >= skipped:
                    new = flat()
                    squares, chords = squares + new.square().sum(1) / steps, chords + squared_chord(old, new) / steps
            laws.append(law)
            runs.append(settled(squares.double().numpy(), chords.double().numpy()))
        name = f"{shape[0]} × {shape[1]}, {'Nesterov' if kind['nesterov'] else 'plain'} {kind['momentum']}"
        pairs += norm_and_angle(name, laws, runs, (0.008, 0.006))
    return Demonstration(
        "muon_equilibrium",
        "torch.optim.Muon, lr 0.02, bfloat16 Newton-Schulz included, on white Gaussian gradients, averaged over time "
        "and 4 matrices.",
        LR_WD,
        x,
        tuple(pairs),
        log_x=True,
        log_y=True,
    )


DEMONSTRATIONS: dict[str, Callable[[int], Demonstration]] = {
    f.__name__: f for f in (arcsine, lion_equilibrium, matrix_arcsine, muon_equilibrium, signum_equilibrium)
}
