"""What the laws say about a watched run: one or several predictions, as one table, with the reasons for every gap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bridge.watch_recipe import Member, Track, recipes
from theory.optimizers import SGD
from theory.predict import predict
from theory.prediction import Prediction
from theory.recipe import Recipe

Array = NDArray[np.float64]

MOST = 400
"""Steps of a table of what was seen; `compare` interpolates between them."""


@dataclass(frozen=True)
class Forecast:
    """Predictions of a watched run, on its own count of steps."""

    predictions: tuple[Prediction, ...]
    """One for every set of groups whose rates are multiples of one another."""
    reasons: Mapping[str, str]
    """Why a tensor is measured, not predicted; by tensor."""
    start: int = 0
    """The run's step at which they begin."""

    @property
    def recipe(self) -> Recipe:
        """The recipe of the first prediction."""
        return self.predictions[0].recipe

    def table(self, steps: Sequence[int] | NDArray[np.int64] | None = None) -> pd.DataFrame:
        """The predictions as a tidy table.

        Args:
            steps: Steps of the run to report; about 200 spread over it if omitted.

        Returns:
            Columns step, group, quantity, value, low, high, unit.
        """
        at = None if steps is None else np.asarray(steps) - self.start
        tables = [prediction.table(None if at is None else at.tolist()) for prediction in self.predictions]
        table = pd.concat(tables, ignore_index=True)
        table["step"] += self.start
        return table

    def series(self, steps: Sequence[int]) -> dict[str, dict[str, Array]]:
        """Values at given steps.

        Args:
            steps: Steps of the run.

        Returns:
            {quantity: {tensor: values, shape (m,)}}; tensors whose value cannot be known are left out.
        """
        found: dict[str, dict[str, Array]] = {}
        for prediction in self.predictions:
            names = [group.name for group in prediction.recipe.groups]
            for quantity, values in prediction.values(np.asarray(steps) - self.start).items():
                known = {name: values[:, i] for i, name in enumerate(names) if np.isfinite(values[:, i]).all()}
                found.setdefault(quantity, {}).update(known)
        return found


def forecast(
    tracks: Sequence[tuple[Track, Sequence[Member]]], steps: int, *, start: int, reasons: Mapping[str, str]
) -> Forecast:
    """Predict from the tracks of all groups.

    Args:
        tracks: Each group that has a law, with its tensors.
        steps: Number of steps.
        start: The run's step at which they begin.
        reasons: Why other tensors have none.

    Returns:
        The forecast; without a single law it holds reasons only.
    """
    found, unfit = recipes(tracks, steps)
    missing: dict[str, str] = {}
    for recipe in found:
        if isinstance(recipe.optimizer, SGD):
            missing |= {group.name: _sgd_reason(group.scale_invariant is not None) for group in recipe.groups}
    return Forecast(tuple(predict(recipe) for recipe in found), {**reasons, **unfit, **missing}, start)


def _sgd_reason(invariant: bool) -> str:
    if invariant:
        return "under SGD only the rotation at stationary norm is known before the data"
    return "SGD's laws are for tensors that passed the test of scale invariance (give loss_fn and batch)"


def spread(steps: Sequence[int]) -> list[int]:
    """At most `MOST` of some steps, evenly, the last always.

    Args:
        steps: Increasing.

    Returns:
        A subset.

    Example:
        >>> spread([0, 10, 20])
        [0, 10, 20]
    """
    chosen = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), MOST)).astype(int))
    return [steps[i] for i in chosen.tolist()]
