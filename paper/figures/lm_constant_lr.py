"""At constant learning rate decay costs loss, and lowering the rate wins it back: it was variance, not bias.

Runs: XS language models at constant lr 0.048 for 3,000 steps, then 400 steps in a straight line to 0; decay 0 and 0.01,
three seeds paired on data order. Bounds: penalty at least 0.02 nats before (exploratory runs: 0.037, 0.049), less than
half of it after (seen -0.005, -0.007). Decided before the committed runs: both losses are validation losses.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from empirics.config import TrainConfig
from paper import style
from paper.figures.bands import LOOKS, band, final, handle, paired
from paper.figures.claims import Claim, claim
from paper.figures.setups import SEEDS
from paper.figures.spec import Spec
from paper.figures.text_setups import WARMUP, xs
from theory.schedules import WarmupStableDecay

LR = 0.048
CONSTANT = 3_000
"""Steps up to the end of the constant part."""
DOWN = 400
"""Steps of the straight line to 0."""
DECAYS = (0.01, 0.0)
PENALTY = 0.02
"""Validation loss with decay minus without, at the end of the constant part: at least, nats [0.043]."""
LEFT = 0.5
"""Share of that penalty left at the end: at most [-0.14]."""
LAW = "one-pass regime"


def runs() -> list[TrainConfig]:
    """All runs, seed by seed.

    Returns:
        Their configurations.
    """
    schedule = WarmupStableDecay(warmup=WARMUP, decay=DOWN)
    return [xs(schedule, LR, wd, seed, steps=CONSTANT + DOWN, eval_every=1_000) for seed in SEEDS for wd in DECAYS]


def claims(table: pd.DataFrame) -> list[Claim]:
    """What is judged: the penalty before, and the share of it that is left.

    Args:
        table: The figure's table.

    Returns:
        The claims.
    """
    decayed, plain = (table[table["wd"] == wd] for wd in DECAYS)
    at = [rows[(rows["quantity"] == "val_loss") & (rows["step"] == CONSTANT)] for rows in (decayed, plain)]
    before = paired(*at)
    after = paired(final(decayed, "val_loss"), final(plain, "val_loss"))
    left = after / before if len(after) == len(before) else after
    return [
        claim(LAW, "validation loss with decay minus without at constant lr (nats)", before, PENALTY, ">=", null=0.0),
        claim(LAW, "share of that penalty left after the learning rate fell to 0", left, LEFT, "<=", null=1.0),
    ]


def draw(table: pd.DataFrame) -> Figure:
    """Draw the validation losses and their difference.

    Args:
        table: The figure's table.

    Returns:
        Two panels over steps.
    """
    figure = Figure(figsize=(style.ONE_COLUMN, 2.0), layout="constrained")
    losses, penalty = figure.subplots(1, 2)
    decayed, plain = (table[table["wd"] == wd] for wd in DECAYS)
    for rows, look in zip((decayed, plain), LOOKS, strict=False):
        band(losses, rows, "val_loss", look)
    delta = decayed.merge(plain, on=["seed", "step", "quantity"], suffixes=("", "_plain"))
    delta = delta.assign(value=delta["value"] - delta["value_plain"])
    band(penalty, delta, "val_loss", LOOKS[2])
    for axes in (losses, penalty):
        axes.axvspan(CONSTANT, CONSTANT + DOWN, color=style.QUIET, alpha=0.15, lw=0)
        axes.set_xlabel("step")
    penalty.axhline(0.0, color=style.QUIET, lw=0.6)
    losses.set_ylabel("validation loss (nats)")
    penalty.set_ylabel("penalty of decay (nats)")
    handles = [handle(look) for look in LOOKS[:2]]
    figure.legend(handles, [f"wd {wd:g}" for wd in DECAYS], loc="outside upper center", ncols=2)
    return figure


SPEC = Spec(
    name="lm_constant_lr",
    statement=(
        "At constant learning rate weight decay costs loss, and lowering the rate to zero wins it back: what decay "
        "adds is variance, not bias."
    ),
    drawn=(
        "Validation loss with and without decay, and the difference paired by seed; shaded, the learning rate falls in "
        "a straight line to 0. XS GPT-2, Python sources, AdamW at lr 0.048; lines are means over seeds, bands their "
        "range."
    ),
    origin="original",
    runs={"cpu": runs},
    draw=draw,
    claims=claims,
)
