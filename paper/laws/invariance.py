"""Facts of scale invariance on a real network."""

# pyright: reportPrivateImportUsage=false
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

import theory
from empirics import scale_free
from paper.laws.demonstration import Demonstration, columns, pair
from paper.laws.equilibrium import ANGLE, NORM
from paper.laws.network import task, train


def invariance_defect(seed: int) -> Demonstration:
    """Defects that a normalisation's eps causes: by autograd's Hessian, and by finite differences along the ray."""
    problem, x, rows = task(seed), np.array([1e-12, 1e-6, 1e-4, 1e-2, 1.0]), []
    weights = [w.clone() for w in problem.start]
    for eps in x:

        def loss(first: Tensor, eps: float = float(eps)) -> Tensor:
            return problem.loss([first, *weights[1:]], 0, eps)

        def slope(scale: float, loss: Callable[[Tensor], Tensor] = loss) -> Tensor:
            w = (scale * weights[0]).requires_grad_()
            return scale * torch.autograd.grad(loss(w), w)[0]

        g = slope(1.0)
        product = torch.autograd.functional.hvp(loss, weights[0], weights[0])[1]
        law = theory.invariance_defect(weights[0].numpy(), g.numpy(), np.asarray(product))
        h = 1e-3  # central differences of fourth order: error h^4 / 30
        stencil = ((1, 8.0), (-1, -8.0), (2, -1.0), (-2, 1.0))
        with torch.no_grad():
            ray = sum(c * loss((1 + k * h) * weights[0]).item() for k, c in stencil) / (12 * h)
        turn = sum((c * slope(1 + k * h) for k, c in stencil), torch.zeros_like(g)) / (12 * h)
        size = g.norm().item()
        rows.append((law.radial, abs(ray) / (size * weights[0].norm().item()), law.hessian, turn.norm().item() / size))
    radial, radial_seen, hessian, hessian_seen = columns(rows)
    return Demonstration(
        "invariance_defect",
        "First matrix of a small network with normalisations of growing eps: the defect from autograd's gradient and "
        "Hessian product against finite differences of f(sw) and s·g(sw) in s.",
        "eps of the normalisations",
        x,
        (
            pair("radial", "defect", radial, radial_seen, bar=1e-9, absolute=True),
            pair("Hessian", "defect", hessian, hessian_seen, bar=1e-9, absolute=True),
        ),
        log_x=True,
        log_y=True,
    )


def sgd_norm_step(seed: int) -> Demonstration:
    """Every step of a real training run."""
    run, at, pairs = (
        train(task(seed), lambda p: torch.optim.SGD(p, 1.0, weight_decay=0.01), 200),
        np.arange(9, 200, 10),
        [],
    )
    for i in range(3):
        law = [theory.sgd_norm_step(run.norms[t, i], run.gradients[t, i], 1.0, 0.01).norm for t in at]
        pairs.append(pair(f"matrix {i + 1}", NORM, law, run.norms[at + 1, i], bar=1e-10))
    return Demonstration(
        "sgd_norm_step",
        "torch.optim.SGD, lr 1, wd 0.01, training a small network with three scale-invariant matrices; each step's "
        "norm from the norm and gradient norm before it.",
        "step",
        at + 1.0,
        tuple(pairs),
    )


def angle_from_norms(seed: int) -> Demonstration:
    """Rotations of a real training run, from its norms alone."""
    at, pairs = np.arange(9, 200, 10), []
    for mu, lr in ((0.0, 1.0), (0.9, 0.2)):
        run = train(task(seed), lambda p, mu=mu, lr=lr: torch.optim.SGD(p, lr, mu, weight_decay=0.01), 200)
        for i in (0, 2):
            law = theory.angle_from_norms(run.norms[:, i], lr, 0.01, mu).angle
            seen = 2 * np.arcsin(run.chords()[:, i] / 2)
            pairs.append(pair(f"matrix {i + 1}, momentum {mu:g}", ANGLE, law[at], seen[at], bar=1e-6))
    return Demonstration(
        "angle_from_norms",
        "torch.optim.SGD, wd 0.01, training a small network with scale-invariant matrices: the rotation of each step, "
        "and what the norms alone say of it.",
        "step",
        at + 1.0,
        tuple(pairs),
        log_y=True,
    )


_OPTIMIZERS: dict[str, tuple[float, float, float, Callable[[Any, float, float, float], torch.optim.Optimizer]]] = {
    "sgd": (0.3, 0.02, 0.0, lambda p, lr, wd, eps: torch.optim.SGD(p, lr, 0.8, weight_decay=wd)),
    "adam_l2": (0.02, 1e-3, 1e-4, lambda p, lr, wd, eps: torch.optim.Adam(p, lr, (0.9, 0.99), eps, wd)),
    "adamw": (0.02, 0.5, 1e-4, lambda p, lr, wd, eps: torch.optim.AdamW(p, lr, (0.9, 0.99), eps, wd)),
    "lion": (0.01, 0.5, 0.0, lambda p, lr, wd, eps: scale_free.Lion(p, lr, weight_decay=wd)),
    "signum": (0.01, 0.5, 0.0, lambda p, lr, wd, eps: scale_free.Signum(p, lr, weight_decay=wd)),
}


def rescaled_hyperparameters(seed: int) -> Demonstration:
    """The same training from weights of another size."""
    problem, x, pairs, steps = task(seed), np.array([0.1, 0.5, 2.0, 10.0]), [], 60
    for name, (lr, wd, eps, build) in _OPTIMIZERS.items():
        here = train(problem, lambda p, b=build, s=(lr, wd, eps): b(p, *s), steps)
        losses = []
        for scale in x:
            moved = theory.rescaled_hyperparameters(name, lr, wd, eps, float(scale))  # pyright: ignore[reportArgumentType]
            there = train(
                problem,
                lambda p, b=build, m=moved: b(p, m.lr, m.weight_decay, m.eps),
                steps,
                scale=float(scale),
            )
            losses.append(there.losses[-1])
        pairs.append(pair(name, f"loss at step {steps}", np.full(len(x), here.losses[-1]), losses, bar=1e-9))
    return Demonstration(
        "rescaled_hyperparameters",
        "A small scale-invariant network trained for 60 steps from weights scaled by a factor, with rescaled "
        "hyper-parameters, against the run from the original weights.",
        "factor on the initial weights",
        x,
        tuple(pairs),
        log_x=True,
    )


def effective_lr(seed: int) -> Demonstration:
    """Rotation of a single real step, per unit of gradient on the sphere."""
    problem, x, rows = task(seed), np.geomspace(0.1, 10.0, 7), []
    size = [w.norm().item() for w in problem.start]
    unit = train(problem, lambda p: torch.optim.SGD(p, 0.0), 1).gradients[0, 0] * size[0]
    for norm in x:
        scale, lr = float(norm) / size[0], 0.01
        sgd = train(problem, lambda p, lr=lr: torch.optim.SGD(p, lr), 1, scale=scale)
        fixed = train(problem, lambda p, lr=lr: scale_free.NormalizedMomentum(p, lr, 0.0), 1, scale=scale)
        # the step is orthogonal to the weights: its length over the norm is the tangent of the rotation
        tangents = [np.tan(2 * np.arcsin(run.chords()[0, 0] / 2)) for run in (sgd, fixed)]
        laws = [theory.effective_lr(name, lr, float(norm)) for name in ("sgd", "lion")]  # scale-free ones share lr/norm
        rows.append((laws[0], tangents[0] / unit, laws[1], tangents[1]))
    sgd, sgd_seen, fixed, fixed_seen = columns(rows)
    what = "rotation per unit gradient on the sphere (rad)"
    return Demonstration(
        "effective_lr",
        "One step, lr 0.01, of torch.optim.SGD and of normalised momentum (empirics.scale_free) on the first matrix of "
        "a small scale-invariant network, scaled to different norms.",
        NORM,
        x,
        (pair("SGD", what, sgd, sgd_seen, bar=1e-9), pair("normalised", what, fixed, fixed_seen, bar=1e-9)),
        log_x=True,
        log_y=True,
    )


DEMONSTRATIONS: dict[str, Callable[[int], Demonstration]] = {
    f.__name__: f for f in (angle_from_norms, effective_lr, invariance_defect, rescaled_hyperparameters, sgd_norm_step)
}
