"""A demonstration as a figure: predicted lines over measured dots, errors below with the bar shaded."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from paper import style
from paper.laws.demonstration import Array, Demonstration, Pair

COLOURS = (style.BLUE, style.VERMILLION, style.GREEN, style.PURPLE, style.ORANGE, style.SKY)
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (2, 1)), (0, (6, 2, 1, 2, 1, 2)))
EXACT = 1e-4
"""Bars below which errors are drawn by their size, on a logarithmic axis."""
FLOOR = 1e-17
"""Errors of less are drawn there: below rounding."""


def draw(demonstration: Demonstration) -> Figure:
    """Draw a demonstration.

    Args:
        demonstration: What to draw.

    Returns:
        The figure: for every quantity axes labelled by it, and axes labelled "error quantity" below.
    """
    quantities = list(dict.fromkeys(pair.quantity for pair in demonstration.pairs))
    names = list(dict.fromkeys(pair.name for pair in demonstration.pairs))
    width = {1: 3.6, 2: 5.6}.get(len(quantities), style.TWO_COLUMN)
    legend = math.ceil(len(names) / _columns(names, width)) if names != [""] else 0
    height = 2.75 + 0.16 * legend
    with style.style():
        figure = Figure(figsize=(width, height))
        cells = figure.add_gridspec(
            2,
            len(quantities),
            height_ratios=(2, 1),
            left=0.52 / width,
            right=1 - 0.1 / width,
            bottom=0.38 / height,
            top=1 - (0.26 + 0.16 * legend) / height,
            wspace=0.62 * len(quantities) / width * 1.25,
            hspace=0.12,
        )
        for column, quantity in enumerate(quantities):
            upper = figure.add_subplot(cells[0, column], label=quantity)
            lower = figure.add_subplot(cells[1, column], label=f"error {quantity}", sharex=upper)
            pairs = [pair for pair in demonstration.pairs if pair.quantity == quantity]
            _values(upper, demonstration, pairs, names)
            _errors(lower, demonstration, pairs, names)
            figure.align_ylabels((upper, lower))
        _legend(figure, names, width, height)
    return figure


def _columns(names: list[str], width: float) -> int:
    longest = max(map(len, names))
    return max(1, min(len(names), int(width / (0.36 + 0.062 * longest))))


def _values(axes: Axes, demonstration: Demonstration, pairs: list[Pair], names: list[str]) -> None:
    for pair in pairs:
        look = names.index(pair.name) % len(COLOURS)
        axes.plot(demonstration.x, pair.predicted, color=COLOURS[look], ls=DASHES[look], lw=1.1, zorder=2)
        axes.plot(demonstration.x, pair.measured, ls="", color=style.INK, zorder=3, **_dots(look))
    axes.set_ylabel(pairs[0].quantity, fontsize=7.5)
    axes.tick_params(labelbottom=False)
    if demonstration.log_x:
        axes.set_xscale("log")
    values = np.concatenate([np.append(pair.measured, pair.predicted) for pair in pairs])
    if demonstration.log_y and np.all(values > 0) and values.max() > 2 * values.min():
        axes.set_yscale("log")
        if values.max() / values.min() < 30:
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif np.abs(values).max() < EXACT**2:  # a prediction of zero, met to rounding
        axes.set_ylim(-1e-8, 1e-8)
        axes.yaxis.set_major_locator(MaxNLocator(3))


def _dots(look: int) -> dict[str, Any]:
    return {"marker": MARKERS[look], "ms": 3.2, "mfc": "white", "mew": 0.8, "mec": COLOURS[look]}


def _missed(look: int) -> dict[str, Any]:
    """Points outside their bar: filled and crossed out."""
    return {"ls": "", "marker": "x", "ms": 6, "mew": 1.2, "mec": style.INK, "label": f"missed {look}", "zorder": 5}


def _errors(axes: Axes, demonstration: Demonstration, pairs: list[Pair], names: list[str]) -> None:
    exact = max(pair.bar for pair in pairs) < EXACT
    mixed = min(pair.bar for pair in pairs) < EXACT
    scale = 1.0 if exact or mixed else 100.0
    top = 0.0
    for pair in pairs:
        look = names.index(pair.name) % len(COLOURS)
        size, spread = scale * pair.error, pair.error_stderr
        if exact or mixed:
            axes.plot(demonstration.x, np.maximum(np.abs(size), FLOOR), ls="", **_dots(look))
        else:
            axes.errorbar(
                demonstration.x,
                size,
                None if spread is None else scale * spread,
                ls="",
                ecolor=COLOURS[look],
                elinewidth=0.7,
                **_dots(look),
            )
            top = max(top, _reach(size, None if spread is None else scale * spread))
        missed = np.abs(pair.error) > pair.bar
        if missed.any():
            axes.plot(demonstration.x[missed], (np.abs(size) if mixed else size)[missed], **_missed(look))
    bars = sorted({pair.bar for pair in pairs})
    for bar in bars:
        low = FLOOR / 3 if exact or mixed else -scale * bar
        axes.axhspan(low, scale * bar, color=style.QUIET, alpha=0.32 / len(bars), lw=0, zorder=0)
    absolute = all(pair.absolute for pair in pairs)
    if exact or mixed:
        axes.set_yscale("log")
        axes.set_ylim(FLOOR / 3, max(bars[-1] * 10, 3 * max(np.abs(p.error).max() for p in pairs)))
        axes.yaxis.set_major_locator(LogLocator(numticks=4))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.set_ylabel("|error|" if absolute else "|relative error|", fontsize=7.5)
    else:
        axes.axhline(0, color=style.QUIET, lw=0.5, zorder=1)
        limit = 1.25 * max(top, scale * bars[-1])
        axes.set_ylim(-limit, limit)
        axes.yaxis.set_major_locator(MaxNLocator(4, symmetric=True))
        axes.set_ylabel("error" if absolute else "error (%)", fontsize=7.5)
    axes.set_xlabel(demonstration.x_label)
    if demonstration.log_x and len(demonstration.x) <= 5:
        axes.set_xticks(demonstration.x, [f"{value:.4g}" for value in demonstration.x])
        axes.xaxis.set_minor_locator(NullLocator())
    elif demonstration.log_x and demonstration.x.max() / demonstration.x.min() < 30:
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())


def _reach(size: Array, spread: Array | None) -> float:
    return float(np.max(np.abs(size) + (0.0 if spread is None else spread)))


def _legend(figure: Figure, names: list[str], width: float, height: float) -> None:
    """What line, dot and shade mean, and below it the series."""
    grey: dict[str, Any] = {"color": style.QUIET}
    what = [
        Line2D([], [], lw=1.1, label="predicted", **grey),
        Line2D([], [], ls="", marker="o", ms=3.2, mfc="white", mec=style.QUIET, label="measured"),
        Line2D([], [], lw=5, alpha=0.32, label="bar", **grey),
    ]
    place: dict[str, Any] = {"borderaxespad": 0.0, "handletextpad": 0.5, "columnspacing": 1.2, "borderpad": 0.0}
    figure.legend(handles=what, loc="upper left", bbox_to_anchor=(0.52 / width, 1 - 0.05 / height), ncols=3, **place)
    if names == [""]:
        return
    lines = [
        Line2D([], [], ls=DASHES[look], lw=1.1, color=COLOURS[look], label=name or "all", **_dots(look))
        for look, name in ((i % len(COLOURS), name) for i, name in enumerate(names))
    ]
    figure.legend(
        handles=lines,
        loc="upper left",
        bbox_to_anchor=(0.52 / width, 1 - 0.21 / height),
        ncols=_columns(names, width),
        labelspacing=0.2,
        **place,
    )
