"""The figures of the solvable settings: laws over the simulations of `paper.laws`, repeated with three seeds.

Each figure is a choice of laws; settings, bars and what each law is held against are those of its demonstration. A law
passes if its error, the largest over all points and series in units of their bars, is below 1 in the mean over seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from paper import style
from paper.curves import Array
from paper.figures.bands import LOOKS, handle, log_ticks
from paper.figures.claims import Claim, claim
from paper.figures.setups import SEEDS
from paper.figures.spec import Spec
from paper.laws.demonstration import Demonstration, Pair, mean_error
from paper.laws.figure import LAWS as EQUILIBRIA
from paper.laws.figure import draw as draw_equilibria
from paper.laws.registry import DEMONSTRATIONS

CHOICES: dict[str, tuple[str, tuple[str, ...]]] = {
    "laws": (
        "Every equilibrium law agrees with the real optimizer within its accuracy.",
        tuple(EQUILIBRIA),
    ),
    "schedules": (
        "Norms and rotations follow their laws under every schedule.",
        ("sgd_trajectory", "adamw_trajectory", "closed_form_norm", "decay_convention_norm", "relaxation_time"),
    ),
    "twin": (
        "Weight decay and an exponentially growing learning rate are the same run, to rounding.",
        ("sgd_exponential_schedule", "adamw_exponential_lr", "lion_exponential_schedule"),
    ),
    "rounding": (
        "Where low-precision weights swallow decay or stall follows from their grid.",
        ("bf16_walk", "bf16_scale_survival", "rounding_diffusion", "rounding_drift_gain", "residual_precision"),
    ),
    "least_squares": (
        "One pass over least squares: bias and variance are what the recursion says.",
        ("least_squares_trajectory", "bias_variance", "least_squares_stationary"),
    ),
    "label_noise": (
        "Label noise leaves an excess loss, and with decay an equilibrium, that hyper-parameters fix.",
        ("label_noise_excess", "label_noise_balance", "noise_regulariser"),
    ),
    "sphere_eos": (
        "On the sphere gradient descent with decay settles at its edge of stability, and cycles around it.",
        ("sphere_eos", "time_to_eos", "eos_period"),
    ),
}
"""What each figure states, and the laws it holds against simulations."""
COLUMNS = 3
"""Panels beside each other."""
MANY = 5
"""Most ticks that an axis has room for."""


def simulation(laws: Sequence[str]) -> Callable[[str], pd.DataFrame]:
    """The runs of some laws' demonstrations, as a table.

    Args:
        laws: Names of laws.

    Returns:
        A function of the scale, which it ignores: there is one.
    """

    def simulate(scale: str) -> pd.DataFrame:
        del scale
        parts = []
        for law in laws:
            for seed in SEEDS:
                shown = DEMONSTRATIONS[law](seed)
                for i, pair in enumerate(shown.pairs):
                    rows = {
                        "run": f"{law}-seed{seed}",
                        "law": law,
                        "seed": seed,
                        "series": f"{i}: {pair.name}",
                        "quantity": pair.quantity,
                        "step": np.arange(len(shown.x)),
                        "x": shown.x,
                        "x_label": shown.x_label,
                        "log_x": shown.log_x,
                        "predicted": pair.predicted,
                        "value": pair.measured,
                        "bar": pair.bar,
                        "absolute": pair.absolute,
                    }
                    parts.append(pd.DataFrame(rows))
        return pd.concat(parts, ignore_index=True)

    return simulate


def claims(table: pd.DataFrame) -> list[Claim]:
    """What is judged: each law's worst error in units of its bar.

    Args:
        table: The figure's table.

    Returns:
        A claim a law.
    """
    out = []
    error = (table["predicted"] - table["value"]).abs() / table["value"].abs().where(~table["absolute"], 1.0)
    for law, rows in table.groupby("law", sort=False):
        bars = (error / table["bar"]).loc[rows.index]
        size, worst = bars.groupby(rows["seed"]).max(), rows.loc[bars.idxmax()]
        note = f"worst: {worst['quantity']}, {worst['series'].split(': ', 1)[1] or 'the only series'}"
        sentence = f"{law}: largest error in units of its bar"
        out.append(claim(str(law), sentence, size, 1.0, "<=", note=note))
    return out


def draw(table: pd.DataFrame) -> Figure:
    """Draw every law: predicted lines over measured dots, one panel a quantity.

    Args:
        table: The figure's table.

    Returns:
        Panels in reading order; dots are means over seeds, bars their range.
    """
    panels = list(table.groupby(["law", "quantity"], sort=False))
    lines = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(style.TWO_COLUMN, 1.75 * lines + 0.3), layout="constrained")
    axes = figure.subplots(lines, COLUMNS, squeeze=False).ravel()
    for place, (key, rows) in zip(axes, panels, strict=False):
        law, quantity = key
        panel(place, rows)
        zero = "" if rows["predicted"].any() else " (law: 0)"
        place.set_title(f"{law}\n{quantity}{zero}", fontsize=6.5)
    for place in axes[len(panels) :]:
        place.set_visible(False)
    dot = {"color": style.QUIET, "ls": "", "marker": "o", "mfc": "white"}
    marks = [handle({"color": style.QUIET, "ls": "-"}), handle(dot, marker=True)]
    figure.legend(marks, ["predicted", "simulated (mean and range of 3 seeds)"], loc="outside upper center", ncols=2)
    return figure


def demonstrations(table: pd.DataFrame) -> list[Demonstration]:
    """The table's laws as demonstrations, seeds averaged.

    Args:
        table: The figure's table.

    Returns:
        One a law; standard errors are those over seeds.
    """
    out = []
    for law, rows in table.groupby("law", sort=False):
        pairs = []
        for series, part in rows.groupby("series", sort=False):
            wide = part.pivot(index="step", columns="seed", values="value")
            mean, spread = mean_error(wide.to_numpy())
            predicted = part.groupby("step")["predicted"].mean().to_numpy()
            first = part.iloc[0]
            name = str(series).split(": ", 1)[1]
            pairs.append(Pair(name, first["quantity"], predicted, mean, spread, first["bar"], bool(first["absolute"])))
        x = rows.drop_duplicates("step").sort_values("step")["x"].to_numpy()
        out.append(Demonstration(str(law), "", str(rows["x_label"].iloc[0]), x, tuple(pairs)))
    return out


def panel(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw one quantity of one law.

    Args:
        axes: Where.
        rows: Of the table.
    """
    names = [str(name).split(": ", 1)[1] for name in rows["series"].unique()]
    for (_, series), look, name in zip(rows.groupby("series", sort=False), LOOKS, names, strict=False):
        by_x = series.groupby("x")
        x = np.array(sorted(by_x.groups), dtype=np.float64)
        mean, low, high = (getattr(by_x["value"], how)().to_numpy() for how in ("mean", "min", "max"))
        law = by_x["predicted"].mean().to_numpy()
        if law.any():
            axes.plot(x, law, color=look["color"], ls=look["ls"], lw=0.9, zorder=2)
        spread = np.maximum([mean - low, high - mean], 0.0)  # a mean of equal numbers may be rounded
        dots = {"ls": "", "marker": look["marker"], "ms": 3, "mfc": "white", "mew": 0.7, "color": look["color"]}
        axes.errorbar(x, mean, spread, elinewidth=0.6, label=name, **dots)
    shown = rows[["value", "predicted"] if rows["predicted"].any() else ["value"]].to_numpy()
    if shown.min() > 0 and (shown.max() > 30 * shown.min() or shown.shape[1] == 1):
        log_ticks(axes)
    if bool(rows["log_x"].iloc[0]):
        log_abscissa(axes, np.unique(rows["x"]))
    axes.set_xlabel(str(rows["x_label"].iloc[0]))
    if len(names) > 3:  # they need room of their own
        (low, high), log = axes.get_ylim(), axes.get_yscale() == "log"
        axes.set_ylim(low / (high / low) ** 0.3 if log else low - 0.3 * (high - low), high)
    if len(names) > 1:
        columns = 2 if len(names) > 3 else 1
        axes.legend(fontsize=5.5, handletextpad=0.2, labelspacing=0.25, columnspacing=0.8, borderpad=0.1, ncols=columns)


def log_abscissa(axes: Axes, x: Array) -> None:
    """A logarithmic horizontal axis with few, plainly written ticks: at the points themselves if there are few.

    Args:
        axes: Where; its data are drawn already.
        x: Abscissae of the points, rising.
    """
    axes.set_xscale("log")
    decades = 10.0 ** np.arange(np.floor(np.log10(x[0])), np.log10(x[-1]) + 1)
    ticks = x
    for digits in ((1, 2, 5), (1, 3), (1,)):
        if len(ticks) <= MANY and np.all(ticks[1:] > 1.6 * ticks[:-1]):
            break
        ticks = np.ravel([digit * decade for decade in decades for digit in digits])
        ticks = ticks[(ticks > 0.95 * x[0]) & (ticks < 1.05 * x[-1])]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())


def spec(name: str) -> Spec:
    """One of these figures.

    Args:
        name: A key of `CHOICES`.

    Returns:
        Its specification.
    """
    statement, laws = CHOICES[name]
    return Spec(
        name=name,
        statement=statement,
        drawn=(
            "Predicted lines over simulated dots; the setting of each law is on its page of the documentation. "
            "Dots are means over three seeds, bars their range."
        ),
        origin="ours",
        simulation=simulation(laws),
        inputs={"cpu": {"laws": list(laws), "seeds": list(SEEDS)}},
        draw=(lambda table: draw_equilibria(demonstrations(table))) if name == "laws" else draw,
        claims=claims,
    )
