"""What decay gains in test error, from few images seen many times to many seen once, at a fixed number of steps.

Noisy digits from 250 images (298 epochs of 2,325 steps) to 1,500 (50 epochs): over-training throughout; there are not
enough digits for one pass. CIFAR-10 with clean labels in 1,560 steps of 32 images: 500 images 99 times, 50,000 once.
Exploratory runs (seed 0) saw, at 50,000 images, .490 without decay, .486 at .001 and .497 at .003; at 500 images .701
without, .709 at .003, .719 at .01, .701 at .03: a gain in one pass will be small, and one at 500 images is doubtful.
The bound is that of the specification, a gain whose interval over seeds excludes 0, at both ends of both.

What the committed runs say: on noisy digits decay gains 8, 13 and 16 points from 500 images on, and nothing that three
seeds could show at 250; on CIFAR-10 no gain is seen at any size. lr*wd*steps is 0.5 there, with the decay that the
exploration preferred: in one short pass decay has hardly time to act, so that neither a gain nor its absence in longer
ones follows. Not tuned further.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from empirics.config import TrainConfig
from paper import style
from paper.figures.bands import LABELS, LOOKS, band, final, handle, paired
from paper.figures.claims import Claim, claim, interval
from paper.figures.setups import SEEDS, cifar, noisy_digits
from paper.figures.spec import Spec

LR = 0.3
"""Learning rate before the drop."""
DECAY = {"digits": 0.03, "cifar10": 0.001}
"""Decay of the decayed runs; the others have none."""
SIZES = {"digits": (250, 500, 1_000, 1_500), "cifar10": (500, 5_000, 50_000)}
"""Numbers of training images."""
STEPS, DROP = 1_560, 1_240
"""Steps of the CIFAR runs, one pass over 50,000 images, and where the learning rate drops."""
GAIN = 0.0
"""Test error without decay minus that with it: more than this, with its interval."""
NAMES = {"digits": "noisy digits", "cifar10": "CIFAR-10"}
LAW = "over-training and one-pass regimes"


def runs() -> list[TrainConfig]:
    """All runs, seed by seed, digits first.

    Returns:
        Their configurations.
    """
    out = []
    for seed in SEEDS:
        for train in SIZES["digits"]:
            every = {} if train == 1_000 else {"eval_every": 0}  # 1,000 images: the runs of overtraining_curves
            out += [noisy_digits(LR, wd, seed, train=train, **every) for wd in (DECAY["digits"], 0.0)]
    for seed in SEEDS:
        for train in SIZES["cifar10"]:
            short = {"train": train, "steps": STEPS, "drop": DROP, "eval_every": 0}
            out += [cifar(LR, wd, seed, **short) for wd in (DECAY["cifar10"], 0.0)]
    return out


def gains(table: pd.DataFrame, dataset: str, train: int) -> list[float]:
    """Test error without decay minus that with it, seed by seed.

    Args:
        table: The figure's table.
        dataset: digits or cifar10.
        train: Number of training images.

    Returns:
        One number a seed.
    """
    rows = final(table[(table["dataset"] == dataset) & (table["train"] == train)], "test_error")
    return paired(rows[rows["wd"] == 0], rows[rows["wd"] == DECAY[dataset]]).tolist()


def claims(table: pd.DataFrame) -> list[Claim]:
    """What is judged: the gain at the smallest and the largest number of images.

    Args:
        table: The figure's table.

    Returns:
        The claims.
    """
    out = []
    for dataset, sizes in SIZES.items():
        for train in (sizes[0], sizes[-1]):
            sentence = f"test error without decay minus with it, {NAMES[dataset]}, {train:,} images"
            out.append(claim(LAW, sentence, gains(table, dataset, train), GAIN, ">=", null=0.0))
    return out


def draw(table: pd.DataFrame) -> Figure:
    """Draw test errors and the gain against the number of images.

    Args:
        table: The figure's table.

    Returns:
        Two rows: errors with and without decay; the gain with its interval.
    """
    figure = Figure(figsize=(style.TWO_COLUMN, 3.4), layout="constrained")
    axes = figure.subplots(2, 2, sharex="col", height_ratios=(1.3, 1))
    for (upper, lower), dataset in zip(axes.T, SIZES, strict=True):
        ends = final(table[table["dataset"] == dataset], "test_error")
        for wd, look in ((DECAY[dataset], LOOKS[0]), (0.0, LOOKS[1])):
            part = ends[ends["wd"] == wd]
            if not part.empty:
                band(upper, part, "test_error", look, x="train", marker=look["marker"], ms=3.5)
        upper.set(title=f"{NAMES[dataset]}, lr {LR:g}", ylabel=LABELS["test_error"])
        upper.set_ylim(bottom=0)
        upper.legend(
            [handle(look, marker=True) for look in LOOKS[:2]], [f"wd {DECAY[dataset]:g}", "wd 0"], fontsize=6.5
        )
        gain(lower, table, dataset)
    return figure


def gain(axes: Axes, table: pd.DataFrame, dataset: str) -> None:
    """Draw the gain with its interval over seeds.

    Args:
        axes: Where.
        table: The figure's table.
        dataset: digits or cifar10.
    """
    for train in SIZES[dataset]:
        mean, low, high = (100 * number for number in interval(gains(table, dataset, train)))
        if np.isfinite(low):
            error = [[mean - low], [high - mean]]
            axes.errorbar(train, mean, error, fmt="o", color=style.INK, ms=3.5, lw=0.9, capsize=2)
    axes.axhline(0, color=style.QUIET, lw=0.6, ls=(0, (1, 2)), zorder=1)
    axes.set(xlabel=LABELS["train"], ylabel="gain by decay (points)", xscale="log")
    axes.set_xlim(SIZES[dataset][0] / 1.3, SIZES[dataset][-1] * 1.3)
    axes.set_xticks(SIZES[dataset], [f"{train:,}" for train in SIZES[dataset]])
    axes.xaxis.set_minor_formatter(NullFormatter())


SPEC = Spec(
    name="data_regimes",
    statement="At a fixed number of steps decay helps where images are seen many times and where they are seen once.",
    drawn=(
        "Final test error with and without decay (means over seeds, bands their range) and the paired gain with its "
        "interval, against the number of training images. Noisy digits: 2,325 steps, 30 % random labels; CIFAR-10 at "
        "16x16, clean labels: 1,560 steps, one pass over 50,000 images."
    ),
    origin="original",
    runs={"cpu": runs},
    draw=draw,
    claims=claims,
)
