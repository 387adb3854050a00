"""From a live model and optimizer to a recipe, and the audit table that shows what was understood."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from bridge.law_of import law_of
from empirics.probes.invariance import Defect, invariance
from empirics.tensors import TensorView, tensors
from theory.dispatch import equilibrium
from theory.equilibrium.sgd import sgd_gain
from theory.errors import InputError
from theory.optimizers import SGD, Optimizer
from theory.recipe import Group, Recipe
from theory.results import angle_of_chord
from theory.schedules import Constant, Schedule

LossFunction = Callable[[nn.Module, Any], Tensor]


def describe(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    schedule: Schedule | None = None,
    steps: int = 1,
    spec: Optimizer | None = None,
    loss_fn: LossFunction | None = None,
    batch: Any = None,
) -> Recipe:
    """Read a recipe off a live model and optimizer.

    Scale invariance is tested numerically if a loss and a batch are given, and not assumed otherwise. Learning rates
    are the groups' `initial_lr` (set by torch's schedulers) or, without one, their present `lr`; they count as peak
    rates.

    Args:
        model: Any module; it is left as it is.
        optimizer: Its optimizer: torch.optim's SGD, Adam, AdamW or Muon, or one of `empirics.scale_free`.
        schedule: Shape of the learning rate; constant if omitted.
        steps: Length of the run.
        spec: The optimizer's specification, where the live one cannot tell (decay conventions other than torch's).
        loss_fn: Scalar loss of (model, batch).
        batch: Given to `loss_fn`.

    Returns:
        The recipe: one group per tensor, fused queries, keys and values apart.

    Raises:
        InputError: If theory does not know the optimizer, or it holds none of the model's parameters.

    Example:
        >>> model = nn.Linear(4, 4)
        >>> recipe = describe(model, torch.optim.AdamW(model.parameters(), lr=1e-3), steps=100)
        >>> [group.name for group in recipe.groups], recipe.optimizer.weight_decay
        (['weight', 'bias'], 0.01)
    """
    views, where = _optimized(model, optimizer)
    defects = {} if loss_fn is None else invariance(model, loss_fn, batch, views)
    return _recipe(views, where, defects, spec, _specification(optimizer) if spec is None else spec, schedule, steps)


def _recipe(
    views: list[TensorView],
    where: dict[nn.Parameter, dict[str, Any]],
    defects: dict[str, Defect],
    spec: Optimizer | None,
    known: Optimizer,
    schedule: Schedule | None,
    steps: int,
) -> Recipe:
    groups = []
    for view in views:
        group = where[view.parameter]
        decay, lr = float(group.get("weight_decay", 0.0)), _peak(group)
        own = decay if spec is None and decay not in (0.0, known.weight_decay) else None
        # a gain in front of a bias that is still 0 passes the test at initialisation only: matrices alone are trusted
        invariant = len(view.shape) >= 2 and view.name in defects and defects[view.name].is_invariant
        groups.append(
            Group(
                name=view.name,
                shape=view.shape,
                scale_invariant="tensor" if invariant else None,
                decayed=decay > 0,
                norm0=float(torch.linalg.vector_norm(view.view(), dtype=torch.float64)),
                lr_factor=lr / known.lr if known.lr > 0 else 1.0,
                weight_decay=own,
            )
        )
    return Recipe(known, schedule or Constant(), steps, tuple(groups))


def audit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    spec: Optimizer | None = None,
    loss_fn: LossFunction | None = None,
    batch: Any = None,
) -> pd.DataFrame:
    """What acts on which parameter, tested rather than guessed.

    Args:
        model: Any module; it is left as it is.
        optimizer: Its optimizer.
        spec: As in `describe`.
        loss_fn: Scalar loss of (model, batch); without it scale invariance is "not tested".
        batch: Given to `loss_fn`.

    Returns:
        One row per tensor: tensor, shape, group (index in the optimizer, or "none"), lr, weight_decay, decayed,
        convention, scale_invariant (yes, no, not tested), radial, loss_change and gradient_change (the defects), norm
        now, and equilibrium_norm and equilibrium_angle (rad/step) at the present rates, where the law gives them.

    Raises:
        InputError: If theory does not know the optimizer, or it holds none of the model's parameters.
    """
    views, where = _optimized(model, optimizer)
    defects = {} if loss_fn is None else invariance(model, loss_fn, batch, views)
    recipe = _recipe(views, where, defects, spec, spec or _specification(optimizer), None, 1)
    index = {id(group): i for i, group in enumerate(optimizer.param_groups)}
    described = {group.name: group for group in recipe.groups}
    rows = []
    for view in tensors(model, trainable=False):
        group, defect = described.get(view.name), defects.get(view.name)
        row: dict[str, Any] = {"tensor": view.name, "shape": "x".join(map(str, view.shape)), "group": "none"}
        row |= {"lr": 0.0, "weight_decay": 0.0, "decayed": "no", "convention": "none", "scale_invariant": "not tested"}
        row |= dict.fromkeys(("radial", "loss_change", "gradient_change"), math.nan)
        row["norm"] = float(torch.linalg.vector_norm(view.view(), dtype=torch.float64))
        if group is not None:
            decay, lr = recipe.decay_of(group), recipe.optimizer.lr * group.lr_factor
            row |= {"group": str(index[id(where[view.parameter])]), "lr": lr, "weight_decay": decay}
            row |= {
                "decayed": "yes" if decay else "no",
                "convention": recipe.optimizer.decay.value if decay else "none",
            }
            row |= dict(zip(("equilibrium_norm", "equilibrium_angle"), _equilibrium(recipe, group), strict=True))
        if defect is not None:
            row |= {"scale_invariant": "yes" if defect.is_invariant else "no", "radial": defect.radial}
            row |= {"loss_change": defect.loss_change, "gradient_change": defect.gradient_change}
        rows.append(row)
    return pd.DataFrame(rows)


def _equilibrium(recipe: Recipe, group: Group) -> tuple[float, float]:
    optimizer, decay = recipe.optimizer, recipe.decay_of(group)
    lr = optimizer.lr * group.lr_factor
    if decay * lr == 0:
        return math.nan, math.nan
    if isinstance(optimizer, SGD) and group.scale_invariant is not None:
        chord = sgd_gain(lr, decay, optimizer.momentum, optimizer.dampening, optimizer.nesterov)[1]
        return math.nan, float(angle_of_chord(chord))
    try:
        settled = equilibrium(optimizer, group)
    except InputError:  # what only a measurement of the gradients would tell
        return math.nan, math.nan
    return settled.norm, settled.angle


def _optimized(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[list[TensorView], dict[nn.Parameter, dict[str, Any]]]:
    where = {p: group for group in optimizer.param_groups for p in group["params"]}
    views = [view for view in tensors(model) if view.parameter in where]
    if not views:
        raise InputError("optimizer holds none of the model's trainable parameters: it must be the model's own.")
    return views, where


def _peak(group: dict[str, Any]) -> float:
    return float(group.get("initial_lr", group["lr"]))


def _specification(optimizer: torch.optim.Optimizer) -> Optimizer:
    groups = optimizer.param_groups
    lr = max(_peak(group) for group in groups)
    decay = max(float(group.get("weight_decay", 0.0)) for group in groups)
    first = groups[0]
    for key in ("betas", "momentum", "dampening", "nesterov", "eps"):
        values = {str(group.get(key)) for group in groups}
        if len(values) > 1:
            raise InputError(
                f"{key} differs between the optimizer's groups ({', '.join(sorted(values))}): it must be one."
            )
    rates = {"lr": lr} | ({"weight_decay": decay} if "weight_decay" in first else {})
    return law_of(optimizer, first | rates)
