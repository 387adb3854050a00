"""decaylab predict: norms, rotations and effective learning rates before the run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from decaylab.output import print_json, print_lines, print_table
from theory import shapes
from theory.errors import InputError
from theory.optimizers import SGD, Adam, AdamW, Hyperball, Lion, Muon, NormalizedMomentum, Optimizer, Signum
from theory.predict import predict
from theory.prediction import Prediction
from theory.recipe import Group, Recipe
from theory.reference import Measured, Reference, reference
from theory.schedules import Constant, Cosine, InverseSqrt, Linear, Schedule, WarmupStableDecay

MODELS = (*(f"gpt2-{size}" for size in shapes.GPT2_SIZES), "resnet18")


@dataclass(frozen=True)
class Predict:
    """Predict norm, rotation and effective learning rate of every tensor, before a single step is run."""

    optimizer: Literal["adamw", "adam", "sgd", "lion", "signum", "normalized", "muon", "hyperball"] = "adamw"
    """Optimizer, with torch.optim's conventions."""
    lr: float = 6e-4
    """Peak learning rate."""
    weight_decay: float = 0.1
    """Weight decay coefficient, as torch.optim takes it."""
    betas: tuple[float, float] | None = None
    """Betas of Adam ((0.9, 0.95) if omitted) and Lion ((0.9, 0.99))."""
    momentum: float | None = None
    """Momentum of SGD (0 if omitted), Muon (0.95), and signum, normalized and hyperball (0.9)."""
    dampening: float = 0.0
    """SGD's dampening."""
    nesterov: bool = False
    """SGD with Nesterov momentum (Muon always has it)."""
    schedule: Literal["constant", "linear", "cosine", "invsqrt", "wsd"] = "cosine"
    """Shape of the learning rate after the warm-up."""
    warmup: int = 0
    """Steps of linear warm-up."""
    final: float = 0.0
    """Last learning rate over the peak (linear, cosine, wsd)."""
    decay: float = 0.2
    """Length of the last part of wsd: a fraction of the run below 1, steps from 1 on."""
    steps: int = 50_000
    """Length of the run."""
    model: str = "gpt2-124m"
    """Architecture: gpt2-124m, gpt2-350m, gpt2-774m, gpt2-1558m or resnet18."""
    recipe: Path | None = None
    """Read the whole recipe from this JSON file instead (`Recipe.to_json` writes it)."""
    reference: tuple[Path, ...] = ()
    """Finished runs of the same network (run directories): calibrate on them, and take their tensors, not those of
    `model`. Two whose learning rates bracket the run's, within a factor of four, are best."""
    at: tuple[int, ...] = ()
    """Steps to report; a few spread over the run if omitted."""
    out: Path | None = None
    """Write the tidy table there (.csv or .parquet)."""
    plot: Path | None = None
    """Draw norms, angles and the learning rate to this file (.pdf, .png or .svg)."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        """Predict and print.

        Returns:
            Exit code 0.

        Raises:
            InputError: If an argument is not allowed or a file cannot be read or written.
        """
        prediction = predict(self.to_recipe(), reference=self._reference() if self.reference else None)
        steps = self.at or default_steps(prediction)
        table = prediction.table(steps)
        if self.out is not None:
            save(prediction.table(), self.out)
        if self.plot is not None:
            prediction.plot().savefig(self.plot)
        if self.json:
            recipe = prediction.recipe
            head = {"recipe": json.loads(recipe.to_json()), "hash": recipe.hash, "laws": prediction.laws}
            print_json(head | {"warnings": prediction.warnings, "table": table})
            return 0
        print_table(summary(prediction, table), title=title(prediction))
        print_lines(prediction.warnings, bullet="! ")
        return 0

    def to_recipe(self) -> Recipe:
        """The recipe that the arguments describe.

        Returns:
            The recipe.

        Raises:
            InputError: If they describe none.
        """
        if self.recipe is not None:
            try:
                return Recipe.from_json(self.recipe.read_text())
            except OSError as error:
                raise InputError(f"recipe = {str(self.recipe)!r} cannot be read: {error.strerror}.") from None
        groups = self._measured()[0].recipe.groups if self.reference else groups_of(self.model)
        return Recipe(self._optimizer(), self._schedule(), self.steps, groups)

    def _measured(self) -> list[Measured]:
        from bridge.reference import measured
        from empirics.records import Record

        return [measured(Record(path)) for path in self.reference]

    def _reference(self) -> Reference:
        return reference(self._measured())

    def _optimizer(self) -> Optimizer:
        momentum = {} if self.momentum is None else {"momentum": self.momentum}
        match self.optimizer:
            case "sgd":
                own = {"dampening": self.dampening, "nesterov": self.nesterov}
                return SGD(self.lr, weight_decay=self.weight_decay, **momentum, **own)
            case "adamw" | "adam":
                kind = AdamW if self.optimizer == "adamw" else Adam
                return kind(self.lr, self.betas or (0.9, 0.95), weight_decay=self.weight_decay)
            case "lion":
                return Lion(self.lr, self.betas or (0.9, 0.99), self.weight_decay)
            case "hyperball":
                return Hyperball(self.lr, **momentum)
            case "signum" | "normalized" | "muon":
                kinds = {"signum": Signum, "normalized": NormalizedMomentum, "muon": Muon}
                return kinds[self.optimizer](self.lr, weight_decay=self.weight_decay, **momentum)

    def _schedule(self) -> Schedule:
        match self.schedule:
            case "constant":
                return Constant(self.warmup)
            case "linear":
                return Linear(self.warmup, self.final)
            case "cosine":
                return Cosine(self.warmup, self.final)
            case "invsqrt":
                return InverseSqrt(self.warmup)
            case "wsd":
                return WarmupStableDecay(self.warmup, self.decay if self.decay < 1 else int(self.decay), self.final)


def groups_of(model: str) -> tuple[Group, ...]:
    """Groups of a known architecture.

    Args:
        model: One of `MODELS`.

    Returns:
        Its groups.

    Raises:
        InputError: If it is not known.
    """
    if model == "resnet18":
        return shapes.resnet18()
    if model not in MODELS:
        raise InputError(f"model = {model!r} is not allowed: it must be one of {', '.join(MODELS)}.")
    return shapes.gpt2(model.removeprefix("gpt2-"))


def default_steps(prediction: Prediction) -> tuple[int, ...]:
    """End of the warm-up, quarters and end of the run.

    Args:
        prediction: The prediction.

    Returns:
        Steps.
    """
    steps, warmup = prediction.recipe.steps, prediction.recipe.schedule.warmup
    candidates = {min(max(warmup - 1, 0), steps - 1), steps // 4, steps // 2, 3 * steps // 4, steps - 1}
    return tuple(sorted(candidates))


def summary(prediction: Prediction, table: pd.DataFrame) -> pd.DataFrame:
    """Tensors that are predicted alike in one row: RMS weight and angle at the reported steps.

    Args:
        prediction: The prediction.
        table: Its table at the reported steps.

    Returns:
        Columns tensors, like (the first of them), and for every step rms and mrad/step.
    """
    wide = table[table["quantity"].isin(["rms", "angle"])].pivot(
        index="group", columns=["step", "quantity"], values="value"
    )
    wide = wide.reindex([group.name for group in prediction.recipe.groups])
    rounded = wide.map(lambda value: float(f"{value:.3g}") if np.isfinite(value) else value)
    rows = []
    for _, part in rounded.fillna(-1.0).groupby(list(rounded.columns), sort=False):
        first = wide.loc[part.index[0]]
        row = {"tensors": len(part), "like": part.index[0]}
        for step in sorted({column[0] for column in wide.columns}):
            row |= {f"rms @{step}": first[step, "rms"], f"mrad/step @{step}": 1e3 * first[step, "angle"]}
        rows.append(row)
    return pd.DataFrame(rows)


def title(prediction: Prediction) -> str:
    """One line about the recipe.

    Args:
        prediction: The prediction.

    Returns:
        Optimizer, schedule, steps, hash.
    """
    recipe = prediction.recipe
    return (
        f"{type(recipe.optimizer).__name__} lr={recipe.optimizer.lr:g} weight_decay={recipe.optimizer.weight_decay:g} "
        f"({recipe.optimizer.decay.value}), {type(recipe.schedule).__name__}, "
        f"{recipe.steps:,} steps, recipe {recipe.hash[:8]}"
    )


def save(table: pd.DataFrame, path: Path) -> None:
    """Write a table.

    Args:
        table: The table.
        path: .csv or .parquet.

    Raises:
        InputError: If the ending is another one.
    """
    if path.suffix == ".csv":
        table.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        raise InputError(f"out = {str(path)!r} is not allowed: it must end in .csv or .parquet.")
