"""One optimizer, one tensor: where it settles and how it gets there, by whichever law applies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from theory.equilibrium.adam_l2 import adam_l2_equilibrium
from theory.equilibrium.adamw import adamw_equilibrium
from theory.equilibrium.cautious import cautious_equilibrium
from theory.equilibrium.decoupled import normalized_momentum_equilibrium
from theory.equilibrium.hyperball import hyperball_angle
from theory.equilibrium.muon import muon_equilibrium
from theory.equilibrium.sgd import sgd_equilibrium
from theory.equilibrium.sign import lion_equilibrium, signum_equilibrium
from theory.errors import InputError, finite, require
from theory.optimizers import SGD, Adam, AdamW, Decay, Hyperball, Lion, Muon, NormalizedMomentum, Optimizer, Signum
from theory.predict import predict
from theory.probe import Probe
from theory.recipe import Group, Recipe
from theory.results import Equilibrium, Trajectory

_LAWS: dict[type, Callable[[Any, float, float, Group], Equilibrium]] = {
    AdamW: lambda o, lr, wd, g: adamw_equilibrium(lr, wd, o.betas, g.size),
    Lion: lambda o, lr, wd, g: lion_equilibrium(lr, wd, o.betas, g.size),
    Signum: lambda o, lr, wd, g: signum_equilibrium(lr, wd, o.momentum, g.size),
    NormalizedMomentum: lambda o, lr, wd, g: normalized_momentum_equilibrium(lr, wd, o.momentum),
    Muon: lambda o, lr, wd, g: muon_equilibrium(lr, wd, _matrix(g), o.momentum, o.nesterov, o.adjust_lr_fn, o.ns_steps),
}


def equilibrium(optimizer: Optimizer, group: Group, c2: float | None = None, g2: float | None = None) -> Equilibrium:
    """Where a tensor's norm and rotation settle under constant hyper-parameters.

    Decays of every convention count at the peak rate; the group's own decay and learning-rate factor apply. Cautious
    decay has a law of its own for Signum and counts as half of decoupled decay elsewhere, which is leading order.

    Source: the law of the optimizer, which the result names.

    Args:
        optimizer: The optimizer.
        group: The tensor; its shape matters to all but SGD.
        c2: SGD and Adam with coupled decay on a scale-invariant tensor: E||g||^2 ||w||^2.
        g2: SGD on any other tensor: E||g||^2.

    Returns:
        Norm, RMS rotation per step (rad), relaxation time (steps), effective learning rate, and the law's name.

    Raises:
        InputError: If there is no equilibrium (lr or decay 0), the law does not apply, or c2 or g2 is missing.

    Example:
        >>> settled = equilibrium(AdamW(lr=1e-3, weight_decay=0.1), Group("w", (64, 64)))
        >>> round(settled.rms, 4), settled.law
        (0.0706, 'adamw_equilibrium')
    """
    require(isinstance(optimizer, Optimizer), "optimizer", optimizer, "an optimizer of theory, such as AdamW")
    require(isinstance(group, Group), "group", group, "a Group")
    lr = optimizer.lr * group.lr_factor
    if isinstance(optimizer, Hyperball):
        require(group.norm0 is not None, "group.norm0", None, "given: a fixed-norm optimizer holds the initial norm")
        fixed = hyperball_angle(lr, optimizer.momentum)
        return _finished(
            Equilibrium(float(group.norm0 or 0.0), fixed.angle, 0.0, "hyperball_angle", lr), optimizer, group, lr
        )
    decay = Recipe(optimizer).decay_of(group)
    if lr * decay == 0:
        raise InputError(
            f"group {group.name!r} has no equilibrium: lr and weight_decay must both be positive; without decay the "
            "norm grows for ever (trajectory shows how)."
        )
    if isinstance(optimizer, SGD):
        return _finished(
            sgd_equilibrium(
                lr, decay, optimizer.momentum, optimizer.dampening, optimizer.nesterov, **_noise(group, c2, g2)
            ),
            optimizer,
            group,
            lr,
        )
    if isinstance(optimizer, Adam):
        require(c2 is not None, "c2", None, "given: Adam with coupled decay settles where the gradients' size says")
        unit = (finite("c2", c2) / group.size) ** 0.5
        return _finished(adam_l2_equilibrium(lr, decay, optimizer.betas, [unit], [group.size]), optimizer, group, lr)
    if optimizer.decay is Decay.CAUTIOUS:
        if isinstance(optimizer, Signum):
            return _finished(cautious_equilibrium(lr, decay, optimizer.momentum, group.size), optimizer, group, lr)
        decay = decay / 2
    per_rate = decay / lr if optimizer.decay is Decay.INDEPENDENT else decay
    return _finished(_LAWS[type(optimizer)](optimizer, lr, per_rate, group), optimizer, group, lr)


def trajectory(recipe: Recipe, group: Group | str, probe: Probe | None = None) -> Trajectory:
    """Norm, rotation and effective learning rate of one tensor at every step of the recipe's schedule.

    Any schedule of learning rate, decay, betas and batch size; lr or decay of 0 are allowed. It is `predict` for one
    tensor, without bands.

    Source: the law of the optimizer, which the result names.

    Args:
        recipe: The run; its groups do not matter unless `group` is a name.
        group: The tensor, or the name of one of the recipe's.
        probe: Measurements, as for `predict`; the trajectory starts at the probe's step.

    Returns:
        The trajectory; NaN where a quantity cannot be known before the data.

    Raises:
        InputError: If the recipe has no group of that name.

    Example:
        >>> recipe = Recipe(AdamW(lr=1e-3, weight_decay=0.0), steps=100)
        >>> path = trajectory(recipe, Group("w", (64, 64), norm0=1.0))
        >>> path.norm[[0, -1]].round(3).tolist()
        [1.002, 1.208]
    """
    if isinstance(group, str):
        named = [known for known in recipe.groups if known.name == group]
        require(bool(named), "group", group, f"one of {', '.join(g.name for g in recipe.groups) or 'none'}")
        group = named[0]
    prediction = predict(replace(recipe, groups=(group,)), probe)
    steps = np.arange(prediction.start, recipe.steps)
    values = prediction.values(steps)
    return Trajectory(
        step=steps,
        norm=values["norm"][:, 0],
        angle=values["angle"][:, 0],
        law=prediction.laws[-1],
        effective_lr=values["effective_lr"][:, 0],
    )


def _noise(group: Group, c2: float | None, g2: float | None) -> dict[str, float | None]:
    needed = "g2" if group.scale_invariant is None else "c2"
    given = {"c2": c2, "g2": g2}
    require(given[needed] is not None, needed, None, f"given: SGD on {_kind(group)} settles where the gradients say")
    return {needed: given[needed]}


def _kind(group: Group) -> str:
    return "a tensor that is not scale-invariant" if group.scale_invariant is None else "a scale-invariant tensor"


def _matrix(group: Group) -> tuple[int, int]:
    require(len(group.shape) == 2, "group.shape", group.shape, "a matrix's, two numbers: Muon takes no others")
    return group.shape[0], group.shape[1]


def _finished(settled: Equilibrium, optimizer: Optimizer, group: Group, lr: float) -> Equilibrium:
    """With rms and effective learning rate, which follow from the norm."""
    rms = settled.norm / group.size**0.5
    scale = settled.norm**2 if isinstance(optimizer, SGD) else rms
    rate = lr if isinstance(optimizer, Hyperball) else lr / scale
    return replace(settled, rms=rms, effective_lr=rate)
