"""Test error and Jacobian norm depend on learning rate and decay through their product.

Runs and bounds: noisy digits, learning rate by decay, 20 cells. Exploratory runs saw Spearman correlations of -.95
(Jacobian norm) and -.76 (test error) with lr*wd over the decayed cells. Decided before the committed runs: correlations
are computed seed by seed; the best cell of a row is looked for in the mean over seeds, and compared with the row's cell
whose lr*wd is nearest to 1e-2 on a logarithmic scale.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.stats import spearmanr

from empirics.config import TrainConfig
from paper import style
from paper.figures.bands import LABELS, LOOKS, PERCENT, final, log_ticks
from paper.figures.claims import Claim, claim
from paper.figures.setups import SEEDS, noisy_digits
from paper.figures.spec import Spec

LRS = (0.03, 0.1, 0.3, 1.0)
"""Learning rates."""
DECAYS = (0.0, 1e-3, 3e-3, 1e-2, 3e-2)
"""Decays."""
SPEARMAN = {"jacobian_fro": -0.9, "test_error": -0.6}
"""Largest Spearman correlation with lr*wd over the decayed cells [-.95, -.76]."""
BEST_PRODUCT = 1e-2
"""lr*wd near which a row's smallest error is expected."""
CELLS_OFF = 1.0
"""How many cells the smallest error may be from there, in any row."""
LAW = "over-training regime"


def runs() -> list[TrainConfig]:
    """All runs, seed by seed.

    Returns:
        Their configurations.
    """
    return [noisy_digits(lr, wd, seed) for seed in SEEDS for lr in LRS for wd in DECAYS]


def grid(table: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Mean over seeds of a final value.

    Args:
        table: The figure's table.
        quantity: The quantity.

    Returns:
        Learning rates in rows, decays in columns; nan where every seed diverged.
    """
    rows = final(table, quantity)
    return rows.pivot_table(index="lr", columns="wd", values="value").reindex(index=list(LRS), columns=list(DECAYS))


def correlations(table: pd.DataFrame, quantity: str) -> pd.DataFrame:
    """Spearman correlations of a final value over the decayed cells, seed by seed.

    Args:
        table: The figure's table.
        quantity: The quantity.

    Returns:
        Columns product, lr, wd, indexed by seed; only of seeds that have every cell, diverged ones included.
    """
    rows, whole = {}, len(LRS) * len(DECAYS)
    for seed, part in table.groupby("seed"):
        if part["run"].nunique() < whole:
            continue
        cells = final(part, quantity).query("wd > 0").assign(product=lambda frame: frame["lr"] * frame["wd"].round(12))
        columns = {"product": cells["product"].round(12), "lr": cells["lr"], "wd": cells["wd"]}
        rows[seed] = {name: float(spearmanr(column, cells["value"])[0]) for name, column in columns.items()}
    return pd.DataFrame.from_dict(rows, orient="index", columns=["product", "lr", "wd"])


def cells_off(errors: pd.DataFrame) -> float:
    """How far the best cell of a row is from the one whose lr*wd is nearest to `BEST_PRODUCT`, in the worst row.

    Args:
        errors: As from `grid`.

    Returns:
        Number of cells, among the decayed ones.
    """
    decayed = errors[[wd for wd in errors.columns if wd > 0]]
    worst = 0
    for lr, row in decayed.iterrows():
        expected = int(np.argmin(np.abs(np.log(float(lr) * row.index.to_numpy(float) / BEST_PRODUCT))))  # pyright: ignore
        best = int(np.nanargmin(row.to_numpy(float)))
        worst = max(worst, abs(best - expected))
    return float(worst)


def beyond(table: pd.DataFrame) -> str:
    """What the largest product does to the test error, in words: it is past the optimum, where no order is left.

    Args:
        table: The figure's table.

    Returns:
        A sentence with its numbers; empty before that cell was run.
    """
    ends = final(table, "test_error")
    products = ends["lr"] * ends["wd"]
    last, rest = ends[products == products.max()], ends[(products > 0) & (products < products.max())]
    if last.empty or rest.empty:
        return ""
    rank = (
        rest["value"]
        .groupby(rest["seed"])
        .apply(lambda value: value.corr(products[value.index].rank(), method="spearman"))
    )
    return (
        f"the cell of the largest product, {products.max():g}, is past the optimum: {last['value'].mean():.0%} error; "
        f"without it the correlation is {rank.mean():.2f}"
    )


def claims(table: pd.DataFrame) -> list[Claim]:
    """What is judged: the product orders the cells, better than either factor, and says where the best one is.

    Args:
        table: The figure's table.

    Returns:
        The claims.
    """
    out = []
    for quantity, name in (("jacobian_fro", "Jacobian norm"), ("test_error", "test error")):
        found = correlations(table, quantity)
        sentence = f"Spearman correlation of {name} with lr·wd over the decayed cells"
        note = beyond(table) if quantity == "test_error" else ""
        out.append(claim(LAW, sentence, found["product"].tolist(), SPEARMAN[quantity], "<=", null=0.0, note=note))
        for factor in ("lr", "wd"):
            excess = found["product"].abs() - found[factor].abs()
            sentence = f"|Spearman| of {name} with lr·wd minus that with {factor} alone"
            out.append(claim(LAW, sentence, excess.tolist(), 0.0, ">="))
    whole = correlations(table, "test_error").index
    each = [cells_off(grid(table[table["seed"] == seed], "test_error")) for seed in whole]
    measured = cells_off(grid(table[table["seed"].isin(whole)], "test_error")) if len(whole) else float("nan")
    out.append(
        Claim(
            law=LAW,
            claim="cells between a row's smallest test error and lr·wd = 0.01, worst row, mean over seeds",
            measured=measured,
            bound=CELLS_OFF,
            relation="<=",
            seeds=len(each),
            low=min(each, default=float("nan")),
            high=max(each, default=float("nan")),
            values=tuple(each),
            note="interval: range over seeds taken alone",
        )
    )
    return out


def draw(table: pd.DataFrame) -> Figure:
    """Draw both quantities as maps over lr and wd, and against the product.

    Args:
        table: The figure's table.

    Returns:
        Four panels.
    """
    figure = Figure(figsize=(style.TWO_COLUMN, 3.9), layout="constrained")
    axes = figure.subplots(2, 2, width_ratios=(1.15, 1))
    broken = set(table.loc[table["quantity"] == "diverged", ["lr", "wd"]].itertuples(index=False, name=None))
    for row, quantity in zip(axes, ("test_error", "jacobian_fro"), strict=True):
        heat(row[0], grid(table, quantity), quantity, broken)
        against_product(row[1], table, quantity)
    axes[1, 1].set_xlabel(LABELS["product"])
    axes[0, 1].legend(fontsize=6.5, loc="lower left", ncols=2, columnspacing=0.8, handletextpad=0.2)
    return figure


def heat(axes: Axes, values: pd.DataFrame, quantity: str, broken: set[tuple[float, float]]) -> None:
    """One map; cells are labelled, those on equal lr*wd lie on diagonals, the best of a row has a frame.

    Args:
        axes: Where.
        values: As from `grid`.
        quantity: For the labels.
        broken: Pairs (lr, wd) of which a run diverged.
    """
    numbers = values.to_numpy(float) * (100 if quantity in PERCENT else 1)
    finite = numbers[np.isfinite(numbers)]
    norm = (LogNorm if quantity not in PERCENT else Normalize)(finite.min(), finite.max())
    axes.imshow(numbers, cmap="cividis", norm=norm, aspect="auto", origin="lower")
    for (row, column), number in np.ndenumerate(numbers):
        text = f"{number:.1f}" if quantity in PERCENT else f"{number:.0f}"
        dark = np.isfinite(number) and norm(number) < 0.55
        axes.text(
            column,
            row,
            text if np.isfinite(number) else "diverged" if (LRS[row], DECAYS[column]) in broken else "not run",
            ha="center",
            va="center",
            fontsize=7,
            color="white" if dark else style.INK,
        )
    for row, line in enumerate(numbers):
        if np.isfinite(line).any():
            best = int(np.nanargmin(line))
            axes.add_patch(Rectangle((best - 0.46, row - 0.46), 0.92, 0.92, fill=False, ec="white", lw=1.2))
    axes.set_xticks(range(len(values.columns)), [f"{wd:g}" for wd in values.columns])
    axes.set_yticks(range(len(values.index)), [f"{lr:g}" for lr in values.index])
    axes.set(xlabel=LABELS["wd"], ylabel=LABELS["lr"], title=LABELS[quantity])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def against_product(axes: Axes, table: pd.DataFrame, quantity: str) -> None:
    """Every decayed run against lr*wd; undecayed ones at the left edge.

    Args:
        axes: Where.
        table: The figure's table.
        quantity: The quantity.
    """
    rows = final(table, quantity)
    scale = 100 if quantity in PERCENT else 1
    for lr, look in zip(LRS, LOOKS, strict=False):
        part = rows[rows["lr"] == lr]
        x = np.where(part["wd"] > 0, part["lr"] * part["wd"], 1e-5)
        axes.plot(
            x, scale * part["value"], look["marker"], color=look["color"], ms=3, alpha=0.8, mew=0, label=f"lr {lr:g}"
        )
    axes.set(xscale="log", ylabel=LABELS[quantity])
    if quantity in PERCENT:
        axes.set_ylim(bottom=0)
    else:
        log_ticks(axes)
    axes.axvline(BEST_PRODUCT, color=style.QUIET, lw=0.6, ls=(0, (1, 2)), zorder=1)
    ticks = [1e-5, 1e-4, 1e-3, 1e-2]
    axes.set_xticks(ticks, ["0", *(f"$10^{{{int(np.log10(t))}}}$" for t in ticks[1:])])
    axes.minorticks_off()


SPEC = Spec(
    name="overtraining_heatmap",
    statement="In over-training, test error and Jacobian norm depend on learning rate and decay through their product.",
    drawn=(
        "Noisy digits (1,000 images, 30 % random labels), final test error and scale-invariant Jacobian norm. Left: "
        "mean over seeds by learning rate and decay, the smallest of each row framed. Right: every run against lr·wd, "
        "undecayed ones at 0; the dotted line is lr·wd = 0.01."
    ),
    origin="original",
    runs={"cpu": runs},
    draw=draw,
    claims=claims,
)
