"""Prediction times record: residuals per tensor and quantity over the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from empirics.records import Record
from theory.errors import InputError, require
from theory.prediction import Prediction

Array = NDArray[np.float64]

COMPARED = ("norm", "angle", "relative_update")
"""Quantities that are both predicted and measured at every recorded step."""
INSIDE = 0.95
"""Share of windows that must lie in the prediction's band for the verdict "in band"."""
READING = 5e-3
"""Relative error of reading a stored prediction between its steps: a band is never narrower than this."""


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
            windows median, p95 and worst of its absolute value; lowest and highest, the residuals that the prediction's
            band allows; in_band, the share of windows inside it; verdict: "in band" if that is `INSIDE` or more, else
            "above" or "below", where most of the others were measured.

        Raises:
            InputError: If no window lies between start and stop.
        """
        last = int(self.windows["stop"].max()) if stop is None else stop
        chosen = self.windows[(self.windows["start"] >= start) & (self.windows["stop"] <= last)]
        require(not chosen.empty, "start, stop", (start, stop), "a range of steps that holds at least one window")
        squares = pd.DataFrame({name: np.square(chosen[name]) for name in ("predicted", "measured", "low", "high")})
        size = chosen["residual"].abs()
        above = chosen["measured"] > chosen["high"] * (1 + READING)
        below = chosen["measured"] < chosen["low"] * (1 - READING)
        by = [chosen["tensor"], chosen["quantity"]]
        rms = np.sqrt(squares.groupby(by, sort=False).mean())
        sizes, outside = (frame.groupby(by, sort=False) for frame in (size, pd.DataFrame({"a": above, "b": below})))
        shares = outside.mean()
        share = 1 - shares.sum(axis=1)
        table = rms[["predicted", "measured"]].assign(
            residual=rms["predicted"] / rms["measured"] - 1,
            median=sizes.median(),
            p95=sizes.quantile(0.95),
            worst=sizes.max(),
            lowest=(rms["predicted"] / rms["high"].where(rms["high"] > 0) - 1).fillna(0.0),
            highest=(rms["predicted"] / rms["low"].where(rms["low"] > 0) - 1).fillna(np.inf),
            in_band=share,
            verdict=np.where(share >= INSIDE, "in band", np.where(shares["a"] >= shares["b"], "above", "below")),
        )
        return table.reset_index()

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
        edges = {key: rows.pivot(index="step", columns="group", values=key) for key in ("value", "low", "high")}
        known = [name for name in rows["group"].unique() if np.isfinite(edges["value"][name]).all()]
        gaps = measured[known].isna()
        whole = [name for name in known if not gaps[name].any()]
        for names in ([whole] if whole else []) + [[name] for name in known if name not in whole]:
            seen = measured[names].dropna()
            if len(seen):
                frames.append(_windows(quantity, {key: wide[names] for key, wide in edges.items()}, seen, windows))
    if not frames:
        raise InputError(f"{record.name} and the prediction have no tensor and quantity in common.")
    return Comparison(record.name, stored and record.preregistered, pd.concat(frames, ignore_index=True))


def _windows(quantity: str, predicted: dict[str, pd.DataFrame], measured: pd.DataFrame, count: int) -> pd.DataFrame:
    """Root mean squares over equal windows, of tensors that were measured at the same steps."""
    steps = measured.index.to_numpy()
    edges = np.unique(np.linspace(0, len(steps), min(count, len(steps)) + 1).astype(int))
    value, low, high = (_rms(_interpolate(steps, wide), edges) for wide in predicted.values())
    seen = _rms(measured.to_numpy(), edges)
    with np.errstate(divide="ignore", invalid="ignore"):
        residual = np.where(seen > 0, value / seen - 1, np.nan)
    n = len(measured.columns)
    return pd.DataFrame(
        {
            "tensor": np.repeat(measured.columns.to_numpy(dtype=object), len(edges) - 1),
            "quantity": quantity,
            "start": np.tile(steps[edges[:-1]], n),
            "stop": np.tile(steps[edges[1:] - 1] + 1, n),
            "predicted": value.T.ravel(),
            "measured": seen.T.ravel(),
            "low": low.T.ravel(),
            "high": high.T.ravel(),
            "residual": residual.T.ravel(),
        }
    )


def _interpolate(steps: NDArray[np.int64], wide: pd.DataFrame) -> Array:
    """A stored prediction at other steps, shape (steps, tensors): the logarithm where there is one."""
    at, value = wide.index.to_numpy(), wide.to_numpy(np.float64)
    log = (value > 0).all(axis=0)
    knots = np.where(log, np.log(np.where(log, value, 1.0)), value)
    out = np.stack([np.interp(steps, at, column) for column in knots.T], axis=1)
    return np.where(log, np.exp(np.where(log, out, 0.0)), out)


def _rms(values: Array, edges: NDArray[np.int64]) -> Array:
    return np.sqrt(np.add.reduceat(np.square(values), edges[:-1], axis=0) / np.diff(edges)[:, None])
