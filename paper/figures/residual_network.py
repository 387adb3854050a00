"""A BatchNorm ResNet: rotation from lr*weight_decay alone, norms from the gradients' size, what decay is good for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from paper import style
from paper.curves import rows_of, windowed
from theory.errors import require

EPOCH = 31
"""Steps over which measured curves are RMS values: one epoch of noisy digits."""
MEASURED: dict[str, Any] = {"color": style.INK, "lw": 0.6, "alpha": 0.55, "zorder": 3}
PREDICTED: dict[str, Any] = {"color": style.BLUE, "lw": 1.2, "ls": (0, (3.2, 1.4)), "zorder": 4}
CALIBRATED: dict[str, Any] = {"color": style.VERMILLION, "lw": 1.0, "ls": (0, (0.9, 0.9)), "zorder": 5}
MARKERS = {"decayed": ("o", style.BLUE), "undecayed": ("s", style.VERMILLION), "invariant": ("^", style.GREEN)}
"""Symbol and colour of each run, the same in every panel."""


def draw(measured: Mapping[str, pd.DataFrame], predicted: Mapping[str, pd.DataFrame], scalars: pd.DataFrame) -> Figure:
    """Draw the ResNet runs of the main job.

    Args:
        measured: By run; of "invariant" columns step, tensor, quantity, value with angle (rad/step) and norm.
        predicted: "invariant": the prediction issued before step 0; "invariant-c2": the one issued again from the
            gradients'
            size, both as `Prediction.table` gives them.
        scalars: Columns run, seed, quantity (test_error, jacobian_fro), value.

    Returns:
        A figure of three panels: angles, norms, test error against Jacobian norm.

    Raises:
        InputError: If the invariant run is missing.
    """
    require(
        "invariant" in measured and "invariant" in predicted, "measured", sorted(measured), "with the run 'invariant'"
    )
    run, prior = measured["invariant"], predicted["invariant"]
    layers = [name for name in prior["group"].unique() if not rows_of(run, name, "angle").empty]
    with style.style():
        figure = Figure(figsize=(style.TWO_COLUMN, 2.5))
        grid = figure.add_gridspec(1, 3, left=0.075, right=0.985, top=0.82, bottom=0.17, wspace=0.36)
        angle, norm, gain = (figure.add_subplot(grid[i]) for i in range(3))
        for name in layers:
            angle.plot(*windowed(run, name, "angle", EPOCH), label="measured", **MEASURED)
            norm.plot(*windowed(run, name, "norm", EPOCH), label="measured", **MEASURED)
            again = rows_of(predicted["invariant-c2"], name, "norm")
            norm.plot(again["step"], again["value"], label="calibrated", **CALIBRATED)
            again = rows_of(predicted["invariant-c2"], name, "angle")
            angle.plot(again["step"], again["value"], label="calibrated", **CALIBRATED)
        alone = rows_of(prior, layers[0], "angle")
        angle.plot(alone["step"], alone["value"], label="predicted", **PREDICTED)
        _axes(angle, norm)
        figure.legend(
            handles=[
                Line2D([], [], **line)
                for line in (
                    dict[str, Any](MEASURED, alpha=1),
                    PREDICTED,
                    CALIBRATED,
                )
            ],
            labels=[
                f"measured, {len(layers)} layers (RMS over an epoch)",
                "from lr·wd alone, at stationary norm",
                "issued again from c² of epochs 5–10",
            ],
            loc="upper left",
            ncols=3,
            borderaxespad=0.2,
        )
        _gain(gain, scalars)
    return figure


def _axes(angle: Axes, norm: Axes) -> None:
    angle.set(title="scale-invariant: rotation", ylabel="angle (rad/step)", yscale="log")
    norm.set(title="scale-invariant: norms", ylabel="norm", yscale="log")
    for axes in (angle, norm):
        axes.set_xlabel("step")
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / 1000:g}k" if x >= 1000 else f"{x:g}"))
    norm.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    norm.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    for axis in (angle.yaxis, norm.yaxis):
        axis.set_minor_formatter(NullFormatter())


def _gain(axes: Axes, scalars: pd.DataFrame) -> None:
    wide = scalars.pivot(index=["run", "seed"], columns="quantity", values="value")
    for (name, _), row in wide.iterrows():
        marker, colour = MARKERS[str(name)]
        axes.plot(row["jacobian_fro"], 100 * row["test_error"], marker, color=colour, ms=5, label=str(name))
        axes.annotate(
            str(name),
            (row["jacobian_fro"], 100 * row["test_error"]),
            (0, -11 if name == "decayed" else 6),
            textcoords="offset points",
            ha="center",
        )
    axes.set(title="what decay is good for", xlabel="Jacobian norm (logits)", ylabel="test error (%)", xscale="log")
    axes.set_ylim(0, 1.25 * 100 * wide["test_error"].max())
    left, right = wide["jacobian_fro"].min(), wide["jacobian_fro"].max()
    axes.set_xlim(left / 2.2, right * 2.2)
