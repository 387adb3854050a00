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

from paper import style
from paper.figures.bands import LOOKS, handle
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
                        "error": pair.error,
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
    for law, rows in table.groupby("law", sort=False):
        size = (rows["error"].abs() / rows["bar"]).groupby(rows["seed"]).max()
        worst = rows.loc[(rows["error"].abs() / rows["bar"]).idxmax()]
        note = f"worst: {worst['quantity']}, {worst['series'].split(': ', 1)[1] or 'the only series'}"
        out.append(claim(str(law), "largest error in units of the law's bar", size, 1.0, "<=", note=note))
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
        place.set_title(f"{law}\n{quantity}", fontsize=6.5)
    for place in axes[len(panels) :]:
        place.set_visible(False)
    marks = [handle({"color": style.QUIET, "ls": "-"}), handle({"color": style.QUIET, "ls": "", "marker": "o"})]
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
    for i, (_, series) in enumerate(rows.groupby("series", sort=False)):
        look = LOOKS[i % len(LOOKS)]
        by_x = series.groupby("x")
        x = np.array(sorted(by_x.groups), dtype=np.float64)
        mean, low, high = (getattr(by_x["value"], name)().to_numpy() for name in ("mean", "min", "max"))
        axes.plot(x, by_x["predicted"].mean().to_numpy(), color=look["color"], ls=look["ls"], lw=0.9, zorder=2)
        spread = np.array([mean - low, high - mean])
        axes.errorbar(
            x, mean, spread, ls="", marker=look["marker"], ms=3, mfc="white", color=look["color"], elinewidth=0.6
        )
    if bool(rows["log_x"].iloc[0]):
        axes.set_xscale("log")
    positive = rows[["value", "predicted"]].to_numpy()
    if positive.min() > 0 and positive.max() > 30 * positive.min():
        axes.set_yscale("log")
    axes.set_xlabel(str(rows["x_label"].iloc[0]))


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
            "Predicted lines over simulated dots, a colour a series; the setting of each law is on its page of the "
            "documentation. Dots are means over three seeds, bars their range."
        ),
        origin="ours",
        simulation=simulation(laws),
        inputs={"cpu": {"laws": list(laws), "seeds": list(SEEDS)}},
        draw=(lambda table: draw_equilibria(demonstrations(table))) if name == "laws" else draw,
        claims=claims,
    )
