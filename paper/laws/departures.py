"""Where real runs depart from the ideal: norms that drift, gradients that lean, finite eps, no decay."""

# pyright: reportPrivateImportUsage=false
from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch

import theory
from empirics import scale_free
from paper.laws.demonstration import Array, Demonstration, columns, mean_error, pair
from paper.laws.drive import Build, Model, gaussian, gradient, settled, squared_chord, start, walk
from paper.laws.equilibrium import ANGLE, norm_and_angle
from theory.departures.adamw_drift import adamw_drift_corrected_angle as adamw_angle
from theory.departures.drift import drift_corrected_angle as drift_angle
from theory.departures.finite_eps import finite_eps as epsilon
from theory.departures.finite_eps import finite_eps_equilibrium as epsilon_equilibrium
from theory.departures.radial_gradient import radial_gradient as lean
from theory.departures.undecayed import undecayed_angle as undecayed
from theory.departures.variance_ratio import update_variance_ratio as variance_ratio
from theory.equilibrium.adamw import second_moment_corrections
from theory.optimizers import SGD, AdamW, Lion, Optimizer, Signum

STEPS = 600


def _bins(values: Array, width: int) -> Array:
    return values.reshape(-1, width, *values.shape[1:]).mean(axis=1)


def drift_corrected_angle(seed: int) -> Demonstration:
    """torch.optim.SGD on its way: norms that still move."""
    width, pairs, rows, norm0 = 50, [], 12, 1.2
    at = np.arange(2 * width, STEPS + 1, width)
    for name, momentum, bar in (("no momentum", 0.0, 1e-9), ("momentum 0.9", 0.9, 0.01)):
        rates, wd = np.full(STEPS, 0.1 * (1 - momentum)), 0.02
        build: Build = lambda p, mu=momentum, wd=wd: torch.optim.SGD(p, 0.1, mu, weight_decay=wd)
        squares, chords = walk(build, rates, Model(2048, rows, True), norm0, seed)
        squares = np.vstack([np.full((1, rows), norm0**2), squares])
        if momentum == 0:  # an identity of every step: those at the ends of the bins, first tensor
            t = at - 1
            drift = 0.5 * np.log(squares[at, 0] / squares[t, 0])
            law = [float(drift_angle(float(d), float(rates[i]), wd).angle) for d, i in zip(drift, t, strict=True)]
            pairs.append(pair(name, ANGLE, law, 2 * np.arcsin(np.sqrt(chords[t, 0]) / 2), bar=bar))
            continue
        drift = np.diff(np.log(squares.mean(1))[width::width]) / (2 * width)
        law = [
            float(drift_angle(float(d), float(lr), wd, momentum).angle)
            for d, lr in zip(drift, _bins(rates, width)[1:], strict=True)
        ]
        square, error = mean_error(_bins(chords, width)[1:])
        pairs.append(pair(name, ANGLE, law, 2 * np.arcsin(np.sqrt(square) / 2), error / (2 * np.sqrt(square)), bar=bar))
    return Demonstration(
        "drift_corrected_angle",
        "torch.optim.SGD, wd 0.02, at constant learning rate, on white gradients orthogonal to the weights, from a "
        "norm far from equilibrium: single steps without momentum, averages over 50 steps with it, the first 50 left "
        "out.",
        "step",
        at.astype(float),
        tuple(pairs),
        log_y=True,
    )


def adamw_drift_corrected_angle(seed: int) -> Demonstration:
    """torch.optim.AdamW on its way, averaged over 100 steps."""
    width, wd, d, pairs = 100, 0.1, 16_384, []
    for name, betas, norm0, invariant in (
        ("scale-invariant", (0.9, 0.98), 24.0, True),
        ("not scale-invariant", (0.9, 0.98), 24.0, False),
    ):
        rates = np.full(STEPS, 0.02)
        build: Build = lambda p, b=betas: torch.optim.AdamW(p, 0.02, b, 1e-30, wd)
        squares, chords = walk(build, rates, Model(d, 8, invariant), norm0, seed)
        ends = np.log(squares.mean(1))[width - 1 :: width]
        law = [
            float(adamw_angle(float(drift), float(lr), wd, betas, scale_invariant=invariant).angle)
            for drift, lr in zip(np.diff(ends) / (2 * width), _bins(rates, width)[1:], strict=True)
        ]
        square, error = mean_error(_bins(chords, width)[1:])
        pairs.append(
            pair(name, ANGLE, law, 2 * np.arcsin(np.sqrt(square) / 2), error / (2 * np.sqrt(square)), bar=0.01)
        )
    return Demonstration(
        "adamw_drift_corrected_angle",
        "torch.optim.AdamW, wd 0.1, betas (0.9, 0.98), at constant learning rate, on white random gradients, from "
        "norms far from equilibrium; 8 tensors of 16,384 coordinates, averages over 100 steps, the first 100 left out.",
        "step",
        np.arange(2 * width, STEPS + 1, width).astype(float),
        tuple(pairs),
        log_y=True,
    )


def radial_gradient(seed: int) -> Demonstration:
    """torch.optim.SGD and AdamW on noise plus a small multiple of the weights' direction."""
    x, d, rows, pairs = np.array([-0.03, -0.015, 0.0, 0.015, 0.03]), 4096, 6, []
    lr, wd, steps = 0.02, 0.05, 1000
    for name in ("SGD", "AdamW"):
        betas, points = (0.9, 0.98), []
        long_run = 1.0 if name == "SGD" else theory.adamw_equilibrium(1e-6, 1e-3, betas).rms ** 2 / 5e-4
        for rho in x:
            generator = torch.Generator().manual_seed(seed)
            w = torch.nn.Parameter(gaussian((rows, d), generator))
            w.data *= 0.3 * (math.sqrt(d) if name == "AdamW" else 1.0) / w.data.norm(dim=1, keepdim=True)
            optimizer = (
                torch.optim.SGD([w], lr, weight_decay=wd)
                if name == "SGD"
                else torch.optim.AdamW([w], lr, betas, 1e-30, wd)
            )
            for t in range(-100, steps):  # first without steps, until Adam's buffers have filled
                noise = gaussian((rows, d), generator) / math.sqrt(d)
                w.grad = noise + float(rho) * w.detach() / w.detach().norm(dim=1, keepdim=True)
                optimizer.param_groups[0]["lr"] = lr if t >= 0 else 0.0
                optimizer.step()
            size = w.detach().norm(dim=1).numpy() / (math.sqrt(d) if name == "AdamW" else 1.0)
            law = lean(float(rho), lr, wd, long_run, size0=0.3, steps=[steps]).size[0]
            points.append((law, *mean_error(size)))
        law, seen, error = columns(points)
        pairs.append(pair(name, "size of the weights", law, seen, error, bar=0.01))
    return Demonstration(
        "radial_gradient",
        "torch.optim.SGD and AdamW, lr 0.02, wd 0.05, on white noise of unit size plus rho times the direction of the "
        "weights, 1,000 steps from size 0.3 (AdamW: rms); 6 tensors of 4,096 coordinates.",
        "cosine of gradient and weights, rho",
        x,
        tuple(pairs),
    )


def finite_eps(seed: int) -> Demonstration:
    """Torch's batch normalisation of weights that shrink: output and radial gradient."""
    x, eps, rows = np.geomspace(1e-3, 10, 9), 1e-3, []
    generator = torch.Generator().manual_seed(seed)
    inputs, direction, weight = (gaussian(shape, generator) for shape in ((256, 16), (256, 1), (1, 16)))
    plain = inputs @ weight.T
    variance = float(plain.var(correction=0))
    exact = ((plain - plain.mean()) / math.sqrt(variance)).norm().item()
    for scale in x:
        w = (float(scale) * weight).requires_grad_()
        y = torch.nn.functional.batch_norm(inputs @ w.T, None, None, training=True, eps=eps)
        loss = (y.sin() * direction).sum()
        by_output, by_weight = torch.autograd.grad(loss, (y, w))
        law = epsilon(eps, variance, float(scale))
        defect = (by_weight * w).sum() / (by_output * y).sum()
        rows.append((law.gain, y.norm().item() / exact, law.defect, defect.item()))
    size, size_seen, defect, defect_seen = columns(rows)
    return Demonstration(
        "finite_eps",
        "torch's batch normalisation, eps 0.001, behind one linear unit: its output over that of an exact "
        "normalisation, and <w, dL/dw> over <y, dL/dy> by autograd for a nonlinear loss.",
        "scale of the weights",
        x,
        (
            pair("output over an exact normalisation's", "share", size, size_seen, bar=1e-9),
            pair("radial gradient, <w, dL/dw>/<y, dL/dy>", "share", defect, defect_seen, bar=1e-9, absolute=True),
        ),
        log_x=True,
    )


def finite_eps_equilibrium(seed: int) -> Demonstration:
    """torch.optim.SGD on gradients that stop growing below a norm, with and without a mean radial part."""
    x, lr, wd, model, pairs = np.array([0.0, 0.5, 1.0, 2.0]), 0.1, 0.03, Model(1024, 8, True), []
    for name, pull in (("no pull", 0.0), ("pull 0.005", 0.005)):
        laws, runs = [], []
        for floor in x:
            law, generator = epsilon_equilibrium(lr, wd, 1.0, float(floor), pull), torch.Generator().manual_seed(seed)
            w, squares, chords = start(model, law.norm, generator)[0], torch.zeros(8), torch.zeros(8)
            optimizer = torch.optim.SGD([w], lr, weight_decay=wd)
            for t in range(800):
                old = w.detach().clone()
                square = old.square().sum(1, keepdim=True)
                share = floor**2 / (square + floor**2)
                w.grad = gradient(old, model, generator) * (1 - share).sqrt() + pull * share / square * old
                optimizer.step()
                if t >= 300:
                    squares = squares + w.detach().square().sum(1) / 500
                    chords = chords + squared_chord(old, w.detach()) / 500
            laws.append(law)
            runs.append(settled(squares.numpy(), chords.numpy()))
        pairs += norm_and_angle(name, laws, runs, (0.01, 0.01))
    return Demonstration(
        "finite_eps_equilibrium",
        "torch.optim.SGD, lr 0.1, wd 0.03, on white gradients orthogonal to the weights of size 1/sqrt(||w||² + "
        "floor²), without and with a mean radial part, settled and then averaged.",
        "norm at which the variance equals eps",
        x,
        tuple(pairs),
    )


def undecayed_angle(seed: int) -> Demonstration:
    """Optimizers without decay."""
    width, steps, lr, d, pairs = 50, 1200, 0.01, 8192, []
    at = np.arange(400, steps, width)
    kinds: list[tuple[str, Build, Optimizer, float, bool]] = [
        ("AdamW", lambda p: torch.optim.AdamW(p, lr, (0.9, 0.98), 1e-30, 0.0), AdamW(lr, (0.9, 0.98)), 9.0, False),
        ("Lion", lambda p: scale_free.Lion(p, lr, (0.9, 0.95)), Lion(lr, (0.9, 0.95)), 9.0, False),
        ("SGD, scale-invariant", lambda p: torch.optim.SGD(p, lr), SGD(lr), 0.3, True),
    ]
    for name, build, optimizer, norm0, invariant in kinds:
        _, chords = walk(build, [lr] * steps, Model(d, 6, invariant), norm0, seed)
        nu = variance_ratio(optimizer)
        one_step = {"AdamW": 0.1 / 1.9 * second_moment_corrections((0.9, 0.98))[0], "Lion": 1.0}.get(name, 1.0)
        worth = norm0**4 / (2 * lr**2) if invariant else norm0**2 * nu / (lr**2 * d * one_step)
        law = [
            math.sqrt(np.mean(undecayed(np.arange(t, t + width), nu, worth, scale_invariant_sgd=invariant).angle ** 2))
            for t in at
        ]
        square, error = mean_error(chords[400:].reshape(-1, width, 6).mean(1))
        pairs.append(
            pair(name, ANGLE, law, 2 * np.arcsin(np.sqrt(square) / 2), error / (2 * np.sqrt(square)), bar=0.01)
        )
    return Demonstration(
        "undecayed_angle",
        "torch.optim.AdamW and SGD and Lion (empirics.scale_free) without decay, lr 0.01, on white random gradients; 6 "
        "tensors of 8,192 coordinates, averages over 50 steps.",
        "step",
        at + width / 2,
        tuple(pairs),
        log_x=True,
        log_y=True,
        note="The law leaves out what the first steps, in which the momentum fills, are worth: of the order of the "
        "memory over the number of steps. Lion's empty buffer (memory 20) makes the weights grow late, 2.7 % in angle "
        "at step 425; AdamW's bias-corrected first steps make them grow early.",
    )


def update_variance_ratio(seed: int) -> Demonstration:
    """One-step over long-run variance of real optimizers' updates, from how far weights without decay travel."""
    x, pairs, lr, d, span = np.array([0.0, 0.5, 0.8, 0.9]), [], 0.01, 16_384, 150
    kinds: list[tuple[str, Callable[[float], Build], Callable[[float], Optimizer]]] = [
        ("SGD", lambda b: lambda p: torch.optim.SGD(p, lr, b), lambda b: SGD(lr, b)),
        ("AdamW", lambda b: lambda p: torch.optim.AdamW(p, lr, (b, 0.98), 1e-30, 0.0), lambda b: AdamW(lr, (b, 0.98))),
        ("Signum", lambda b: lambda p: scale_free.Signum(p, lr, b), lambda b: Signum(lr, b)),
        ("Lion, beta2 0.9", lambda b: lambda p: scale_free.Lion(p, lr, (b, 0.9)), lambda b: Lion(lr, (b, 0.9))),
    ]
    for name, build, describe in kinds:
        rows = []
        for beta in x:
            generator = torch.Generator().manual_seed(seed)
            w = torch.nn.Parameter(torch.zeros((8, d)))
            optimizer, places, step = build(float(beta))([w]), [], torch.zeros(8)
            for t in range(250 + 4 * span):
                old, w.grad = w.detach().clone(), torch.randn((8, d), generator=generator)
                optimizer.step()
                if t >= 250:
                    step = step + (w.detach() - old).square().sum(1).double() / (4 * span)
                if t >= 249 and (t - 249) % span == 0:
                    places.append(w.detach().clone())
            # what 2n steps travel beyond twice n steps is long-run variance alone, once n exceeds the memory
            far = torch.stack([places[i + 2] - places[i] for i in (0, 2)]).square().sum(2).mean(0)
            near = torch.stack([places[i + 1] - places[i] for i in range(4)]).square().sum(2).mean(0)
            rows.append(mean_error((step / ((far - near).double() / span)).numpy()))
        seen, error = columns(rows)
        law = [variance_ratio(describe(float(beta))) for beta in x]
        pairs.append(pair(name, "one-step over long-run variance", law, seen, error, bar=0.02))
    return Demonstration(
        "update_variance_ratio",
        "torch.optim.SGD and AdamW (beta2 0.98), Signum and Lion (empirics.scale_free) without decay on white Gaussian "
        "gradients: mean square of a step over what 300 steps travel further than 150, per step; 130,000 coordinates.",
        "momentum, or beta1",
        x,
        tuple(pairs),
        log_y=True,
        note="The law states no bar (exact, for AdamW to first order in 1 - beta2): 2 % is what this sampling can "
        "tell.",
    )


DEMONSTRATIONS: dict[str, Callable[[int], Demonstration]] = {
    f.__name__: f
    for f in (
        adamw_drift_corrected_angle,
        drift_corrected_angle,
        finite_eps,
        finite_eps_equilibrium,
        radial_gradient,
        undecayed_angle,
        update_variance_ratio,
    )
}
