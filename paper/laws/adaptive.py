"""Equilibria of Adam's family: AdamW under several kinds of noise and with a signal, Adam with coupled decay."""

# pyright: reportPrivateImportUsage=false
from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

import theory
from paper.laws.demonstration import Demonstration, Pair, columns, mean_error, pair
from paper.laws.drive import Build, Model, Noise, gaussian, settle
from paper.laws.equilibrium import LR_WD, norm_and_angle


def laplace(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Laplace numbers of unit variance (kurtosis 6): a sign times an exponential variable."""
    size = torch.empty(shape).exponential_(generator=generator).double() / math.sqrt(2)
    return torch.where(torch.rand(shape, generator=generator) < 0.5, -size, size)


def _adamw(lr: float, betas: tuple[float, float], rho: float) -> Build:
    return lambda p: torch.optim.AdamW(p, lr=lr, betas=betas, eps=1e-30, weight_decay=rho / lr)


def adamw_equilibrium(seed: int) -> Demonstration:
    """torch.optim.AdamW on Gaussian and on Laplace noise."""
    lr, d, x, pairs = 0.02, 2048, np.array([0.01, 0.02, 0.04]), []
    cases: list[tuple[str, tuple[float, float], bool, float, Noise, float]] = [
        ("scale-invariant, betas 0.9, 0.95", (0.9, 0.95), True, 3.0, gaussian, 0.004),
        ("Gaussian, betas 0.9, 0.99", (0.9, 0.99), False, 3.0, gaussian, 0.004),
        ("Laplace, betas 0.9, 0.99", (0.9, 0.99), False, 6.0, laplace, 0.004),
    ]
    for name, betas, invariant, kurtosis, noise, bar in cases:
        laws, runs = [], []
        for rho in x:
            law = theory.adamw_equilibrium(lr, float(rho) / lr, betas, d, kurtosis)
            skipped, steps = int(2.5 / rho + 4 / (1 - betas[1])), int(12 / rho)
            model = Model(d, 8, invariant)
            run = settle(
                _adamw(lr, betas, float(rho)), lr, model, law.norm, seed, skipped=skipped, steps=steps, noise=noise
            )
            laws.append(law)
            runs.append(run)
        pairs += norm_and_angle(name, laws, runs, (bar, bar))
    return Demonstration(
        "adamw_equilibrium",
        "torch.optim.AdamW, lr 0.02, on white random gradients, settled and then averaged over time and 8 tensors of "
        "2,048 coordinates.",
        LR_WD,
        x,
        tuple(pairs),
        log_x=True,
        log_y=True,
    )


def adamw_equilibrium_gaussian(seed: int) -> Demonstration:
    """torch.optim.AdamW with second moments of short memory."""
    lr, rho, d, x, pairs = 0.02, 0.02, 4096, np.array([0.4, 0.6, 0.8, 0.9, 0.97]), []
    for beta1 in (0.0, 0.9):
        laws, runs = [], []
        for beta2 in x:
            betas = (beta1, float(beta2))
            law = theory.adamw_equilibrium_gaussian(lr, rho / lr, betas, d)
            run = settle(_adamw(lr, betas, rho), lr, Model(d, 8), law.norm, seed, skipped=300, steps=750)
            laws.append(law)
            runs.append(run)
        pairs += norm_and_angle(f"beta1 {beta1:g}", laws, runs, (0.003, 0.003))
    return Demonstration(
        "adamw_equilibrium_gaussian",
        "torch.optim.AdamW, lr 0.02, wd 1, on white Gaussian gradients, averaged over time and 8 tensors of 4,096 "
        "coordinates.",
        "beta2",
        x,
        tuple(pairs),
        log_y=True,
    )


def adam_l2_equilibrium(seed: int) -> Demonstration:
    """torch.optim.Adam with weight_decay, coordinates of equal and of unequal gradients."""
    lr, d, rows, betas, x = 0.02, 1024, 8, (0.9, 0.99), np.array([0.001, 0.003, 0.01])
    unequal = np.exp(np.random.default_rng(seed).standard_normal(d) / 2)
    pairs: list[Pair] = []
    for name, scales in (("equal", np.ones(d)), ("lognormal", unequal)):
        s = scales / np.linalg.norm(scales)
        size = torch.as_tensor(s)[None]
        laws, runs = [], []
        for wd in x:
            law = theory.adam_l2_equilibrium(lr, float(wd), betas, s)
            wait = law.relaxation_steps

            def noise(shape: tuple[int, ...], generator: torch.Generator, size: Tensor = size) -> Tensor:
                return gaussian(shape, generator) * size * math.sqrt(d)

            build: Build = lambda p, wd=wd: _OnSphere(torch.optim.Adam(p, lr, betas, 1e-30, float(wd)), p)
            run = settle(
                build,
                lr,
                Model(d, rows),
                law.norm,
                seed,
                skipped=300 + int(4 * wait),
                steps=int(40 * wait),
                noise=noise,
            )
            laws.append(law)
            runs.append(run)
        pairs += norm_and_angle(f"{name} gradients", laws, runs, (0.01, 0.01))
    return Demonstration(
        "adam_l2_equilibrium",
        "torch.optim.Adam with coupled weight_decay, lr 0.02, betas (0.9, 0.99), on Gaussian gradients that shrink as "
        "1/||w||, equally large or lognormal (sigma 1/2) over the 1,024 coordinates.",
        "wd",
        x,
        tuple(pairs),
        log_x=True,
        log_y=True,
    )


class _OnSphere(torch.optim.Optimizer):
    """Divides gradients by the weights' norm before the step: unequal scales are invariant only on average."""

    def __init__(self, inner: torch.optim.Optimizer, params: list[torch.nn.Parameter]) -> None:
        super().__init__(params, {})
        self.inner, self.param_groups = inner, inner.param_groups

    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Take one step."""
        for group in self.param_groups:
            for p in group["params"]:
                p.grad /= p.detach().norm(dim=1, keepdim=True)
        self.inner.step()


def adamw_signal_noise(seed: int) -> Demonstration:
    """torch.optim.AdamW on gradients with a mean."""
    lr, wd, betas, x = 0.02, 0.5, (0.9, 0.99), np.array([0.03, 0.1, 0.3, 1.0, 3.0])
    groups, each, skipped, steps = 16, 1000, 900, 1800
    laws, rows = [], []
    for snr in x:
        law, generator = theory.adamw_signal_noise(lr, wd, float(snr), betas), torch.Generator().manual_seed(seed)
        w = torch.nn.Parameter(law.mean + law.std * gaussian((groups, each), generator))
        optimizer = torch.optim.AdamW([w], lr, betas, 1e-30, wd)
        mean, square, count = torch.zeros(groups), torch.zeros(groups), 0
        for t in range(skipped + steps):
            w.grad = float(snr) + gaussian((groups, each), generator)
            optimizer.step()
            if t >= skipped and t % 10 == 0:
                mean, square, count = mean + w.detach().mean(1), square + w.detach().square().mean(1), count + 1
        means, squares = (mean / count).numpy(), (square / count).numpy()
        laws.append(law)
        centre, centre_error = mean_error(-means)
        variance, variance_error = mean_error(squares - means**2)
        spread = math.sqrt(float(variance))
        rows.append((centre, centre_error, spread, float(variance_error) / (2 * spread)))
    centre, centre_error, spread, spread_error = columns(rows)
    return Demonstration(
        "adamw_signal_noise",
        "torch.optim.AdamW, lr 0.02, wd 0.5, betas (0.9, 0.99), on gradients snr + N(0, 1): mean and spread over "
        "16,000 weights and 18 time scales.",
        "signal-to-noise ratio of one gradient",
        x,
        (
            pair("minus the mean", "weight", [-law.mean for law in laws], centre, centre_error, bar=0.015),
            pair("standard deviation", "weight", [law.std for law in laws], spread, spread_error, bar=0.015),
        ),
        log_x=True,
        log_y=True,
    )


DEMONSTRATIONS: dict[str, Callable[[int], Demonstration]] = {
    f.__name__: f for f in (adam_l2_equilibrium, adamw_equilibrium, adamw_equilibrium_gaussian, adamw_signal_noise)
}
