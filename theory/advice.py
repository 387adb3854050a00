"""What a user should know about a recipe before running it."""

from __future__ import annotations

import numpy as np

from theory.optimizers import SGD, Adam, AdamW, Hyperball, Muon
from theory.probe import TensorProbe
from theory.recipe import Group, Recipe


def run_timescales(recipe: Recipe, group: Group) -> tuple[float, float]:
    """How far decay gets within the run, and how long equilibrium takes at the peak rate.

    Args:
        recipe: The recipe.
        group: A decayed group.

    Returns:
        Sum over the run of the long-run shrink per step (kappa, dimensionless), and the relaxation time of ||w||^2 at
        the peak rate (steps; infinite without decay).
    """
    shrink = recipe.shrink(np.arange(recipe.steps), group)
    optimizer, speed, order = recipe.optimizer, 1.0, 2.0
    if isinstance(optimizer, SGD):
        kappa = 1 - optimizer.dampening if optimizer.momentum else 1.0
        speed, order = kappa / (1 - optimizer.momentum), 4.0 if group.scale_invariant else 2.0
    peak = float(shrink.max(initial=0.0)) * speed
    return float(shrink.sum()) * speed, 1 / (order * peak) if peak > 0 else float("inf")


def warnings_for(recipe: Recipe, measured: dict[str, TensorProbe]) -> tuple[str, ...]:
    """Sentences about what will not work as hoped.

    Args:
        recipe: The recipe.
        measured: Probes by group name.

    Returns:
        The warnings, most important first.

    Example:
        >>> from theory.schedules import Constant
        >>> recipe = Recipe(AdamW(lr=1e-3, weight_decay=1e-3), Constant(), 100, (Group("w", (8, 8), norm0=1.0),))
        >>> warnings_for(recipe, {})[0][:48]
        'Weight decay is too small to matter in this run:'
    """
    optimizer, found = recipe.optimizer, []
    decayed = [group for group in recipe.groups if recipe.decay_of(group) > 0 and group.lr_factor > 0]
    if decayed and optimizer.lr > 0 and not (isinstance(optimizer, Adam) and optimizer.weight_decay > 0):
        kinds = {(recipe.decay_of(g), g.lr_factor, g.scale_invariant is None): g for g in decayed}.values()
        kappa, relaxation = max((run_timescales(recipe, group) for group in kinds), key=lambda pair: pair[0])
        if kappa < 0.1:
            found.append(
                f"Weight decay is too small to matter in this run: it shrinks the weights by {1 - np.exp(-kappa):.1%} "
                "in all "
                f"(lr*weight_decay summed over the steps is {kappa:.2g}; 1 or more would matter)."
            )
        elif relaxation > recipe.steps:
            found.append(
                f"The relaxation time of the norms at the peak rate, {relaxation:,.0f} steps, is longer than the run "
                f"({recipe.steps:,} steps): norms are still set by initialisation, equilibrium is not reached."
            )
        elif kappa < 1:
            found.append(
                f"lr*weight_decay summed over the run is {kappa:.2g}, below 1: norms are still partly set by "
                "initialisation."
            )
        last = recipe.shrink(np.array([recipe.steps - 1]), decayed[0])[0]
        peak = float(recipe.shrink(np.arange(recipe.steps), decayed[0]).max())
        if peak > 0 and last < 0.01 * peak and kappa >= 0.1:
            found.append("The schedule ends near zero, and decay with it: in the last steps norms stay where they are.")
    if isinstance(optimizer, SGD) and any(g.name not in measured or measured[g.name].c2 is None for g in recipe.groups):
        found.append(
            "Under SGD the norms depend on the gradients' size, which only data can tell: without a probe (c2) only "
            "the rotation "
            "at stationary norm is predicted, for decayed scale-invariant tensors."
        )
    if (
        isinstance(optimizer, Adam)
        and optimizer.weight_decay > 0
        and any(g.name not in measured for g in recipe.groups)
    ):
        found.append(
            "Adam with coupled decay divides the decay by the gradients' size: without a probe (c2) nothing is "
            "predicted."
        )
    if isinstance(optimizer, (Adam, AdamW)) and 2 * (1 - optimizer.betas[1]) > 0.3:
        found.append(
            f"betas[1] = {optimizer.betas[1]} is below 0.85: the second moment is so noisy that the correction for "
            "it "
            "(first order in 1-beta2) is not accurate."
        )
    if not decayed and not isinstance(optimizer, (SGD, Adam, Hyperball)):
        found.append(
            "Nothing is decayed: norms grow for as long as the learning rate lasts and the angle falls as they do."
        )
    refused = [group.name for group in recipe.groups if isinstance(optimizer, Muon) and len(group.shape) != 2]
    if refused:
        found.append(
            f"Muon takes matrices only: {len(refused)} tensor(s) ({refused[0]}, ...) need another optimizer and are "
            "not predicted."
        )
    missing = [group.name for group in recipe.groups if group.norm0 is None and group.name not in measured]
    if missing and not isinstance(optimizer, SGD):
        found.append(
            f"The initial norm of {len(missing)} tensor(s) ({missing[0]}, ...) is unknown: decayed ones start at "
            "equilibrium, "
            "the others are not predicted."
        )
    return tuple(found)
