"""The figure `laws`: every equilibrium law against the real optimizer, norm and rotation, with the error below."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from paper import style
from paper.laws.demonstration import Demonstration, Pair
from paper.laws.draw import COLOURS, MARKERS
from paper.laws.equilibrium import ANGLE, NORM

LAWS: dict[str, str] = {
    "sgd_equilibrium": "SGD",
    "adamw_equilibrium": "AdamW",
    "adamw_equilibrium_gaussian": "AdamW,\nshort memory",
    "adam_l2_equilibrium": "Adam + L2",
    "lion_equilibrium": "Lion",
    "signum_equilibrium": "Signum",
    "muon_equilibrium": "Muon",
    "normalized_momentum_equilibrium": "normalised\nmomentum",
    "hyperball_angle": "fixed norm",
    "cautious_equilibrium": "cautious\nSignum",
    "correlated_equilibrium": "correlated\ngradients",
    "decoupled_equilibrium": "any update",
}
"""The equilibrium laws and what they are called in the figure, in its order."""


def draw(shown: Sequence[Demonstration]) -> Figure:
    """Draw the figure.

    Args:
        shown: The demonstrations of `LAWS`, in that order.

    Returns:
        The figure: predicted against measured norm and angle of all laws, and for each law its errors with its bar.
    """
    with style.style():
        figure = Figure(figsize=(style.TWO_COLUMN, 4.6))
        cells = figure.add_gridspec(
            3, 2, height_ratios=(2.1, 1, 1), left=0.07, right=0.805, top=0.985, bottom=0.09, wspace=0.22, hspace=0.28
        )
        for column, quantity in enumerate((NORM, ANGLE)):
            axes = figure.add_subplot(cells[0, column], label=quantity)
            _scatter(axes, shown, quantity)
            strip = figure.add_subplot(cells[1 + column, :], label=f"error {quantity}")
            _strip(strip, shown, quantity, last=column == 1)
        handles = [_handle(figure.axes[0], i, name.replace("\n", " ")) for i, name in enumerate(LAWS.values())]
        figure.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(0.812, 0.985),
            labelspacing=0.55,
            handletextpad=0.0,
            borderpad=0.0,
        )
    return figure


def _look(i: int) -> dict[str, Any]:
    """Marker and colour of a law; the second six are filled, so that no two look alike even in grey."""
    look = i % len(COLOURS)
    fill = "white" if i < len(COLOURS) else COLOURS[look]
    return {"marker": MARKERS[look], "ms": 3.4, "mfc": fill, "mec": COLOURS[look], "mew": 0.8, "ls": ""}


def _handle(axes: Axes, i: int, name: str) -> Line2D:
    (line,) = axes.plot([], [], label=name, **_look(i))
    return line


def _pairs(demonstration: Demonstration, quantity: str) -> list[Pair]:
    return [pair for pair in demonstration.pairs if pair.quantity == quantity]


def _scatter(axes: Axes, shown: Sequence[Demonstration], quantity: str) -> None:
    for i, demonstration in enumerate(shown):
        for pair in _pairs(demonstration, quantity):
            axes.plot(pair.measured, pair.predicted, zorder=3, **_look(i))
    axes.set_xscale("log")
    axes.set_yscale("log")
    low, high = axes.get_xlim()
    axes.plot([low, high], [low, high], color=style.QUIET, lw=0.7, zorder=1)
    axes.set_xlim(low, high)
    axes.set_ylim(low, high)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(f"{quantity}, simulated")
    axes.set_ylabel(f"{quantity}, predicted")


def _strip(axes: Axes, shown: Sequence[Demonstration], quantity: str, *, last: bool) -> None:
    """Errors over bars, one column a law: within -1 and 1 is inside."""
    axes.axhspan(-1, 1, color=style.QUIET, alpha=0.16, lw=0, zorder=0)
    axes.axhline(0, color=style.QUIET, lw=0.5, zorder=1)
    for i, demonstration in enumerate(shown):
        pairs = _pairs(demonstration, quantity)
        size = np.concatenate([pair.error / pair.bar for pair in pairs]) if pairs else np.empty(0)
        spread = [pair.error_stderr for pair in pairs]
        deviation = np.concatenate(
            [np.zeros_like(p.error) if s is None else s / p.bar for p, s in zip(pairs, spread, strict=True)] or [size]
        )
        place = i + np.linspace(-0.3, 0.3, len(size)) if len(size) > 1 else i + np.zeros(len(size))
        axes.errorbar(place, size, deviation, elinewidth=0.6, ecolor=COLOURS[i % len(COLOURS)], **_look(i))
        if pairs:
            bars = sorted({100 * pair.bar for pair in pairs})
            text = "–".join(f"{bar:g}" for bar in dict.fromkeys((bars[0], bars[-1])))
            axes.text(i, 1.04, f"{text} %", ha="center", va="bottom", fontsize=6, color=style.QUIET)
    axes.set_xlim(-0.6, len(shown) - 0.4)
    axes.set_ylim(-1.25, 1.35)
    axes.set_xticks(range(len(shown)), list(LAWS.values()) if last else [""] * len(shown), fontsize=6.2)
    axes.set_ylabel(f"error / bar\n({quantity.split(' ')[0]})")
