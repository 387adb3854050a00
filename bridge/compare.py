"""Prediction times record: residuals per tensor and quantity over the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from empirics.records import Record
from theory.errors import InputError, require
from theory.prediction import Prediction

Array = NDArray[np.float64]

COMPARED = ("norm", "angle", "relative_update")
"""Quantities that are both predicted and measured at every recorded step."""


@dataclass(frozen=True)
class Comparison:
    """Where a run went and where it was predicted to go; residual = predicted/measured - 1."""

    run: str
    """Name of the run directory."""
    preregistered: bool
    """Whether the prediction was written before step 0 and is unchanged."""
    windows: pd.DataFrame
    """Columns tensor, quantity, start, stop (steps), predicted, measured (RMS over the window), low, high, residual."""

    def table(self, start: int = 0, stop: int | None = None) -> pd.DataFrame:
        """Residuals summarised per tensor and quantity.

        Args:
            start: First step that counts.
            stop: Step after the last that counts; the end of the run if omitted.

        Returns:
            Columns tensor, quantity, predicted, measured (RMS over the steps that count), residual, and over the
            windows median, p95 and worst of its absolute value, and in_band, the share of windows inside low..high.

        Raises:
            InputError: If no window lies between start and stop.
        """
        last = int(self.windows["stop"].max()) if stop is None else stop
        chosen = self.windows[(self.windows["start"] >= start) & (self.windows["stop"] <= last)]
        require(not chosen.empty, "start, stop", (start, stop), "a range of steps that holds at least one window")
        rows = []
        for (tensor, quantity), part in chosen.groupby(["tensor", "quantity"], sort=False):
            predicted, measured = _rms(part["predicted"].to_numpy()), _rms(part["measured"].to_numpy())
            size = part["residual"].abs()
            inside = (part["measured"] >= part["low"]) & (part["measured"] <= part["high"])
            rows.append(
                {
                    "tensor": tensor,
                    "quantity": quantity,
                    "predicted": predicted,
                    "measured": measured,
                    "residual": predicted / measured - 1,
                    "median": size.median(),
                    "p95": size.quantile(0.95),
                    "worst": size.max(),
                    "in_band": inside.mean(),
                }
            )
        return pd.DataFrame(rows)

    def residual(self, quantity: str, *, start: int = 0, stop: int | None = None) -> pd.Series:
        """Signed residual of RMS values over a range of steps.

        Args:
            quantity: One of `COMPARED`.
            start: First step that counts.
            stop: Step after the last that counts.

        Returns:
            predicted/measured - 1, indexed by tensor.
        """
        table = self.table(start, stop)
        return table[table["quantity"] == quantity].set_index("tensor")["residual"]

    def worst(self, quantity: str, *, start: int = 0, stop: int | None = None) -> pd.Series:
        """Largest absolute residual of any window in a range of steps.

        Args:
            quantity: One of `COMPARED`.
            start: First step that counts.
            stop: Step after the last that counts.

        Returns:
            Largest |predicted/measured - 1|, indexed by tensor.
        """
        table = self.table(start, stop)
        return table[table["quantity"] == quantity].set_index("tensor")["worst"]


def compare(
    record: Record,
    prediction: Prediction | pd.DataFrame | None = None,
    *,
    windows: int = 60,
    quantities: Sequence[str] = COMPARED,
) -> Comparison:
    """Compare a run with a prediction, tensor by tensor, over the whole run.

    Args:
        record: The run.
        prediction: What to compare with; the table stored in the run directory if omitted.
        windows: Number of equal windows over which root mean squares are taken: a single step's angle scatters.
        quantities: Which quantities.

    Returns:
        The comparison; tensors or quantities that were not predicted (NaN) or not measured are left out.

    Raises:
        InputError: If there is no prediction, or nothing in common.
    """
    stored = prediction is None
    table = record.prediction() if prediction is None else prediction
    if table is None:
        raise InputError(f"{record.name} holds no prediction: pass one, or train it with one.")
    if isinstance(table, Prediction):
        table = table.table()
    first, frames = int(table["step"].min()), []
    for quantity in quantities:
        measured = record.pivot(quantity).loc[first:]
        rows = table[(table["quantity"] == quantity) & table["group"].isin(measured.columns)]
        for tensor, part in rows.groupby("group", sort=False):
            if not np.isfinite(part["value"].to_numpy()).all():
                continue
            frames.append(_windows(str(tensor), quantity, part, measured[tensor].dropna(), windows))
    if not frames:
        raise InputError(f"{record.name} and the prediction have no tensor and quantity in common.")
    return Comparison(record.name, stored and record.preregistered, pd.concat(frames, ignore_index=True))


def _windows(tensor: str, quantity: str, predicted: pd.DataFrame, measured: pd.Series, count: int) -> pd.DataFrame:
    steps = measured.index.to_numpy()
    at = predicted["step"].to_numpy()
    columns = {name: _interpolate(steps, at, predicted[name].to_numpy()) for name in ("value", "low", "high")}
    edges = np.unique(np.linspace(0, len(steps), min(count, len(steps)) + 1).astype(int))
    rows = []
    for i, j in pairwise(edges.tolist()):
        value, low, high = (_rms(columns[name][i:j]) for name in ("value", "low", "high"))
        seen = _rms(measured.to_numpy()[i:j])
        residual = value / seen - 1 if seen > 0 else np.nan
        rows.append((tensor, quantity, int(steps[i]), int(steps[j - 1]) + 1, value, seen, low, high, residual))
    names = ["tensor", "quantity", "start", "stop", "predicted", "measured", "low", "high", "residual"]
    return pd.DataFrame(rows, columns=names)


def _interpolate(steps: NDArray[np.int64], at: NDArray[np.int64], value: Array) -> Array:
    if np.all(value > 0):
        return np.exp(np.interp(steps, at, np.log(value)))
    return np.interp(steps, at, value)


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
