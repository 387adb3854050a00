"""Finished runs as a reference for every other run of the same network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from empirics.records import Record
from theory.errors import InputError
from theory.recipe import Recipe
from theory.reference import Measured, Reference
from theory.reference import reference as fitted


def reference(records: Record | Path | str | Sequence[Record | Path | str]) -> Reference:
    """Calibrate on finished runs; `predict(recipe, reference=...)` then speaks of other runs of the same network.

    Other learning rates, weight decays, schedules and lengths (up to that of the references) of the same network, data
    and batch size, under AdamW. Two references that bracket the learning rate within a factor of four are best. How far
    off norms and angles of unseen runs then were, on a small GPT-2, is the figure `one_run_predicts_the_sweep`. Gains
    and biases follow the laws.

    Args:
        records: One or more finished runs, or their directories.

    Returns:
        The reference; `theory.serialize` writes it as JSON.

    Raises:
        InputError: If a run is not finished, has no recipe or no norms, or the runs do not go together.

    Example:
        >>> reference("nowhere")
        Traceback (most recent call last):
        theory.errors.InputError: nowhere is new: a reference must be a finished run.
    """
    given = [records] if isinstance(records, (Record, Path, str)) else list(records)
    return fitted([measured(each if isinstance(each, Record) else Record(Path(each))) for each in given])


def measured(record: Record) -> Measured:
    """The norm curves of a run's matrices and tables, with its recipe.

    Gains and biases are left out: a signal drives them, so that their norm is no sum of kicks.

    Args:
        record: The run.

    Returns:
        Recipe, steps, norms and relative updates.

    Raises:
        InputError: If it is not finished, or has no recipe or no norms.
    """
    if record.status != "finished":
        raise InputError(f"{record.name} is {record.status}: a reference must be a finished run.")
    recipe = record.recipe
    if recipe is None:
        raise InputError(f"{record.name} holds no recipe (it was trained without a prediction): train it with one.")
    norms, updates = record.pivot("norm"), record.pivot("relative_update")
    if not len(norms):
        raise InputError(f"{record.name} holds no norms: train it with rotation_every above 0.")
    first = record.pivot("norm0").iloc[0]
    matrices = [group.name for group in recipe.groups if len(group.shape) >= 2 and group.name in norms]
    names = [name for name in matrices if np.all(norms[name] > 0) and first[name] > 0]
    return Measured(
        recipe=with_norms(recipe, {name: float(first[name]) for name in names}),
        steps=norms.index.to_numpy(np.int64),
        norms={name: norms[name].to_numpy() for name in names},
        relative_updates={name: updates[name].to_numpy() for name in names},
    )


def with_norms(recipe: Recipe, norms: dict[str, float]) -> Recipe:
    """The recipe with initial norms.

    Args:
        recipe: The recipe.
        norms: ||w|| before step 0, by tensor.

    Returns:
        The recipe; tensors that are not named keep theirs.
    """
    groups = tuple(replace(group, norm0=norms.get(group.name, group.norm0)) for group in recipe.groups)
    return replace(recipe, groups=groups)
