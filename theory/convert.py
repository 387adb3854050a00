"""From a recipe in one convention of weight decay to the recipe in another that is the same run, where there is one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from theory.errors import InputError, require
from theory.optimizers import SGD, Adam, Decay, Hyperball, Optimizer
from theory.recipe import Group, Recipe
from theory.results import Array
from theory.schedules import Constant

SAME = 1e-12
"""Relative spread up to which a coefficient counts as constant: rounding of a product of three numbers."""


@dataclass(frozen=True)
class Conversion:
    """A recipe's decay in another convention."""

    recipe: Recipe | None
    """The recipe in that convention; None where theory has no optimizer class of that convention (SGD with decoupled
    decay): then `weight_decay` is what to set."""
    weight_decay: Array
    """Coefficient in that convention at each step, for tensors without a learning rate or decay of their own; NaN where
    the learning rate is 0 and any coefficient will do. Shape (steps,)."""
    exact: bool
    """Whether the two are the same run at every step."""
    why: str
    """One sentence: what both share, and what they do not."""


def convert(recipe: Recipe, to: Decay | str) -> Conversion:
    """The same run with its decay written in another convention, at every step of its schedule.

    What conventions share is the shrink of a step with zero gradient. The coefficient in the target convention is the
    shrink over the target's own shape: lr_t (decoupled, scheduled), s_t (independent), lr_t s_t (corrected), with s_t
    the schedule and lr_t = lr s_t. Where that ratio is the same at every step the conventions are one; where it is not,
    only `scheduled` can follow it (corrected decay is scheduled decay whose curve is the schedule itself). Cautious
    decay shrinks half of the coordinates, and coupled decay of SGD with momentum acts through the buffer: their
    counterparts agree on average and in the long run, and are marked so. Adam's coupled decay has none.

    Source: derived here, from the definitions of `convert_decay`. Exact where it says so (predictions equal to 1e-9).

    Args:
        recipe: The run.
        to: Convention wanted, a `Decay` or its name.

    Returns:
        The recipe in that convention, its coefficient at each step, whether it is exact, and why.

    Raises:
        InputError: If no equivalent exists; the sentence says why, and what there is instead.

    Example:
        >>> from theory.optimizers import AdamW
        >>> from theory.schedules import Cosine
        >>> corrected = Recipe(AdamW(lr=1e-3, weight_decay=0.1, decay=Decay.CORRECTED), Cosine(final=0.1), steps=100)
        >>> same = convert(corrected, to="scheduled")
        >>> same.exact, same.weight_decay[[0, 50]].round(4).tolist()
        (True, [0.1, 0.055])
    """
    require(isinstance(recipe, Recipe), "recipe", recipe, "a Recipe")
    allowed = [kind.value for kind in Decay]
    require(to in allowed, "to", getattr(to, "value", to), f"one of {', '.join(allowed)}")
    target, optimizer, plain = Decay(to), recipe.optimizer, Group("plain", (1,))
    if target is optimizer.decay:
        return Conversion(recipe, _needed(recipe, plain, target), True, f"the decay is {target.value} as it stands")
    if isinstance(optimizer, Hyperball):
        raise InputError("Hyperball has no decay to convert: its projection holds the norm.")
    if target is Decay.NONE:
        raise InputError(
            "to = 'none' is not a convention: the run without decay that follows the same directions is what "
            "dl.equivalent_schedule returns."
        )
    if isinstance(optimizer, SGD):
        return _from_sgd(recipe, optimizer, target, plain)
    if isinstance(optimizer, Adam):
        raise InputError(
            "Adam's coupled decay has no counterpart in another convention: it enters both moments and is divided by "
            "each coordinate's gradient size, so every coordinate shrinks at a rate of its own that changes with the "
            "data. For its equilibrium see adam_l2_equilibrium."
        )
    if target is Decay.COUPLED:
        raise InputError(
            f"{type(optimizer).__name__} has no coupled counterpart: a decay term inside the gradient would be "
            "rescaled with it, by the optimizer's own normalisation, and no coefficient undoes that."
        )
    return _among_decoupled(recipe, optimizer, target, plain)


def _among_decoupled(recipe: Recipe, optimizer: Optimizer, target: Decay, plain: Group) -> Conversion:
    source, curve = optimizer.decay, None
    if target is Decay.SCHEDULED:
        curve = recipe.schedule if source is Decay.CORRECTED else Constant()
    follow = np.ones(recipe.steps) if curve is None else curve.at(np.arange(recipe.steps), recipe.steps)
    needed = _needed(recipe, plain, target)
    given = needed[~np.isnan(needed)]
    if curve is None and len(given) and float(np.ptp(given)) > SAME * float(given.max()):
        raise InputError(
            f"{source.value} decay has no {target.value} counterpart under this schedule: its one coefficient would "
            f"have to run from {given.max():.4g} to {given.min():.4g}; to = 'scheduled' has one."
        )

    def coefficient(group: Group) -> float:
        """What the target's one number must be; 0 where nothing shrinks."""
        over = _needed(recipe, group, target)
        over = over[over > 0] / follow[over > 0]
        return float(over[0]) if len(over) else 0.0

    own = coefficient(plain)
    wanted = [coefficient(group) if group.decayed else own for group in recipe.groups]
    groups = tuple(
        replace(group, weight_decay=None if value == own else value)
        for group, value in zip(recipe.groups, wanted, strict=True)
    )
    changed: Any = replace(optimizer, weight_decay=own, decay=target)  # pyright: ignore[reportCallIssue]
    converted = replace(recipe, optimizer=changed, groups=groups, weight_decay_schedule=curve)
    exact = Decay.CAUTIOUS not in (source, target) or not any([own, *wanted])
    why = (
        "both shrink the weights by the same fraction at every step"
        if exact
        else "both shrink the weights equally on average, but cautious decay acts on half of the coordinates only and "
        "turns the weights"
    )
    return Conversion(converted, needed, exact, why)


def _from_sgd(recipe: Recipe, optimizer: SGD, target: Decay, plain: Group) -> Conversion:
    if target is Decay.CAUTIOUS:
        raise InputError("SGD's coupled decay has no cautious counterpart: it acts on every coordinate.")
    damped = 1 - optimizer.dampening if optimizer.momentum else 1.0
    exact = optimizer.momentum == 0 or optimizer.weight_decay == 0
    why = (
        "without momentum the decay term of the gradient is the shrink: the two updates are one"
        if exact
        else "with momentum the decay acts through the buffer: the two shrink the weights equally in the long run, so "
        "norms agree to leading order in lr*weight_decay, but they are different runs"
    )
    return Conversion(None, _needed(recipe, plain, target) * damped / (1 - optimizer.momentum), exact, why)


def _needed(recipe: Recipe, group: Group, target: Decay) -> Array:
    """The shrink of each step over the target's own shape; NaN where that is 0."""
    steps = np.arange(recipe.steps)
    shape, lr = recipe.schedule.at(steps, recipe.steps), recipe.lr(steps, group)
    unit = {Decay.INDEPENDENT: shape, Decay.CORRECTED: lr * shape, Decay.CAUTIOUS: lr / 2}.get(target, lr)
    shrink = recipe.shrink(steps, group)
    return np.divide(shrink, unit, out=np.full_like(shrink, np.nan), where=unit > 0)
