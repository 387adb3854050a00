"""Several runs of one recipe: residuals with intervals over seeds, and whether the intervals lie in the band."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from bridge.compare import COMPARED, READING, Comparison, compare
from empirics.records import Record
from theory.errors import InputError, require
from theory.recipe import Recipe

SET = ("model", "data", "batch_size", "grad_clip", "precision")
"""Parts of a configuration that belong to the recipe in the wider sense."""
CONFIDENCE = 0.95
"""Of the intervals over seeds."""


@dataclass(frozen=True)
class Seeds:
    """Runs that differ in nothing but their seed."""

    comparisons: tuple[Comparison, ...]
    """One for each run."""

    def table(self, start: int = 0, stop: int | None = None) -> pd.DataFrame:
        """Residuals over seeds, per tensor and quantity.

        Args:
            start: First step that counts.
            stop: Step after the last that counts; the end of the runs if omitted.

        Returns:
            Columns tensor, quantity, seeds, predicted, measured, residual (means over runs), low and high, the
            interval of the mean residual (Student's t, `CONFIDENCE`; nan for one run), lowest and highest, the
            residuals that the band allows, and verdict: "in band" or "outside" if the whole interval is, else
            "undecided".
        """
        columns = ["predicted", "measured", "residual", "lowest", "highest"]
        tables = pd.concat([comparison.table(start, stop) for comparison in self.comparisons], ignore_index=True)
        rows = []
        for (tensor, quantity), part in tables.groupby(["tensor", "quantity"], sort=False):
            n, mean = len(part), {name: float(part[name].mean()) for name in columns}
            half = np.nan
            if n > 1:
                half = float(student.ppf((1 + CONFIDENCE) / 2, n - 1) * part["residual"].std(ddof=1) / np.sqrt(n))
            low, high = (mean["residual"] - half, mean["residual"] + half) if n > 1 else (mean["residual"],) * 2
            allowed = mean["lowest"] - READING, mean["highest"] + READING
            if allowed[0] <= low and high <= allowed[1]:
                verdict = "in band"
            else:
                verdict = "outside" if high < allowed[0] or low > allowed[1] else "undecided"
            interval = {"low": mean["residual"] - half, "high": mean["residual"] + half}
            row = {"tensor": tensor, "quantity": quantity, "seeds": n} | mean | interval | {"verdict": verdict}
            rows.append(row)
        order = ["tensor", "quantity", "seeds", "predicted", "measured", "residual", "low", "high", "lowest", "highest"]
        return pd.DataFrame(rows)[[*order, "verdict"]]


def across_seeds(records: Sequence[Record], *, quantities: Sequence[str] = COMPARED) -> Seeds:
    """Compare several runs of one recipe with the prediction stored in each.

    Args:
        records: Runs that differ in their seed only.
        quantities: Which quantities.

    Returns:
        The comparisons, together.

    Raises:
        InputError: If there is none, one holds no prediction, or their recipes differ.
    """
    require(len(records) > 0, "records", list(records), "at least one run")
    for other in records[1:]:
        found = differences(records[0], other)
        if found:
            raise InputError(f"{records[0].name} and {other.name} are runs of different recipes: {'; '.join(found)}.")
    return Seeds(tuple(compare(record, quantities=quantities) for record in records))


def differences(first: Record, second: Record) -> list[str]:
    """How the recipes of two runs differ, in what was set: not in norms and scale invariance, which were measured.

    Args:
        first: A run with a recipe.
        second: Another.

    Returns:
        Sentences such as "optimizer.weight_decay is 0.1 and 0"; none if only the seed differs. At most three.

    Raises:
        InputError: If one holds no recipe.
    """
    one, two = (_flat(_what_was_set(record)) for record in (first, second))
    keys = [key for key in dict.fromkeys([*one, *two]) if one.get(key) != two.get(key)]
    return [f"{key} is {one.get(key, 'absent')} and {two.get(key, 'absent')}" for key in keys[:3]]


def by_recipe(records: Sequence[Record]) -> list[list[Record]]:
    """Runs sorted into those of one recipe.

    Args:
        records: Runs with recipes.

    Returns:
        Lists of runs, in order.
    """
    sets: list[list[Record]] = []
    for record in records:
        alike = next((runs for runs in sets if not differences(runs[0], record)), None)
        if alike is None:
            sets.append([record])
        else:
            alike.append(record)
    return sets


def _what_was_set(record: Record) -> Mapping[str, Any]:
    recipe = record.recipe
    if recipe is None:
        raise InputError(f"{record.name} holds no recipe: it was trained without a prediction.")
    groups = tuple(replace(group, norm0=None, scale_invariant=None) for group in recipe.groups)
    tree = json.loads(Recipe.to_json(replace(recipe, groups=groups)))
    tree["groups"] = {group.pop("name"): group for group in tree["groups"]}
    config = _flat({key: x for key, x in record.description.get("config", {}).items() if key in SET})
    return tree | {key: value for key, value in config.items() if not key.endswith("seed")}


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix[:-1]: tree}
    rows: dict[str, Any] = {}
    for key, value in tree.items():
        rows |= _flat(value, f"{prefix}{key}.")
    return rows
