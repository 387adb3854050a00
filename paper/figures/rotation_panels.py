"""The drawing of `rotation`: a pair of panels for every matrix of a GPT-2, and for a ResNet."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from bridge.run_checks import why_not_judged
from paper import style
from paper.figures.language_model import BAND, COLUMNS, LINES

QUANTITIES = ("norm", "angle")


def draw(table: pd.DataFrame) -> Figure:
    """Draw norms and angles of the GPT-2's block matrices under decay, and of the ResNet's layers.

    Args:
        table: The figure's table.

    Returns:
        A pair of panels for every matrix, and a pair for the ResNet.
    """
    figure = Figure(figsize=(style.TWO_COLUMN, 6.4), layout="constrained")
    grid = figure.add_gridspec(5, 6, height_ratios=(1, 1, 1, 1, 1.25))
    text, images = (table[table["kind"] == kind] for kind in ("decayed", "invariant"))
    for column, (end, role) in enumerate((e, r) for e, r in COLUMNS.items() if r != "QKV"):
        for layer in (0, 1):
            rows = text[text["tensor"].str.endswith(end) & text["tensor"].str.contains(f".h.{layer}.", regex=False)]
            for half, quantity in enumerate(QUANTITIES):
                axes = figure.add_subplot(grid[2 * layer + half, column])
                matrix(axes, rows[rows["quantity"] == quantity])
                dress(axes, quantity)
                if half == 0:
                    mark = "" if len(rows) and why_not_judged(rows["tensor"].iloc[0]) is None else " †"
                    axes.set_title(f"{role}, layer {layer}{mark}")
                if column == 0:
                    axes.set_ylabel("norm" if half == 0 else "angle (rad)")
    for half, quantity in enumerate(reversed(QUANTITIES)):
        axes = figure.add_subplot(grid[4, 3 * half : 3 * half + 3])
        rows = images[(images["quantity"] == quantity) & (images["seed"] == images["seed"].min())]
        for _, layer in rows.groupby("tensor", sort=False):
            matrix(axes, layer, thin=True, band=False)
        dress(axes, quantity)
        axes.set(title=f"ResNet, every layer, one seed: {quantity}", xlabel="step")
    band: dict[str, Any] = dict(BAND)
    handles: list[Any] = [
        Line2D([], [], **look_of("measured")),
        (Patch(**band), Line2D([], [], **look_of("predicted"))),
        Line2D([], [], **look_of("calibrated")),
    ]
    figure.legend(
        handles,
        ["measured, three seeds", "predicted before the run, and its band", "calibrated; † shown, not judged"],
        loc="outside upper center",
        ncols=3,
    )
    return figure


def look_of(what: str, **more: Any) -> dict[str, Any]:
    """How a line is drawn, without the mark at its start, and with anything more."""
    look: dict[str, Any] = dict(LINES[what])
    return {key: value for key, value in look.items() if key not in ("marker", "ms", "markevery")} | more


def matrix(axes: Axes, rows: pd.DataFrame, *, thin: bool = False, band: bool = True) -> None:
    """Draw one tensor: every seed's measurement, and the predictions for the first.

    Args:
        axes: Where.
        rows: Of one tensor and quantity.
        thin: Many are drawn on one another.
        band: Whether to shade the prediction's band.
    """
    first = rows[rows["seed"] == rows["seed"].min()].pivot(index="step", columns="what", values="value").sort_index()
    if first.empty:
        return
    for _, seed in rows[rows["what"] == "measured"].groupby("seed"):
        look = look_of("measured", lw=0.6, alpha=0.5 if thin else 1.0)
        axes.plot(seed["step"], seed["value"], **look)
    if band:
        shade: dict[str, Any] = dict(BAND)
        edges = first[["low", "high"]].dropna()
        axes.fill_between(edges.index, edges["low"], edges["high"], **shade)
    for what in ("predicted", "calibrated"):
        if what in first:
            known = first[what].dropna()
            axes.plot(known.index, known, **look_of(what, lw=0.8 if thin else 1.2))


def dress(axes: Axes, quantity: str) -> None:
    """Ticks and limits of one panel.

    Args:
        axes: The panel.
        quantity: norm or angle.
    """
    axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 3, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1000:g}k" if x >= 1000 else f"{x:g}"))
    axes.set_xlim(left=0)
    if quantity == "norm":
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_locator(MaxNLocator(3))
    else:
        axes.set_yscale("log")
        axes.yaxis.set_minor_formatter(NullFormatter())
