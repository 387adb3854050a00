"""Curves with seed bands, and what quantities are called on axes: one table for all figures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from paper import style
from paper.curves import Array

LABELS = {
    "test_error": "test error (%)",
    "train_error": "training error (%)",
    "train_loss": "training loss (nats)",
    "jacobian_fro": "Jacobian norm (logits)",
    "jacobian_parameters": "Jacobian norm, raw weights",
    "jacobian_inputs": "Jacobian norm, inputs",
    "product": "lr·wd",
    "lr": "learning rate",
    "wd": "weight decay",
    "train": "training images",
}
"""Axis labels."""
PERCENT = ("test_error", "train_error")
"""Quantities that are drawn in per cent."""

LOOKS: tuple[dict[str, Any], ...] = (
    {"color": style.BLUE, "ls": "-", "marker": "o"},
    {"color": style.VERMILLION, "ls": (0, (4, 1.5)), "marker": "s"},
    {"color": style.GREEN, "ls": (0, (1, 1)), "marker": "^"},
    {"color": style.ORANGE, "ls": (0, (4, 1.2, 1, 1.2)), "marker": "D"},
    {"color": style.PURPLE, "ls": (0, (6, 1.2, 1, 1.2, 1, 1.2)), "marker": "v"},
)
"""Colour, dashes and marker go together, so that curves stay apart in grey."""


def seeds_wide(frame: pd.DataFrame, quantity: str, *, x: str = "step") -> pd.DataFrame:
    """One quantity with a column a seed.

    Args:
        frame: Columns seed, quantity, value and `x`.
        quantity: Its name.
        x: Column that becomes the index.

    Returns:
        Values, in per cent where they are drawn so, indexed by `x`; rows that some seed lacks are dropped.
    """
    rows = frame[frame["quantity"] == quantity]
    wide = rows.pivot_table(index=x, columns="seed", values="value").dropna()
    return 100 * wide if quantity.removesuffix("_ema") in PERCENT else wide


def band(axes: Axes, frame: pd.DataFrame, quantity: str, look: dict[str, Any], *, x: str = "step", **line: Any) -> None:
    """Draw the mean over seeds as a line and their range as a band.

    Args:
        axes: Where.
        frame: Columns seed, quantity, value and `x`.
        quantity: What to draw.
        look: Of `LOOKS`; its marker is left out unless given in `line`.
        x: Column on the horizontal axis.
        **line: More properties of the line.
    """
    wide = seeds_wide(frame, quantity, x=x)
    if wide.empty:
        return
    at, values = wide.index.to_numpy(np.float64), wide.to_numpy(np.float64)
    properties = {key: value for key, value in look.items() if key != "marker"} | line
    axes.fill_between(at, values.min(axis=1), values.max(axis=1), color=look["color"], alpha=0.18, lw=0, zorder=2)
    axes.plot(at, values.mean(axis=1), zorder=3, **properties)


def final(frame: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """The last value of a quantity in every run.

    Args:
        frame: A figure's table.
        quantity: The quantity.

    Returns:
        Rows of the table, one a run; runs that diverged have none.
    """
    broken = frame.loc[frame["quantity"] == "diverged", "run"]
    rows = frame[(frame["quantity"] == quantity) & ~frame["run"].isin(broken)]
    return rows.sort_values("step").groupby("run", sort=False).tail(1)


def by_seed(rows: pd.DataFrame) -> pd.Series:
    """Values indexed by seed, in order.

    Args:
        rows: One row a seed.

    Returns:
        The values.
    """
    return rows.set_index("seed")["value"].sort_index()


def paired(first: pd.DataFrame, second: pd.DataFrame) -> Array:
    """Differences of two runs with equal seeds.

    Args:
        first: One row a seed.
        second: One row a seed.

    Returns:
        first - second for every seed that both have, in order of seeds.
    """
    return (by_seed(first) - by_seed(second)).dropna().to_numpy(np.float64)


def log_ticks(axes: Axes) -> None:
    """A logarithmic vertical axis with few, plainly written ticks, whatever its range.

    Args:
        axes: Where; its data are drawn already.
    """
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 50 else (1, 3)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def handle(look: dict[str, Any], *, marker: bool = False) -> Line2D:
    """A legend entry.

    Args:
        look: Of `LOOKS`.
        marker: Whether to show the marker.

    Returns:
        The line.
    """
    return Line2D([], [], **(look if marker else {**look, "marker": ""}), ms=3.5)
