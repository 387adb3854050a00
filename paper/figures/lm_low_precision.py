"""Without decay low precision ends in a late divergence, with it not, and in float32 never.

Runs: XS language models at constant lr 0.064, 1,800 steps, decay 0 and 0.03, three seeds, in float32 and with three
mantissa bits (eight exponent bits) in every operand and result of matrix products, attention logits, softmax and GELU;
residual stream, LayerNorm and weights are float32, as under autocast. bf16's 7 bits do not diverge within minutes; 4
did in an exploratory run and do not in `precision_knob`. Bounds (exploratory runs in brackets): final loss without
decay minus with at least 0.5 nats in each seed [1.3]; rise over the running minimum at least 0.5 without [1.4-1.6], at
most 0.25 with [0.16]; largest attention logit above 1e4 without, below 1e3 with; it leaves the float32 curve at least
300 steps before the loss does.
Decided before the committed runs: losses are fresh losses averaged over 100 steps; a logit has left where it stays
above twice the float32 twin's, a loss where it stays 0.25 nats above it; float32 without decay must not rise by more
than 0.25.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from empirics.config import TrainConfig
from empirics.records import Record
from paper import style
from paper.figures.bands import LOOKS, band, handle
from paper.figures.claims import Claim, claim
from paper.figures.setups import SEEDS
from paper.figures.spec import Spec
from paper.figures.table import evaluations
from paper.figures.text_setups import WARMUP, xs
from theory.schedules import Constant, Cosine

LR = 0.064
STEPS = 1_800
DECAYS = (0.0, 0.03)
PRECISIONS = {"m3": "emulated:m3e8:autocast", "float32": "float32"}
"""By the name in tables."""
WINDOW = 100
"""Steps over which losses are averaged."""
APART = 0.5
"""Final loss without decay minus with, in low precision, in each seed: at least, nats."""
RISES, STAYS = 0.5, 0.25
"""Rise of the loss over its running minimum: at least without decay, at most with it, nats."""
LARGE, SMALL = 1e4, 1e3
"""Largest attention logit: at least without decay, at most with it."""
AHEAD = 300
"""Steps by which the logits leave the float32 curve before the loss does: at least."""
LAW = "low precision"


def runs() -> list[TrainConfig]:
    """All runs, seed by seed.

    Returns:
        Their configurations.
    """
    return [low(wd, seed, name) for seed in SEEDS for wd in DECAYS for name in PRECISIONS]


def low(wd: float, seed: int, precision: str) -> TrainConfig:
    """One run at constant learning rate.

    Args:
        wd: Weight decay.
        seed: Its seed.
        precision: m3 or float32.

    Returns:
        The configuration.
    """
    config = xs(Cosine(), LR, wd, seed, steps=STEPS, eval_every=600)
    name = f"xs-{'f32' if precision == 'float32' else precision}-lr{LR:g}-wd{wd:g}-seed{seed}"
    return replace(config, name=name, schedule=Constant(warmup=WARMUP), precision=PRECISIONS[precision])


def labels(config: TrainConfig) -> dict[str, str | float]:
    """The precision of a run, as a column.

    Args:
        config: The run.

    Returns:
        Its name among `PRECISIONS`.
    """
    return {"precision": next(name for name, spelt in PRECISIONS.items() if spelt == config.precision)}


def reduce(record: Record) -> pd.DataFrame:
    """Evaluations, smoothed losses every 20 steps, and the largest attention logit of all blocks.

    Args:
        record: The run.

    Returns:
        Columns step, quantity, value.
    """
    metrics = record.metrics()
    loss = metrics[metrics["quantity"] == "loss"].set_index("step")["value"].sort_index()
    smooth = loss.rolling(WINDOW).mean().dropna().iloc[::20]
    logits = metrics[metrics["quantity"] == "attention_logit_max"].groupby("step")["value"].max()
    parts = [evaluations(record)]
    for quantity, series in (("smooth_loss", smooth), ("attention_logit_max", logits)):
        parts.append(pd.DataFrame({"step": series.index + 1, "quantity": quantity, "value": series.to_numpy()}))
    return pd.concat(parts, ignore_index=True)


def curve(table: pd.DataFrame, quantity: str, precision: str, wd: float, seed: int) -> pd.Series:
    """One quantity of one run.

    Args:
        table: The figure's table.
        quantity: Its name.
        precision: m3 or float32.
        wd: Weight decay.
        seed: The seed.

    Returns:
        Values by step.
    """
    rows = table[(table["precision"] == precision) & (table["wd"] == wd) & (table["seed"] == seed)]
    rows = rows[rows["quantity"] == quantity]
    return rows.set_index("step")["value"].sort_index()


def left(low_: pd.Series, twin: pd.Series, *, factor: float = 1.0, above: float = 0.0) -> float:
    """The step from which a curve stays above its twin's.

    Args:
        low_: The curve, by step.
        twin: The twin's.
        factor: It must exceed so many times the twin ...
        above: ... and so much more.

    Returns:
        The step; infinite if it never leaves.
    """
    steps = low_.index.intersection(twin.index)
    below = ~(low_.loc[steps] > factor * twin.loc[steps] + above)
    if not below.any():
        return float(steps[0]) if len(steps) else np.inf
    after = steps[steps > steps[below.to_numpy()][-1]]
    return float(after[0]) if len(after) else np.inf


def claims(table: pd.DataFrame) -> list[Claim]:
    """What is judged: losses, their rise, attention logits and which comes first.

    Args:
        table: The figure's table.

    Returns:
        The claims.
    """
    seeds = sorted(int(seed) for seed in table["seed"].unique())

    def each(quantity: str, precision: str, wd: float) -> list[pd.Series]:
        return [curve(table, quantity, precision, wd, seed) for seed in seeds]

    losses = {(precision, wd): each("smooth_loss", precision, wd) for precision in PRECISIONS for wd in DECAYS}
    logits = {wd: each("attention_logit_max", "m3", wd) for wd in DECAYS}
    twin = each("attention_logit_max", "float32", 0.0)
    apart = [a.iloc[-1] - b.iloc[-1] for a, b in zip(losses["m3", 0.0], losses["m3", 0.03], strict=True)]
    rise = {key: [series.iloc[-1] - series.min() for series in many] for key, many in losses.items()}
    first = [left(a, b, factor=2.0) for a, b in zip(logits[0.0], twin, strict=True)]
    then = [left(a, b, above=STAYS) for a, b in zip(losses["m3", 0.0], losses["float32", 0.0], strict=True)]
    ahead = [min(late, STEPS) - early for late, early in zip(then, first, strict=True)]
    smallest = [min(apart)] * len(apart) if apart else []
    return [
        claim(
            LAW,
            "final loss without decay minus with, 3 mantissa bits, smallest of the seeds (nats)",
            smallest,
            APART,
            ">=",
        ),
        claim(LAW, "rise over the running minimum without decay, 3 bits (nats)", rise["m3", 0.0], RISES, ">="),
        claim(LAW, "the same with decay (nats)", rise["m3", 0.03], STAYS, "<="),
        claim(LAW, "the same without decay in float32 (nats)", rise["float32", 0.0], STAYS, "<="),
        claim(LAW, "largest attention logit without decay, 3 bits", [s.max() for s in logits[0.0]], LARGE, ">="),
        claim(LAW, "the same with decay", [s.max() for s in logits[0.03]], SMALL, "<="),
        claim(LAW, "steps from the logits' leaving the float32 curve to the loss's", ahead, AHEAD, ">="),
    ]


def draw(table: pd.DataFrame) -> Figure:
    """Draw loss and largest attention logit over the run.

    Args:
        table: The figure's table.

    Returns:
        Two panels, four arms each.
    """
    figure = Figure(figsize=(style.TWO_COLUMN, 2.4), layout="constrained")
    losses, logits = figure.subplots(1, 2)
    arms = [(precision, wd) for precision in PRECISIONS for wd in DECAYS]
    for (precision, wd), look in zip(arms, LOOKS, strict=False):
        rows = table[(table["precision"] == precision) & (table["wd"] == wd)]
        band(losses, rows, "smooth_loss", look)
        band(logits, rows, "attention_logit_max", look)
    logits.set_yscale("log")
    losses.set(xlabel="step", ylabel="loss, mean of 100 steps (nats)")
    logits.set(xlabel="step", ylabel="largest attention logit")
    words = [f"{'3 mantissa bits' if p == 'm3' else p}, wd {wd:g}" for p, wd in arms]
    figure.legend([handle(look) for look in LOOKS[:4]], words, loc="outside upper center", ncols=4)
    return figure


SPEC = Spec(
    name="lm_low_precision",
    statement=(
        "Without weight decay training in low precision ends in a late divergence that attention logits announce; with "
        "it, or in float32, it does not."
    ),
    drawn=(
        "Left: training loss. Right: largest attention logit of all blocks. XS GPT-2 at constant lr 0.064; 3 mantissa "
        "bits in products, attention, softmax and GELU, emulated on the CPU; lines are means over seeds, bands their "
        "range."
    ),
    origin="original",
    runs={"cpu": runs},
    reduce=reduce,
    labels=labels,
    draw=draw,
    claims=claims,
)
