"""From a recipe to the run without decay that follows the same directions."""

from __future__ import annotations

import numpy as np

from theory.equivalence.adamw import adamw_twin
from theory.equivalence.lion import lion_twin
from theory.equivalence.run import TwinRun
from theory.equivalence.sgd import sgd_exponential_schedule
from theory.errors import InputError, require
from theory.optimizers import SGD, Adam, Decay, Hyperball, Lion, Muon, ScaleFree
from theory.recipe import Group, Recipe
from theory.results import Array


def equivalent_schedule(recipe: Recipe, *, group: str | None = None) -> TwinRun:
    """The run without weight decay that is the same run: equal losses and directions at every step.

    Setting: one scale-invariant tensor (whole or row by row); SGD with or without momentum and dampening; AdamW, Lion,
    Signum, normalised momentum and Muon without Nesterov, in any convention that shrinks all coordinates alike; any
    schedule of rates, decay and betas. Formulas: `sgd_exponential_schedule`, `adamw_exponential_lr`,
    `lion_exponential_schedule` (for optimizers with one momentum both betas of the twin are its momentum). The twin
    holds for the tensors it was made for; every other parameter must be trained as before, decay included, or frozen.

    Source: derived here; SGD at constant rate Li & Arora, arXiv 1910.07454. Exact (directions 1e-8, norms 1e-9).

    Args:
        recipe: The decayed run. Without groups its own learning rate and decay are used.
        group: Name of the group to make the twin for. By default all scale-invariant groups of the recipe, which must
            then share learning rate and decay.

    Returns:
        Learning rate (and betas, eps) of each step, and ||w||/||W|| after it.

    Raises:
        InputError: If the optimizer has no twin (Nesterov, Adam with coupled L2, cautious decay), the group is not
            scale-invariant, or the groups need different twins.

    Example:
        >>> from theory.optimizers import AdamW
        >>> from theory.schedules import Constant
        >>> recipe = Recipe(AdamW(lr=0.01, weight_decay=1.0), Constant(), steps=100)
        >>> round(float(equivalent_schedule(recipe).norm_ratio[-1]), 6)
        0.366032
    """
    require(isinstance(recipe, Recipe), "recipe", recipe, "a Recipe")
    chosen = _choose(recipe, group)
    optimizer, steps = recipe.optimizer, np.arange(recipe.steps)
    lrs, decay = recipe.lr(steps, chosen), recipe.decay_of(chosen)
    if isinstance(optimizer, SGD):
        if optimizer.nesterov and decay > 0:
            raise InputError(
                "nesterov = True has no twin: the recursion has three coefficients, and matching them with a momentum "
                "and a learning rate forces the decay to be 0; plain momentum has one."
            )
        return sgd_exponential_schedule(lrs, decay, optimizer.momentum, optimizer.dampening)
    if decay > 0 and optimizer.decay is Decay.CAUTIOUS:
        raise InputError(
            "cautious decay has no twin: it shrinks only some coordinates and so turns the weights; decoupled, "
            "independent, corrected and scheduled decay have one."
        )
    if isinstance(optimizer, ScaleFree | Hyperball):
        return _scale_free_twin(optimizer, lrs, recipe.shrink(steps, chosen))
    if isinstance(optimizer, Adam):
        if decay > 0:
            raise InputError(
                "Adam with coupled weight_decay has no twin: the decay term enters the second moment and is divided by "
                "it, coordinate by coordinate, which no common learning rate undoes; AdamW has one."
            )
        return adamw_twin(lrs, np.zeros_like(lrs), recipe.betas(), optimizer.eps)
    return adamw_twin(lrs, recipe.shrink(steps, chosen), recipe.betas(), optimizer.eps)


def _scale_free_twin(optimizer: ScaleFree | Hyperball, lrs: Array, shrink: Array) -> TwinRun:
    """Optimizers that forget the gradients' size: only the ratio of past to present in the memory has to match."""
    if isinstance(optimizer, Hyperball):
        return lion_twin(lrs, np.zeros_like(lrs), (optimizer.momentum, optimizer.momentum))
    if isinstance(optimizer, Muon) and optimizer.nesterov and shrink.any():
        raise InputError(
            "Muon with nesterov = True has no twin: the gradient is mixed in twice, and no one momentum matches both "
            "weights; without Nesterov it has one."
        )
    betas = optimizer.betas if isinstance(optimizer, Lion) else (optimizer.momentum, optimizer.momentum)
    return lion_twin(lrs, shrink, betas)


def _choose(recipe: Recipe, name: str | None) -> Group:
    """The group, or one that stands for all that are scale-invariant."""
    if name is not None:
        named = [group for group in recipe.groups if group.name == name]
        require(bool(named), "group", name, f"one of {', '.join(group.name for group in recipe.groups) or 'none'}")
        if named[0].scale_invariant is None:
            raise InputError(f"group {name!r} has no twin: it must be scale-invariant, by tensor or by row.")
        return named[0]
    if not recipe.groups:
        return Group("all", (1,), scale_invariant="tensor")
    invariant = [group for group in recipe.groups if group.scale_invariant is not None]
    if not invariant:
        raise InputError(
            "no group of the recipe has a twin: at least one must be scale-invariant, by tensor or by row."
        )
    kinds = {(group.lr_factor, recipe.decay_of(group)): group for group in invariant}
    if len(kinds) > 1:
        first, second = list(kinds.values())[:2]
        raise InputError(
            f"groups {first.name!r} and {second.name!r} differ in learning rate or decay and need different twins: "
            "group must name one."
        )
    return invariant[0]
