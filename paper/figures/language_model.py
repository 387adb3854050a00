"""Every matrix of a language model through a whole run: predicted before it, calibrated on its first part, measured."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from paper import style
from paper.curves import rows_of, windowed
from theory.errors import require

WINDOWS = 100
"""Measured curves are RMS values over so many windows, each one per cent of the run."""
QUANTITIES = ("norm", "angle")

COLUMNS = {
    ".q": "Q",
    ".k": "K",
    ".v": "V",
    "attn.c_attn.weight": "QKV",
    "attn.c_proj.weight": "O",
    "mlp.c_fc.weight": "fc",
    "mlp.c_proj.weight": "proj",
}
"""Column of a block matrix by the end of its name, from left to right."""
EMBEDDINGS = {"wte.weight": "token emb.", "wpe.weight": "position emb."}

LINES = {
    "measured": {"color": style.INK, "lw": 0.9, "zorder": 3},
    "predicted": {"color": style.BLUE, "lw": 1.1, "ls": (0, (3.2, 1.4)), "zorder": 4},
    "calibrated": {
        "color": style.VERMILLION,
        "lw": 1.5,
        "ls": (0, (0.9, 0.9)),
        "dash_capstyle": "butt",
        "zorder": 5,
        "marker": "o",
        "ms": 2.6,
        "markevery": [0],
    },
}
BAND = {"color": style.BLUE, "alpha": 0.16, "lw": 0, "zorder": 2}


@dataclass(frozen=True)
class Panel:
    """Where a matrix is drawn."""

    name: str
    """Name of the tensor."""
    title: str
    """Its title."""
    row: int
    """Row of the grid: the layer."""
    column: int
    """Column of the grid."""
    layer: int | None = None
    """Its layer; None for what belongs to none."""


def panels(groups: Sequence[str]) -> tuple[Panel, ...]:
    """Lay matrices out: a row a layer, a column a role, the rest (embeddings) in columns of its own on the right.

    Args:
        groups: Names of tensors.

    Returns:
        Their places, in the order of `groups`.

    Example:
        >>> [(p.title, p.row, p.column) for p in panels(["transformer.wte.weight", "transformer.h.0.mlp.c_fc.weight"])]
        [('token emb.', 0, 1), ('fc', 0, 0)]
    """
    parsed = {name: _role(name) for name in groups}
    layers = sorted({place[0] for place in parsed.values() if place})
    roles = [role for role in COLUMNS.values() if any(place and place[1] == role for place in parsed.values())]
    others = [name for name in groups if parsed[name] is None]
    rows = max(len(layers), -(-len(others) // 7), 1)
    out = []
    for name in groups:
        place = parsed[name]
        if place:
            out.append(Panel(name, place[1], layers.index(place[0]), roles.index(place[1]), place[0]))
        else:
            column, row = divmod(others.index(name), rows)
            title = next((text for end, text in EMBEDDINGS.items() if name.endswith(end)), None)
            out.append(Panel(name, title or name.removesuffix(".weight"), row, len(roles) + column))
    return tuple(out)


def _role(name: str) -> tuple[int, str] | None:
    layer = re.search(r"\.h\.(\d+)\.", name)
    role = next((role for end, role in COLUMNS.items() if name.endswith(end)), None)
    return (int(layer[1]), role) if layer and role else None


def draw(
    measured: pd.DataFrame,
    predicted: pd.DataFrame,
    calibrated: pd.DataFrame | None,
    *,
    groups: Sequence[str],
    calibrated_from: int,
    judged: Collection[str],
) -> Figure:
    """Draw norm and angle of every matrix, predicted and measured.

    Args:
        measured: Columns step, tensor, quantity, value: norm after the step, angle (rad/step) of single steps.
        predicted: The prediction issued before step 0, as `Prediction.table` gives it.
        calibrated: The prediction issued at `calibrated_from`, likewise; None if there is none.
        groups: Names of the matrices to show.
        calibrated_from: Step from which the calibrated prediction speaks.
        judged: Names of those that count; the others are marked.

    Returns:
        The figure: for every matrix a panel with the norm and, below it, one with the angle (axes labelled "norm name"
        and "angle name"; lines "measured", "predicted" and "calibrated").

    Raises:
        InputError: If there is nothing to show, or a matrix was not measured or not predicted.
    """
    require(len(groups) > 0, "groups", groups, "the names of at least one matrix")
    for frame, key, what in ((measured, "tensor", "measured"), (predicted, "group", "predicted")):
        known = set(frame[key])
        for name in groups:
            require(name in known, "groups", name, f"among the {len(known)} tensors that were {what}")
    width = (float(measured["step"].max()) + 1) / WINDOWS
    with style.style():
        figure, grid = _frame(panels(groups), judged)
        for name in groups:
            for axes, quantity in zip(grid[name], QUANTITIES, strict=True):
                _curves(axes, name, quantity, measured, predicted, width)
                if calibrated is not None:
                    rows = rows_of(calibrated, name, quantity)
                    rows = rows[rows["step"] >= calibrated_from]
                    axes.plot(rows["step"], rows["value"], label="calibrated", **LINES["calibrated"])
        _limits(grid, last=int(measured["step"].max()) + 1)
        _legend(figure, None if calibrated is None else calibrated_from, marked=not set(groups) <= set(judged))
    return figure


def _frame(places: Sequence[Panel], judged: Collection[str]) -> tuple[Figure, dict[str, tuple[Axes, Axes]]]:
    """A figure with a pair of empty axes for every matrix."""
    rows, columns = (1 + max(getattr(place, side) for place in places) for side in ("row", "column"))
    height = 0.72 + 1.6 * rows
    figure = Figure(figsize=(style.TWO_COLUMN, height))
    top, bottom = 1 - 0.46 / height, 0.36 / height
    cells = figure.add_gridspec(rows, columns, left=0.088, right=0.993, top=top, bottom=bottom, wspace=0.3, hspace=0.17)
    grid: dict[str, tuple[Axes, Axes]] = {}
    for place in places:
        pair = cells[place.row, place.column].subgridspec(2, 1, hspace=0.14)
        upper, lower = (figure.add_subplot(pair[i], label=f"{q} {place.name}") for i, q in enumerate(QUANTITIES))
        grid[place.name] = (upper, lower)
        if place.name in judged:
            upper.set_title(place.title)
        else:
            upper.set_title(f"{place.title} †", style="italic", color=style.QUIET)
        lowest = not any(other.column == place.column and other.row > place.row for other in places)
        upper.tick_params(labelbottom=False)
        lower.tick_params(labelbottom=lowest, labelleft=place.column == 0)
        if place.column == 0:
            upper.set_ylabel("norm")
            lower.set_ylabel("angle\n(rad/step)")
            figure.align_ylabels((upper, lower))
            if place.layer is not None:
                centre = (upper.get_position().y1 + lower.get_position().y0) / 2
                figure.text(0.004, centre, f"layer {place.layer}", rotation=90, va="center", weight="bold")
    figure.text(0.54, 0.02 / height, "step", ha="center", va="bottom")
    return figure, grid


def _curves(
    axes: Axes, name: str, quantity: str, measured: pd.DataFrame, predicted: pd.DataFrame, width: float
) -> None:
    rows = rows_of(predicted, name, quantity)
    axes.fill_between(rows["step"], rows["low"], rows["high"], **BAND)
    axes.plot(*windowed(measured, name, quantity, width), label="measured", **LINES["measured"])
    axes.plot(rows["step"], rows["value"], label="predicted", **LINES["predicted"])


def _limits(grid: dict[str, tuple[Axes, Axes]], last: int) -> None:
    """Norms from zero, each on its own scale; all angles on one logarithmic scale."""
    angles = np.concatenate([np.asarray(line.get_ydata()) for _, axes in grid.values() for line in axes.lines])
    angles = angles[np.isfinite(angles) & (angles > 0)]
    for upper, lower in grid.values():
        top = max(np.nanmax(np.asarray(line.get_ydata()), initial=0.0) for line in upper.lines)
        upper.set_ylim(0, 1.15 * top if top > 0 else 1)
        upper.yaxis.set_major_locator(MaxNLocator(2, steps=[1, 2, 5, 10]))
        lower.set_yscale("log")
        if len(angles):
            lower.set_ylim(angles.min() / 1.3, angles.max() * 1.3)
        lower.yaxis.set_major_locator(LogLocator(numticks=4))
        lower.yaxis.set_minor_formatter(NullFormatter())
        for axes in (upper, lower):
            axes.set_xlim(0, last)
            axes.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 3, 5, 10]))
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1000:g}k" if x >= 1000 else f"{x:g}"))


def _legend(figure: Figure, start: int | None, *, marked: bool) -> None:
    prior = (Patch(**BAND), Line2D([], [], **LINES["predicted"]))
    entries = [
        (Line2D([], [], **LINES["measured"]), f"measured (RMS over {100 / WINDOWS:g} % of the run)"),
        (prior, "predicted before the run, and its band"),
    ]
    if start is not None:
        entries.append((Line2D([], [], **LINES["calibrated"]), f"calibrated at step {start:,}"))
    if marked:
        entries.append((Line2D([], [], ls="none"), "† shown, not judged"))
    handles, labels = zip(*entries, strict=True)
    figure.legend(handles, labels, loc="upper center", ncols=len(entries), columnspacing=1.6, borderaxespad=0.2)
