"""Many epochs: label noise, balance, and the edge of stability on the sphere."""

# pyright: reportPrivateImportUsage=false
from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import fsolve
from torch import Tensor
from torch.nn import Parameter

import theory
from paper.laws.demonstration import Array, Demonstration, columns, mean_error, pair
from paper.laws.drive import gaussian, squared_chord
from paper.laws.equilibrium import ANGLE, LR_WD, NORM

CURVATURE = torch.tensor([0.5, 2.5], dtype=torch.float64)
SHARPNESS, LOWEST = 2.0, 0.25  # of w'Hw/(2||w||^2): h_max - h_min, and its minimum


def label_noise_excess(seed: int) -> Demonstration:
    """torch.optim.SGD on the full batch, labels drawn anew at every step."""
    generator, runs, n, sigma, steps, skipped = torch.Generator().manual_seed(seed), 800, 12, 0.5, 1200, 300
    inputs = gaussian((n, 4), generator)
    h = torch.linalg.eigvalsh(inputs.T @ inputs / n).numpy()
    x, rows = np.array([0.1, 0.3, 0.6, 0.9]), []
    for top in x:
        lr = float(top / h.max() * 2 * 0.9)
        w, losses = Parameter(torch.zeros((runs, 4), dtype=torch.float64)), torch.zeros(runs, dtype=torch.float64)
        optimizer = torch.optim.SGD([w], lr=lr)
        for t in range(steps):
            fit = w @ inputs.T
            if t >= skipped:
                losses += fit.detach().square().mean(1) / 2 / (steps - skipped)
            optimizer.zero_grad()
            ((fit - sigma * gaussian((runs, n), generator)).square().mean(1) / 2).sum().backward()
            optimizer.step()
        seen, error = mean_error(losses.numpy())
        rows.append((lr * h.max(), theory.label_noise_excess(h, lr, sigma**2, n).excess, seen, error))
    steepness, law, seen, error = columns(rows)
    return Demonstration(
        "label_noise_excess",
        "torch.optim.SGD on the full batch of a linear regression with 12 samples and 4 weights whose labels get fresh "
        "noise at every step: the mean training loss above the minimum, 800 runs.",
        "lr × largest Hessian eigenvalue",
        steepness,
        (pair("", "excess training loss", law, seen, error, bar=0.015),),
        log_y=True,
    )


def _two_layers(lr: float, decay: float, steps: int, runs: int, seed: int) -> tuple[Array, Array]:
    """u^2 - v^2 over its start for u*v under label noise, mean square residuals, shapes (steps, runs) and (steps,)."""
    generator, sigma = torch.Generator().manual_seed(seed), 0.8
    w = Parameter(torch.tensor([[1.4], [0.6]], dtype=torch.float64).repeat(1, runs))
    optimizer, balance, residuals = torch.optim.SGD([w], lr, weight_decay=decay), [], []
    for _ in range(steps):
        residual = w[0] * w[1] - 0.84 - sigma * gaussian((runs,), generator)
        residuals.append(residual.detach().square().mean().item())
        optimizer.zero_grad()
        (residual.square().sum() / 2).backward()
        optimizer.step()
        balance.append((w[0] ** 2 - w[1] ** 2).detach().numpy() / (1.4**2 - 0.6**2))
    return np.array(balance), np.array(residuals)


def label_noise_balance(seed: int) -> Demonstration:
    """Two-layer scalar networks under Gaussian label noise."""
    at, pairs = np.arange(19, 300, 20), []
    for name, lr, decay in (("no decay", 0.05, 0.0), ("wd 0.02", 0.1, 0.02)):
        balance, residuals = _two_layers(lr, decay, 300, 4000, seed)
        seen, error = mean_error(balance[at])
        met = np.cumsum(residuals) / np.arange(1, 301)
        law = [theory.label_noise_balance(lr, decay, float(met[t]), int(t) + 1).ratio for t in at]
        pairs.append(pair(f"lr {lr:g}, {name}", "u² − v² over its start", law, seen, error, bar=0.01))
    return Demonstration(
        "label_noise_balance",
        "torch.optim.SGD on ½(uv − y − noise)², noise 0.8, 4,000 runs; the law gets the mean square residual met so "
        "far.",
        "step",
        at + 1.0,
        tuple(pairs),
        log_y=True,
    )


def noise_regulariser(seed: int) -> Demonstration:
    """Drift of u^2 - v^2 along the interpolating solutions, against descent on coefficient * tr H."""
    x, rows = np.array([0.01, 0.02, 0.05, 0.1]), []
    for lr in x:
        steps = int(min(1500, 0.2 / lr**2))
        balance, residuals = _two_layers(float(lr), 0.0, steps, 2000, seed)
        mean, error = mean_error(balance[-1])
        # tr H = u^2 + v^2: descent on its multiple shrinks u^2 - v^2 by 4 lr * coefficient a step
        law = 4 * lr * theory.noise_regulariser(float(lr), 1, float(residuals.mean())).coefficient
        rows.append((law, -math.log(mean) / steps, error / mean / steps))
    law, seen, error = columns(rows)
    return Demonstration(
        "noise_regulariser",
        "torch.optim.SGD on ½(uv − y − noise)², noise 0.8, 2,000 runs: the rate at which u² − v² decays, against the "
        "law's drift down its coefficient times tr H = u² + v², given the measured mean square residual.",
        "lr",
        x,
        (pair("", "decay of u² − v² (1/step)", law, seen, error, bar=0.01),),
        log_x=True,
        log_y=True,
        note="The specification states no bar, the law being of leading order in lr; that of label_noise_balance is "
        "used.",
    )


def _loss(w: Tensor) -> Tensor:
    """Rayleigh quotient of each row, halved: scale-invariant."""
    return (CURVATURE * w.square()).sum(1) / (2 * w.square().sum(1))


def _step(w: Array, lr: float, decay: float) -> Array:
    """One step of torch.optim.SGD with autograd's gradient from weights of shape (2,)."""
    p = Parameter(torch.as_tensor(w[None]).clone())
    _loss(p).sum().backward()
    torch.optim.SGD([p], lr, weight_decay=decay).step()
    return p.detach().numpy()[0]


def sphere_eos(seed: int) -> Demonstration:
    """The orbit found numerically, and averages over runs from random starts."""
    x, exact, averages, laws = np.array([0.005, 0.02, 0.05, 0.2]), [], [], []
    for rho in x:
        law, lr, mirror = theory.sphere_eos(1.0, float(rho), SHARPNESS), 1.0, np.array([1.0, -1.0])
        guess = np.array([1.0, 0.5 * math.sqrt(rho)])  # any point near; the orbit maps to its mirror image
        orbit = fsolve(lambda w, rho=rho, m=mirror: _step(w, 1.0, float(rho)) * m - w, guess, xtol=1e-14)
        angle = 2 * math.asin(float(abs(orbit[1]) / np.linalg.norm(orbit)))
        excess = float(_loss(torch.as_tensor(orbit[None]))) - LOWEST
        exact.append((np.linalg.norm(orbit), angle, excess))
        generator, steps = torch.Generator().manual_seed(seed), round(30 / rho) + 1000
        w, sums, count = Parameter(gaussian((64, 2), generator)), torch.zeros(3, 64), 0
        optimizer = torch.optim.SGD([w], lr, weight_decay=float(rho))
        for t in range(steps):
            old = w.detach().clone()
            optimizer.zero_grad()
            _loss(w).sum().backward()
            optimizer.step()
            if t >= steps // 8:
                new = w.detach()
                sums = sums + torch.stack([new.square().sum(1), squared_chord(old, new), _loss(new) - LOWEST])
                count += 1
        square, chord, height = (mean_error((row / count).numpy()) for row in sums)
        norm, turn = math.sqrt(square[0]), math.sqrt(chord[0])
        rms = (norm, square[1] / (2 * norm), 2 * math.asin(turn / 2), chord[1] / (2 * turn), *height)
        averages.append(rms)
        laws.append((law.norm, law.angle, law.excess_loss))
    norm, angle, excess = columns(laws)
    o_norm, o_angle, o_excess = columns(exact)
    a_norm, a_norm_error, a_angle, a_angle_error, a_excess, a_excess_error = columns(averages)
    orbit, average = "orbit", "average from random starts"
    return Demonstration(
        "sphere_eos",
        "torch.optim.SGD, lr 1, on w'Hw/(2||w||²) in two dimensions: the period-2 orbit found by Newton's method on "
        "its steps, and averages over time and 64 runs from random starts.",
        LR_WD,
        x,
        (
            pair(orbit, NORM, norm, o_norm, bar=1e-7),
            pair(average, NORM, norm, a_norm, a_norm_error, bar=0.02),
            pair(orbit, ANGLE, angle, o_angle, bar=1e-7),
            pair(average, ANGLE, angle, a_angle, a_angle_error, bar=0.06),
            pair(orbit, "excess loss", excess, o_excess, bar=1e-7),
            pair(average, "excess loss", excess, a_excess, a_excess_error, bar=0.06),
        ),
        log_x=True,
        log_y=True,
        note="Runs from random starts circle the orbit in wide cycles: ln cos of the rotation averages ln(1 − lr·wd) "
        "on every cycle, but its RMS, drawn here, does not, and is some 10 % smaller than the orbit's angle.",
    )


def time_to_eos(seed: int) -> Demonstration:
    """A converged direction shrinks until the edge."""
    del seed
    x, pairs, lr, norm0 = np.array([0.001, 0.002, 0.005, 0.01]), [], 0.5, 3.0
    for mu in (0.0, 0.7):
        law, seen = [], []
        edge = math.sqrt(lr * SHARPNESS / (2 * (1 + mu)))
        for rho in x:
            wd = float(rho) / lr
            law.append(theory.time_to_eos(norm0, lr, wd, SHARPNESS, mu).steps)
            w, sizes = Parameter(torch.tensor([[norm0, 0.0]], dtype=torch.float64)), [norm0]
            optimizer = torch.optim.SGD([w], lr, mu, weight_decay=wd)
            if mu:  # the buffer of weights that have been shrinking for long
                alpha = max(np.roots([1, -(1 + mu - float(rho)), mu]).real)
                optimizer.state[w]["momentum_buffer"] = (1 / alpha - 1) / lr * w.detach()
            while sizes[-1] > edge:
                optimizer.zero_grad()
                _loss(w).sum().backward()
                optimizer.step()
                sizes.append(w.detach().norm().item())
            seen.append(np.interp(-math.log(edge), -np.log(sizes), np.arange(len(sizes))))
        pairs.append(pair(f"momentum {mu:g}", "steps to the edge", law, seen, bar=0.001))
    return Demonstration(
        "time_to_eos",
        "torch.optim.SGD, lr 0.5, on w'Hw/(2||w||²) from its minimum, where decay alone moves the norm: when lr times "
        "the sharpness reaches 2(1 + momentum).",
        LR_WD,
        x,
        tuple(pairs),
        log_x=True,
        log_y=True,
    )


def eos_period(seed: int) -> Demonstration:
    """Small cycles about the orbit, timed."""
    del seed
    x, law, seen = np.array([0.001, 0.002, 0.005, 0.01]), [], []
    for rho in x:
        law.append(theory.eos_period(1.0, float(rho)).steps)
        phi = math.acos(1 - rho) / 2
        w = np.array([math.cos(phi), math.sin(phi)]) * 1.001  # the orbit has norm 1 here
        gaps = []
        for _ in range(int(10.5 * law[-1])):
            gaps.append(float(w @ w) - 1)
            w = _step(w, 1.0, float(rho))
        e = np.array(gaps) - np.mean(gaps)
        up = np.flatnonzero((e[:-1] < 0) & (e[1:] >= 0))
        crossings = up - e[up] / (e[up + 1] - e[up])
        seen.append((crossings[-1] - crossings[0]) / (len(crossings) - 1))
    return Demonstration(
        "eos_period",
        "torch.optim.SGD, lr 1, on w'Hw/(2||w||²) in two dimensions, started 0.1 % off the orbit: the mean length of "
        "some ten cycles of the norm.",
        LR_WD,
        x,
        (pair("", "period (steps)", law, seen, bar=0.005),),
        log_x=True,
        log_y=True,
    )


DEMONSTRATIONS: dict[str, Callable[[int], Demonstration]] = {
    f.__name__: f
    for f in (eos_period, label_noise_balance, label_noise_excess, noise_regulariser, sphere_eos, time_to_eos)
}
