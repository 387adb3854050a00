"""What the explorer shows: a recipe's answers as numbers, tables and text, independent of any app framework."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from functools import cached_property
from typing import Any

import pandas as pd

from theory.advice import run_timescales
from theory.errors import InputError
from theory.precision.check import precision_check
from theory.predict import predict
from theory.prediction import Prediction
from theory.recipe import Group, Recipe
from theory.recommend import advise

SHOWN = ("norm", "angle", "effective_lr")
"""Quantities that are drawn."""


@dataclass(frozen=True)
class Answer:
    """What theory says about a recipe."""

    recipe: Recipe
    """With one tensor of each kind."""
    alike: dict[str, int]
    """How many tensors of the architecture each stands for."""

    @cached_property
    def prediction(self) -> Prediction:
        """Of all kinds."""
        return predict(self.recipe)

    @property
    def kinds(self) -> list[str]:
        """Names of the tensors that are predicted, decayed ones first."""
        recipe = self.recipe
        return [g.name for g in sorted(recipe.groups, key=lambda group: recipe.decay_of(group) == 0)]

    def curves(self, name: str) -> pd.DataFrame:
        """One tensor over the run; it alone is predicted, which is what makes a slider quick.

        Args:
            name: One of `kinds`.

        Returns:
            Indexed by step; for each of `SHOWN` columns <quantity>, <quantity>_low and <quantity>_high.
        """
        only = tuple(group for group in self.recipe.groups if group.name == name)
        table = predict(replace(self.recipe, groups=only)).table()
        wide = table[table["quantity"].isin(SHOWN)].pivot(
            index="step", columns="quantity", values=["value", "low", "high"]
        )
        parts = {"value": "", "low": "_low", "high": "_high"}
        return pd.DataFrame({f"{q}{end}": wide[kind][q] for q in SHOWN for kind, end in parts.items()})

    def end(self) -> pd.DataFrame:
        """All kinds of tensors at the end of the run.

        Returns:
            Columns tensor, alike, norm, rms, angle (mrad/step), effective_lr, timescale (steps that the norm needs to
            relax at the peak rate).
        """
        recipe = self.recipe
        at = self.prediction.at(recipe.steps - 1)
        groups = {group.name: group for group in recipe.groups}
        rows = [
            {
                "tensor": name,
                "alike": self.alike[name],
                "norm": at.loc[name, "norm"],
                "rms": at.loc[name, "rms"],
                "angle (mrad/step)": 1e3 * float(at.loc[name, "angle"]),
                "effective_lr": at.loc[name, "effective_lr"],
                "timescale (steps)": run_timescales(recipe, groups[name])[1],
            }
            for name in self.kinds
        ]
        return pd.DataFrame(rows)

    def sentences(self) -> list[str]:
        """Timescale and warnings, in words."""
        recipe, found = self.recipe, []
        decayed = [group for group in recipe.groups if recipe.decay_of(group) > 0]
        if decayed:
            kappa, relaxation = run_timescales(recipe, decayed[0])
            found.append(
                f"Norms relax within {relaxation:,.0f} steps at the peak rate; the run has {recipe.steps:,}, and "
                f"lr*weight_decay adds up to {kappa:.2g} over it."
            )
        return found + list(self.prediction.warnings)


def answer(recipe: Recipe) -> Answer:
    """Sort a recipe's tensors into kinds; each is predicted when it is asked for.

    Args:
        recipe: The recipe; tensors that differ in nothing but their name are predicted once.

    Returns:
        The answer.

    Example:
        >>> from theory.optimizers import AdamW
        >>> from theory.shapes import gpt2
        >>> answer(Recipe(AdamW(lr=1e-3), steps=10, groups=gpt2("124m"))).alike["transformer.h.0.attn.c_attn.weight"]
        12
    """
    kinds: dict[Group, list[str]] = defaultdict(list)
    for group in recipe.groups:
        kinds[replace(group, name="any")].append(group.name)
    chosen = tuple(replace(kind, name=names[0]) for kind, names in kinds.items())
    return Answer(replace(recipe, groups=chosen), {names[0]: len(names) for names in kinds.values()})


def precision_table(recipe: Recipe, weight_dtype: str, rounding: str) -> pd.DataFrame:
    """What storing the weights in low precision will do.

    Args:
        recipe: The recipe, such as that of an `Answer`, with one tensor of each kind.
        weight_dtype: bfloat16, float16 or float32.
        rounding: nearest, fused or stochastic.

    Returns:
        Columns what, tensor, share, from step, severity, remedy; empty if all is well.

    Raises:
        InputError: If the format or the rounding is unknown.
    """
    found = precision_check(recipe, weight_dtype, rounding)
    columns = ["what", "tensor", "share", "from step", "severity", "remedy"]
    rows = [
        (f.what.replace("_", " "), f.group or "all", f.fraction_affected, f.first_step, f.severity, f.remedy)
        for f in found
    ]
    return pd.DataFrame(rows, columns=columns)


def advice_table(recipe: Recipe, batch_size: float, *, batch: float = 1.0, steps: float = 1.0) -> pd.DataFrame:
    """What to set if batch or length change, by every rule that applies.

    Args:
        recipe: The tuned setting.
        batch_size: Its examples per step.
        batch: Multiple of the batch size that is wanted.
        steps: Multiple of the number of steps that is wanted.

    Returns:
        Columns rule, lr, weight_decay, why, source, limits; empty if nothing changes or nothing is decayed.

    Raises:
        InputError: If a number is out of range.
    """
    optimizer = recipe.optimizer
    columns = ["rule", "lr", "weight_decay", "why", "source", "limits"]
    if (batch == 1 and steps == 1) or optimizer.weight_decay == 0:
        return pd.DataFrame(columns=columns)
    have = {"lr": optimizer.lr, "weight_decay": optimizer.weight_decay, "batch_size": batch_size, "steps": recipe.steps}
    want = {"batch_size": batch_size * batch} if batch != 1 else {}
    want |= {"steps": recipe.steps * steps} if steps != 1 else {}
    return pd.DataFrame([[getattr(advice, name) for name in columns] for advice in advise(have, want)], columns=columns)


def as_python(recipe: Recipe, groups: str | None = None) -> str:
    """A recipe as Python source that makes it.

    Args:
        recipe: The recipe.
        groups: Source of its groups, such as 'dl.shapes.gpt2("124m")'; spelled out if omitted.

    Returns:
        Source that sets `recipe`, and predicts it.

    Raises:
        InputError: If the recipe holds something that has no source.

    Example:
        >>> from theory.optimizers import AdamW
        >>> print(as_python(Recipe(AdamW(lr=1e-3), steps=10), "()").splitlines()[2])
        recipe = dl.Recipe(
    """
    lines = ["import decaylab as dl", "", "recipe = dl.Recipe("]
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        if value != field.default:
            lines.append(f"    {field.name}={groups if field.name == 'groups' and groups else _source(value)},")
    return "\n".join([*lines, ")", "prediction = dl.predict(recipe)", ""])


def _source(value: Any) -> str:
    if isinstance(value, Enum):
        return f"dl.{type(value).__name__}.{value.name}"
    if is_dataclass(value) and not isinstance(value, type):
        inside = [(f.name, getattr(value, f.name)) for f in fields(value) if getattr(value, f.name) != f.default]
        return f"dl.{type(value).__name__}({', '.join(f'{name}={_source(x)}' for name, x in inside)})"
    if isinstance(value, tuple):
        return f"({', '.join(map(_source, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, (int, float, str)) or value is None:
        return repr(value)
    raise InputError(f"{value!r} has no Python source: export the recipe as JSON.")
