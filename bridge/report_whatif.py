"""What another learning rate or weight decay would have done: predictions on a grid, made beforehand by the theory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bridge.report_data import pack
from empirics.records import Record
from theory.errors import InputError
from theory.invariance import rescaled_hyperparameters
from theory.optimizers import SGD, Adam, AdamW, Decay
from theory.predict import predict
from theory.probe import Probe, TensorProbe
from theory.recipe import Recipe

Array = NDArray[np.float64]

FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Multiples of the learning rate, and of the weight decay."""
POINTS = 48
"""Steps at which a predicted curve is kept."""
QUANTITIES = ("norm", "angle", "effective_lr")
"""What is predicted."""


@dataclass(frozen=True)
class Grid:
    """Predictions for every pair of factors."""

    steps: NDArray[np.int64]
    """Steps, shape (m,)."""
    values: dict[str, Array]
    """For each quantity an array of shape (lr factors, decay factors, tensors, m); nan where unknown or not allowed."""
    probe: Probe | None
    """What was measured and taken for granted: gradient sizes under SGD."""

    def packed(self) -> dict[str, Any]:
        """As `run.js` reads it: curves in the order lr factor, decay factor, tensor."""
        count = len(self.steps)
        curves = {name: pack(value.reshape(-1, count)) for name, value in self.values.items()}
        return {"factors": list(FACTORS), "steps": self.steps.tolist(), "curves": curves}


def changed(recipe: Recipe, lr: float, weight_decay: float) -> Recipe:
    """The recipe at another rate and decay.

    Args:
        recipe: The recipe.
        lr: Multiple of the learning rate.
        weight_decay: Multiple of the decay, the groups' own included.

    Returns:
        The recipe.

    Raises:
        InputError: If their product is too large for the optimizer.
    """
    optimizer = replace(recipe.optimizer, lr=recipe.optimizer.lr * lr)
    if recipe.optimizer.weight_decay:
        optimizer = replace(optimizer, weight_decay=recipe.optimizer.weight_decay * weight_decay)  # pyright: ignore
    own = [None if g.weight_decay is None else g.weight_decay * weight_decay for g in recipe.groups]
    groups = tuple(replace(group, weight_decay=x) for group, x in zip(recipe.groups, own, strict=True))
    return replace(recipe, optimizer=optimizer, groups=groups)


def what_if(recipe: Recipe, probe: Probe | None = None, *, factors: Sequence[float] = FACTORS) -> Grid:
    """Predict the run at every pair of factors.

    Cells that differ by nothing but a change of scale are predicted together, tensors without decay once for each
    learning rate.

    Args:
        recipe: The run's recipe.
        probe: What only the run could tell, from `gradient_sizes`; it is assumed to stay.
        factors: Multiples.

    Returns:
        The grid.
    """
    steps = np.unique(np.concatenate([np.geomspace(1, recipe.steps, 16), np.linspace(1, recipe.steps, POINTS - 16)]))
    at = np.unique(steps.astype(np.int64)) - 1
    decayed = np.array([recipe.decay_of(group) > 0 for group in recipe.groups])
    shape = (len(factors), len(factors), len(recipe.groups), len(at))
    values = {name: np.full(shape, np.nan) for name in QUANTITIES}
    for chosen in (decayed, ~decayed):
        if not chosen.any():
            continue
        index, jobs = np.flatnonzero(chosen), defaultdict(list)
        for i, lr in enumerate(factors):
            for j, decay in enumerate(factors if chosen is decayed else factors[:1]):
                jobs[_base(recipe, lr, decay if chosen is decayed else 1 / lr)].append((i, j, lr))
        for base, cells in jobs.items():
            for (i, j), found in _at(recipe, probe, base, cells, index.tolist(), at).items():
                for name, value in values.items():
                    value[i, j, index] = found[name]
        if chosen is not decayed:
            for value in values.values():
                value[:, 1:, index] = value[:, :1, index]
    return Grid(at, values, probe)


def _base(recipe: Recipe, lr: float, decay: float) -> tuple[float, float]:
    """The setting from which a cell follows by a change of scale (`rescaled_hyperparameters`): for AdamW, at lr = 1.

    A run with lr*s and decay/s, started from s times the norm, takes the same directions; so cells with one product
    lr*decay are tensors of other initial norms in one prediction.
    """
    optimizer = recipe.optimizer
    if not isinstance(optimizer, AdamW) or optimizer.decay is Decay.INDEPENDENT:
        return lr, decay
    undone = rescaled_hyperparameters("adamw", lr, decay, optimizer.eps, 1 / lr)
    return undone.lr, undone.weight_decay


def gradient_sizes(record: Record, recipe: Recipe) -> Probe | None:
    """Under coupled decay the gradients' size sets the norms: its mean over the run, for scale-invariant tensors.

    Args:
        record: The run.
        recipe: Its recipe.

    Returns:
        A probe with c2, from a tenth of the run on; None if the optimizer needs none or nothing was measured.
    """
    if not isinstance(recipe.optimizer, (SGD, Adam)):
        return None
    try:
        sizes = np.square(record.pivot("norm") * record.pivot("grad_norm")).loc[recipe.steps // 10 :].mean()
    except InputError:
        return None
    invariant = [group.name for group in recipe.groups if group.scale_invariant is not None]
    found = {name: float(sizes[name]) for name in invariant if name in sizes and sizes[name] > 0}
    return Probe(tensors={name: TensorProbe(c2=size) for name, size in found.items()}) if found else None


def _at(
    recipe: Recipe,
    probe: Probe | None,
    base: tuple[float, float],
    cells: Sequence[tuple[int, int, float]],
    chosen: Sequence[int],
    at: NDArray[np.int64],
) -> dict[tuple[int, int], dict[str, Array]]:
    """Predict the cells that follow from one setting; none if the optimizer does not bear it."""
    scales = {(i, j): lr / base[0] for i, j, lr in cells}
    groups, measured = [], {}
    for k, scale in enumerate(scales.values()):
        for group in (recipe.groups[i] for i in chosen):
            norm0 = None if group.norm0 is None else group.norm0 / scale
            groups.append(replace(group, name=f"{k}:{group.name}", norm0=norm0))
            if probe is not None and group.name in probe.tensors:
                measured[groups[-1].name] = probe.tensors[group.name]
    try:
        other = changed(replace(recipe, groups=tuple(groups)), *base)
    except InputError:  # lr * weight_decay beyond what the optimizer bears
        return {}
    found, n = predict(other, Probe(tensors=measured) if measured else None).values(at), len(chosen)
    out = {}
    for k, (cell, scale) in enumerate(scales.items()):
        own = {name: found[name][:, k * n : (k + 1) * n].T for name in QUANTITIES}
        out[cell] = own | {"norm": own["norm"] * scale}
    return out
