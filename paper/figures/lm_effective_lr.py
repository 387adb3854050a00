"""An undecayed run with matched effective learning rates is the decayed one: decay acts on nothing else.

Runs: XS language models at constant lr 0.016 for 800 steps, three seeds paired on data order: decay 0.3; none at the
same rate; none at the effective rates lr·sqrt(size)/|w| recorded from the decayed run, matrix by matrix or by one
number a step; none on the exponential rates of the exact twin, which needs scale invariance that these matrices lack;
and, as the floor, the decayed run at a rate 0.1 % larger. LayerNorm gains keep the plain rate in all. Bounds
(exploratory runs in brackets): the last losses of the matched run and the decayed one within 0.05 nats [0.024], those
of the unmatched run beyond 0.12 [0.22], at least 4 times further. Decided before the committed runs: losses are means
over the last 200 fresh steps; distances are absolute, seed by seed; the ratio is the unmatched distance of a seed to
the mean matched distance; the matched run that is judged is the one matched matrix by matrix; the others are drawn.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from empirics.config import TrainConfig
from empirics.records import Record
from paper import style
from paper.figures.bands import LOOKS, band, final, handle, log_ticks, paired
from paper.figures.claims import Claim, claim
from paper.figures.setups import SEEDS
from paper.figures.spec import Spec
from paper.figures.table import evaluations
from paper.figures.text_setups import WARMUP, xs
from theory.optimizers import AdamW
from theory.schedules import Constant, Cosine

LR, DECAY, STEPS = 0.016, 0.3, 800
NUDGE = 1e-3
"""Relative change of the learning rate in the perturbed run."""
ARMS = {
    "unmatched": ("no decay, same lr", "same lr"),
    "matrix": ("no decay, matched per matrix", "per\nmatrix"),
    "number": ("no decay, matched by one number", "one\nnumber"),
    "exponential": ("no decay, exponential lr", "expo-\nnential"),
    "floor": ("decay, lr 0.1 % larger", "lr\n+0.1 %"),
}
"""By the name in tables: words, and fewer words. The decayed run itself is `decayed`."""
WINDOW = 100
"""Steps over which drawn losses are averaged."""
NEAR, FAR, TIMES = 0.05, 0.12, 4.0
"""Distance of the matched run's loss from the decayed one's at most, of the unmatched run's at least (nats), ratio."""
LAW = "effective learning rate"


def runs() -> list[TrainConfig]:
    """All runs, those that others follow first.

    Returns:
        Their configurations.
    """
    leaders = [run("decayed", seed) for seed in SEEDS]
    return leaders + [run(arm, seed) for seed in SEEDS for arm in ARMS]


def run(arm: str, seed: int) -> TrainConfig:
    """One run.

    Args:
        arm: decayed, or one of `ARMS`.
        seed: Its seed.

    Returns:
        The configuration.
    """
    decayed = xs(Cosine(), LR, DECAY, seed, steps=STEPS, eval_every=0)
    decayed = replace(decayed, name=f"xs-decayed-seed{seed}", schedule=Constant(warmup=WARMUP), rotation_every=1)
    if arm == "decayed":
        return decayed
    other = replace(decayed, name=f"xs-{arm}-seed{seed}", rotation_every=10)
    if arm == "floor":
        return replace(other, optimizer=AdamW(lr=LR * (1 + NUDGE), betas=(0.9, 0.95), weight_decay=DECAY))
    if arm == "exponential":
        return replace(other, twin=decayed.directory, twin_of="matrices")
    other = replace(other, optimizer=AdamW(lr=LR, betas=(0.9, 0.95), weight_decay=0.0))
    if arm == "unmatched":
        return other
    return replace(other, match=decayed.directory, match_by="tensor" if arm == "matrix" else "global")


def labels(config: TrainConfig) -> dict[str, str | float]:
    """What a run is, as a column.

    Args:
        config: The run.

    Returns:
        decayed, or one of `ARMS`.
    """
    return {"arm": next(arm for arm in ("decayed", *ARMS) if run(arm, config.seed) == config)}


def reduce(record: Record) -> pd.DataFrame:
    """Evaluations, smoothed losses every 20 steps, and the matrices' effective rate every 10.

    Args:
        record: The run.

    Returns:
        Columns step, quantity, value; the rate is a geometric mean over matrices.
    """
    metrics = record.metrics()
    loss = metrics[metrics["quantity"] == "loss"].set_index("step")["value"].sort_index()
    smooth = loss.rolling(WINDOW).mean().dropna().iloc[::20]
    rates = record.pivot("effective_lr")
    rates = rates[[name for name in rates.columns if ".ln_" not in name]]
    rate = np.exp(np.log(rates[rates.index % 10 == 0]).mean(axis=1)).dropna()
    parts = [evaluations(record)]
    for quantity, series in (("smooth_loss", smooth), ("effective_lr", rate)):
        parts.append(pd.DataFrame({"step": series.index + 1, "quantity": quantity, "value": series.to_numpy()}))
    return pd.concat(parts, ignore_index=True)


def distance(table: pd.DataFrame, arm: str) -> np.ndarray:
    """How far a run's loss at the end is from the decayed run's.

    Args:
        table: The figure's table.
        arm: One of `ARMS`.

    Returns:
        Absolute differences, nats, one a seed.
    """
    both = [final(table[table["arm"] == name], "train_loss_fresh") for name in (arm, "decayed")]
    return np.abs(paired(*both))


def claims(table: pd.DataFrame) -> list[Claim]:
    """What is judged: the matched run is near, the unmatched one far.

    Args:
        table: The figure's table.

    Returns:
        The claims.
    """
    matched, unmatched, floor = (distance(table, arm) for arm in ("matrix", "unmatched", "floor"))
    times = unmatched / matched.mean() if len(matched) else unmatched
    note = f"a learning rate 0.1 % larger alone moves the decayed run by {floor.mean():.2g}" if len(floor) else ""
    words = "loss without decay, {} effective rates, from that with decay, distance (nats)"
    return [
        claim(LAW, words.format("matched"), matched, NEAR, "<=", note=note),
        claim(LAW, words.format("unmatched"), unmatched, FAR, ">=", null=0.0),
        claim(LAW, "unmatched distance over mean matched distance", times, TIMES, ">=", null=1.0),
    ]


def draw(table: pd.DataFrame) -> Figure:
    """Draw how far every run is from the decayed one, and the effective rates.

    Args:
        table: The figure's table.

    Returns:
        Three panels: difference of losses over the run, distance at the end by seed, effective rates.
    """
    figure = Figure(figsize=(style.TWO_COLUMN, 2.5), layout="constrained")
    along, end, rates = figure.subplots(1, 3)
    leader = table[table["arm"] == "decayed"]
    looks = dict(zip(ARMS, LOOKS, strict=True))
    along.axhline(0.0, color=style.INK, lw=0.8)
    for position, (arm, look) in enumerate(looks.items()):
        rows = table[table["arm"] == arm]
        delta = rows.merge(leader, on=["seed", "step", "quantity"], suffixes=("", "_decayed"))
        band(along, delta.assign(value=delta["value"] - delta["value_decayed"]), "smooth_loss", look)
        values = distance(table, arm)
        end.plot(np.full(len(values), position), values, ls="", marker=look["marker"], color=look["color"], ms=4)
        band(rates, rows, "effective_lr", look)
    band(rates, leader, "effective_lr", {"color": style.INK, "ls": "-"}, lw=0.8)
    for bound, words, side in ((NEAR, "matched: below", "top"), (FAR, "same lr: above", "bottom")):
        end.axhline(bound, color=style.QUIET, lw=0.6, ls=(0, (2, 2)))
        y = bound * (1.04 if side == "bottom" else 0.95)
        end.text(4.5, y, words, fontsize=6.5, color=style.QUIET, ha="right", va=side)
    for axes in (end, rates):
        log_ticks(axes)
    along.set(xlabel="step", ylabel="loss minus decayed run's (nats)")
    end.set(xlim=(-0.6, len(ARMS) - 0.4), ylabel="distance at the end (nats)")
    end.set_xticks(range(len(ARMS)), [short for _, short in ARMS.values()])
    rates.set(xlabel="step", ylabel=r"effective lr, lr·$\sqrt{d}$ / norm", xlim=(WARMUP, STEPS))
    inside = table[(table["quantity"] == "effective_lr") & (table["step"] >= WARMUP)]["value"]
    rates.set_ylim(0.9 * inside.min(), 1.1 * inside.max())
    handles = [*(handle(look, marker=True) for look in looks.values()), handle({"color": style.INK, "ls": "-"})]
    words = [*(long for long, _ in ARMS.values()), "decay"]
    figure.legend(handles, words, loc="outside upper center", ncols=3)
    return figure


SPEC = Spec(
    name="lm_effective_lr",
    statement=(
        "A run without weight decay whose effective learning rates are matched to a decayed run's has its loss: in one "
        "pass decay acts through the effective learning rate."
    ),
    drawn=(
        "Left: training loss minus the decayed run's, means of 100 steps. Middle: distance of the losses of the last "
        "200 steps, a mark a seed, bounds dashed. Right: effective learning rate after warm-up (d: entries of a "
        "matrix), geometric mean over matrices. XS GPT-2 at constant lr 0.016, wd 0.3; lines are means over seeds, "
        "bands their range."
    ),
    origin="original",
    runs={"cpu": runs},
    reduce=reduce,
    labels=labels,
    draw=draw,
    claims=claims,
)
