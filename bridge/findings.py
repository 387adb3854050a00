"""What a run directory says about its own weight decay: sentences, each with its number and the law behind it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bridge.compare import compare
from empirics.records import Record
from theory.advice import run_timescales
from theory.errors import InputError
from theory.optimizers import Decay
from theory.predict import predict
from theory.recipe import Group, Recipe

SETTLED = 3.0
"""Relaxation times after which a norm counts as settled: e^-3, 5 % of the way, is left."""
BY = 0.6
"""Part of the run by which it should be, if equilibrium is wanted."""
START = 0.1
"""Part of the run left out of averages: the warm-up."""


@dataclass(frozen=True)
class Finding:
    """One sentence about a run."""

    run: str
    """Name of the run directory."""
    what: str
    """Key of the finding: equilibrium, rotation, effective_lr or prediction."""
    sentence: str
    """What was found, in words and numbers."""
    value: float
    """The number that the sentence is about."""
    source: str
    """The law, or the measurement, it comes from."""


def findings(record: Record) -> list[Finding]:
    """Read a run: is it in equilibrium, how fast did it turn, what did decay change, was theory right.

    Args:
        record: A run directory with a stored recipe (every run that was predicted has one).

    Returns:
        The findings; those that cannot be made (no decay, nothing measured) are left out.

    Raises:
        InputError: If the directory holds no recipe.
    """
    recipe = record.recipe
    if recipe is None:
        raise InputError(f"{record.path} holds no recipe: it was trained without a prediction.")
    group = _typical(recipe)
    if group is None:
        return []
    found = [_equilibrium(record, recipe, group), _effective_lr(record, recipe, group)]
    if record.status in ("finished", "partial", "diverged"):
        found += [_rotation(record, recipe, group), _prediction(record)]
    return [finding for finding in found if finding is not None]


def _typical(recipe: Recipe) -> Group | None:
    """The decayed tensor with the median number of coordinates, scale-invariant ones first."""
    decayed = [group for group in recipe.groups if recipe.decay_of(group) > 0 and group.lr_factor > 0]
    chosen = [group for group in decayed if group.scale_invariant is not None] or decayed
    return sorted(chosen, key=lambda group: group.size)[len(chosen) // 2] if chosen else None


def _equilibrium(record: Record, recipe: Recipe, group: Group) -> Finding | None:
    kappa, relaxation = run_timescales(recipe, group)
    if not np.isfinite(relaxation):
        return None
    order = 1 / (relaxation * float(recipe.shrink(np.arange(recipe.steps), group).max()))
    settled = int(SETTLED * relaxation)
    shrink = np.cumsum(recipe.shrink(np.arange(recipe.steps), group)) * order
    reached = int(np.searchsorted(shrink, SETTLED))
    head = (
        f"Norms relax within {relaxation:,.0f} steps at the peak rate (1/({order:.3g}*lr*weight_decay)); the run has "
        f"{recipe.steps:,} steps and lr*weight_decay adds up to {kappa:.2f} over it"
    )
    if reached <= BY * recipe.steps:
        text = f"{head}: they have settled by step {reached:,}, and follow the schedule from there."
    else:
        factor = SETTLED / float(shrink[int(BY * recipe.steps) - 1])
        coefficient = recipe.decay_of(group) * factor
        how = (
            f"they settle only at step {reached:,}"
            if reached < recipe.steps
            else f"settling takes {settled:,} steps at that rate, which the run never reaches"
        )
        text = f"{head}: {how}. To settle by {BY:.0%} of the run set weight_decay >= {coefficient:.3g}."
        if recipe.optimizer.decay is Decay.COUPLED and factor > 1:
            text += " Or multiply the learning rate by the same factor."
    return Finding(record.name, "equilibrium", text, relaxation, "relaxation_time")


def _effective_lr(record: Record, recipe: Recipe, group: Group) -> Finding | None:
    """The end's effective lr over that of the same run without decay, both predicted."""
    if not recipe.optimizer.weight_decay:
        return None
    without = replace(recipe.optimizer, weight_decay=0.0)  # pyright: ignore[reportCallIssue]
    bare = replace(group, weight_decay=None)
    last = recipe.steps - 1
    rates = []
    for optimizer, own in ((recipe.optimizer, group), (without, bare)):
        prediction = predict(replace(recipe, optimizer=optimizer, groups=(own,)))
        rates.append(float(prediction.values([last])["effective_lr"][0, 0]))
    if not (np.isfinite(rates).all() and rates[1] > 0):
        return None
    ratio = rates[0] / rates[1]
    text = (
        f"At the end decay makes the effective learning rate of {group.name} {ratio:.2f} times what it would be "
        "without decay (predicted, gradients as noise)."
    )
    return Finding(record.name, "effective_lr", text, ratio, predict(replace(recipe, groups=(group,))).laws[0])


def _rotation(record: Record, recipe: Recipe, group: Group) -> Finding | None:
    try:
        angles = record.series("angle", group.name)
    except InputError:
        return None
    start = int(START * recipe.steps)
    later = angles[angles.index >= start].dropna()
    if later.empty:
        return None
    measured = float(np.sqrt(np.mean(np.square(later))))
    predicted = predict(replace(recipe, groups=(group,))).values(later.index.to_numpy())["angle"][:, 0]
    text = f"{group.name} rotates by {measured:.3g} rad/step (root mean square from step {start:,} on)"
    if np.isfinite(predicted).all():
        expected = float(np.sqrt(np.mean(np.square(predicted))))
        text += f"; predicted {expected:.3g}, {expected / measured - 1:+.0%}"
    return Finding(record.name, "rotation", text + ".", measured, "measured")


def _prediction(record: Record) -> Finding | None:
    measured = set(record.metrics()["quantity"].unique())
    try:
        table = compare(record, quantities=[name for name in ("norm", "angle") if name in measured]).table()
    except InputError:
        return None
    parts = []
    for quantity, rows in table.groupby("quantity", sort=False):
        worst = rows.loc[rows["residual"].abs().idxmax()]
        parts.append(
            f"{quantity}s within {rows['residual'].abs().median():.0%} in the median, "
            f"{worst['residual']:+.0%} at worst ({worst['tensor']})"
        )
    value = float(table["residual"].abs().median())
    return Finding(record.name, "prediction", f"Theory got {'; '.join(parts)}.", value, "compare")
