"""Drawing a prediction (matplotlib is imported only when something is drawn)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from theory.errors import InputError, require

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from theory.prediction import Prediction

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe-Ito colours, distinguishable with any colour vision."""


def representative_groups(prediction: Prediction, limit: int = 6) -> list[str]:
    """Matrices whose predictions differ, in the recipe's order.

    Args:
        prediction: The prediction.
        limit: Largest number of groups.

    Returns:
        Names of groups.
    """
    chosen: dict[tuple[float, ...], str] = {}
    last = prediction.values([prediction.recipe.steps - 1])
    for index, group in enumerate(prediction.recipe.groups):
        if len(group.shape) < 2 and any(len(g.shape) >= 2 for g in prediction.recipe.groups):
            continue
        key = tuple(
            np.round(last[q][0, index], 4) if np.isfinite(last[q][0, index]) else -1.0 for q in ("rms", "angle")
        )
        chosen.setdefault(key, group.name)
    return list(chosen.values())[:limit]


def plot_prediction(prediction: Prediction, groups: Sequence[str] | None = None) -> Figure:
    """Norm, angle and learning rate over the run, bands shaded.

    Args:
        prediction: What to draw.
        groups: Names of tensors; representative ones if omitted.

    Returns:
        A matplotlib figure, 7 inches wide.

    Raises:
        InputError: If matplotlib is not installed or a group is unknown.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("plot() needs matplotlib: install decaylab with the 'plot' extra.") from None
    names = [group.name for group in prediction.recipe.groups]
    shown = representative_groups(prediction) if groups is None else list(groups)
    for name in shown:
        require(name in names, "groups", name, f"one of the recipe's {len(names)} groups")
    table = prediction.table()
    figure = Figure(figsize=(7.0, 2.6), layout="constrained")
    axes = figure.subplots(1, 3)
    for name, colour in zip(shown, PALETTE * (len(shown) // len(PALETTE) + 1), strict=False):
        for axis, quantity in zip(axes[:2], ("rms", "angle"), strict=True):
            rows = table[(table["group"] == name) & (table["quantity"] == quantity)]
            axis.plot(rows["step"], rows["value"], color=colour, lw=1.4, label=name)
            axis.fill_between(rows["step"], rows["low"], rows["high"], color=colour, alpha=0.12, lw=0)
    steps = prediction.default_steps()
    axes[2].plot(steps, prediction.recipe.lr(steps), color="0.25", lw=1.4)
    labels = ("RMS weight", "angular update (rad/step)", "learning rate")
    for axis, label in zip(axes, labels, strict=True):
        axis.set(xlabel="step", ylabel=label)
        axis.spines[["top", "right"]].set_visible(False)
        axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    axes[1].set_yscale("log")
    axes[0].legend(fontsize=5.5, frameon=False)
    return figure
