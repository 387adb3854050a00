"""With decay the noise stays alive at a stabilised loss, and the average iterate stays at a small Jacobian norm.

Noisy digits, the BatchNorm ResNet, plain SGD. A run at lr 0.05 without decay memorises its labels in 50 epochs; from
its weights five runs go on at constant lr for 30 epochs; fine-tunes of 15 epochs at lr 0.003 without decay start from
their epochs 1 and 30 (fewer than the original's, for time). Exploratory runs saw losses of 1.20-1.25 with (0.3, 0.03),
fine-tuned Jacobian norms of 174 -> 70 and 166 -> 69 with decay, 254 -> 1009 and 218 -> 1046 without, errors of .02-.03
against .18-.20. The bounds were set from them before the committed runs; fine-tunes' length and the average's half-life
were chosen without looking. Most of the erasing is done by the jump of the learning rate, whether it lasts is decided
by decay: hence late against early. The original starts from no memorising run and fine-tunes at lr 0.001.
"""

from __future__ import annotations

import re
from dataclasses import replace

import pandas as pd
from matplotlib.figure import Figure

from empirics.config import TrainConfig
from empirics.experiments import DIGITS_EPOCH
from empirics.records import Record
from paper import style
from paper.figures.bands import LABELS, LOOKS, band, by_seed, handle, log_ticks
from paper.figures.claims import Claim, claim
from paper.figures.setups import LR_AFTER, SEEDS, noisy_digits
from paper.figures.spec import Spec
from paper.figures.table import epoch_losses, evaluations
from theory.optimizers import SGD
from theory.schedules import Constant

START = (0.05, 0.0)
"""lr and wd of the run that memorises."""
PRETRAIN, EPOCHS, TUNING = 50, 30, 15
"""Epochs of that run, after the switch, and of a fine-tune."""
ARMS = ((0.3, 0.03), (0.3, 0.01), (0.3, 0.0), (0.03, 0.03), (0.03, 0.3))
"""lr and wd after the switch."""
DECAYED, UNDECAYED = ARMS[0], ARMS[2]
"""The arms that are judged."""
EVERY = 5
"""Epochs between evaluations."""
TUNED = (1, 30)
"""Epochs after the switch at which fine-tunes start."""
HALF_LIFE = 3 * DIGITS_EPOCH
"""Half-life of the weights' exponential average, in steps."""
STEADY = 0.1
"""Training loss of the decayed run over its mean, minus 1, in any epoch from the fifth on: at most."""
ERASED, KEPT = 0.6, 2.0
"""Jacobian norm fine-tuned from epoch 30 over that from epoch 1: at most with decay, at least without."""
GAIN = 0.08
"""Test error fine-tuned from epoch 30, without decay minus with it: at least."""
SHOWN = {"jacobian_fro": (30, 3_000), "test_error": (0, 30)}
"""Limits of the axes; weights that decay to nothing leave them."""
LAW = "over-training regime"


def pretrained(seed: int) -> TrainConfig:
    """The run that memorises its labels.

    Args:
        seed: Seed of initialisation, label noise and data order.

    Returns:
        The configuration.
    """
    lr, wd = START
    return replace(
        noisy_digits(lr, wd, seed, eval_every=0),
        name=f"noise-start-seed{seed}",
        schedule=Constant(),
        steps=PRETRAIN * DIGITS_EPOCH,
    )


def switched(lr: float, weight_decay: float, seed: int) -> TrainConfig:
    """A run at constant learning rate from the memorising weights.

    Args:
        lr: Learning rate.
        weight_decay: L2 coefficient, on all tensors.
        seed: As of the run before.

    Returns:
        The configuration.
    """
    start = pretrained(seed)
    return replace(
        start,
        name=f"noise-lr{lr:g}-wd{weight_decay:g}-seed{seed}",
        optimizer=SGD(lr=lr, weight_decay=weight_decay),
        steps=EPOCHS * DIGITS_EPOCH,
        init_from=start.directory,
        averages=(f"ema:{HALF_LIFE}",),
        eval_every=EVERY * DIGITS_EPOCH,
        checkpoint_every=DIGITS_EPOCH,
        keep_checkpoints=EPOCHS,
    )


def tuned(lr: float, weight_decay: float, seed: int, epoch: int) -> TrainConfig:
    """A short fine-tune without decay at a tiny learning rate.

    Args:
        lr: Learning rate of the run that it starts from.
        weight_decay: Decay of that run.
        seed: As of that run.
        epoch: Epoch of that run after which it starts.

    Returns:
        The configuration.
    """
    before = switched(lr, weight_decay, seed)
    return replace(
        before,
        name=f"noise-tuned{epoch}-lr{lr:g}-wd{weight_decay:g}-seed{seed}",
        optimizer=SGD(lr=LR_AFTER),
        steps=TUNING * DIGITS_EPOCH,
        init_from=f"{before.directory}@{epoch * DIGITS_EPOCH}",
        averages=(),
        eval_every=0,
        checkpoint_every=0,
        keep_checkpoints=1,
    )


def runs() -> list[TrainConfig]:
    """All runs, seed by seed; those that start from a run come after it.

    Returns:
        Their configurations.

    Example:
        >>> [config.name for config in runs()[:3]]
        ['noise-start-seed3', 'noise-lr0.3-wd0.03-seed3', 'noise-tuned1-lr0.3-wd0.03-seed3']
    """
    out = []
    for seed in SEEDS:
        out.append(pretrained(seed))
        for arm in ARMS:
            out += [switched(*arm, seed), *(tuned(*arm, seed, epoch) for epoch in TUNED)]
    return out


def labels(config: TrainConfig) -> dict[str, str | float]:
    """Which part of the figure a run is.

    Args:
        config: The run.

    Returns:
        Columns kind (start, run, tuned), after (epochs after the switch at which a fine-tune starts, 0 for the others),
        lr and wd (those of the run after the switch, also for its fine-tunes).
    """
    found = re.fullmatch(r"noise-(?:start|(?:tuned(\d+)-)?lr(.+)-wd(.+))-seed\d+", config.name)
    assert found is not None
    epoch, lr, wd = found.groups()
    if lr is None:
        return {"kind": "start", "after": 0}
    return {"kind": "tuned" if epoch else "run", "after": int(epoch or 0), "lr": float(lr), "wd": float(wd)}


def reduce(record: Record) -> pd.DataFrame:
    """Evaluations of a run and of its averaged weights, and its training loss of every epoch.

    Args:
        record: The run.

    Returns:
        As from `evaluations`; training losses are means over epochs, quantities of the averaged weights end in _ema.
    """
    rows, metrics = evaluations(record), record.metrics()
    average = metrics[metrics["quantity"].isin(("test_error_average", "jacobian_fro_average"))]
    average = average.assign(step=average["step"] + 1, quantity=average["quantity"].str.replace("_average", "_ema"))
    parts = (rows[rows["quantity"] != "train_loss"], average[["step", "quantity", "value"]])
    return pd.concat([*parts, epoch_losses(record, DIGITS_EPOCH)], ignore_index=True)


def of(table: pd.DataFrame, kind: str, arm: tuple[float, float], *, after: int = 0) -> pd.DataFrame:
    """Rows of one run after the switch or of its fine-tunes.

    Args:
        table: The figure's table.
        kind: run or tuned.
        arm: lr and wd.
        after: Of a fine-tune, the epoch at which it starts.

    Returns:
        Its rows, all seeds.
    """
    same = (table["kind"] == kind) & (table["lr"] == arm[0]) & (table["wd"] == arm[1])
    return table[same & (table["after"] == after)]


def tuned_end(table: pd.DataFrame, arm: tuple[float, float], after: int, quantity: str) -> pd.Series:
    """A quantity at the end of a fine-tune.

    Args:
        table: The figure's table.
        arm: lr and wd of the run that it starts from.
        after: Epoch at which it starts.
        quantity: The quantity.

    Returns:
        A value a seed.
    """
    rows = of(table, "tuned", arm, after=after)
    rows = rows[rows["quantity"] == quantity]
    return by_seed(rows[rows["step"] == rows["step"].max()])


def claims(table: pd.DataFrame) -> list[Claim]:
    """What is judged: a stabilised loss, and what fine-tuning finds early and late, with and without decay.

    Args:
        table: The figure's table.

    Returns:
        The claims.
    """
    loss = of(table, "run", DECAYED)
    loss = loss[(loss["quantity"] == "train_loss") & (loss["step"] >= EVERY * DIGITS_EPOCH)]
    off = loss.groupby("seed")["value"].apply(lambda values: (values / values.mean() - 1).abs().max())
    sentence = f"training loss with decay, epochs {EVERY} to {EPOCHS}: largest deviation from its mean"
    out = [claim(LAW, sentence, off, STEADY, "<=")]
    first, last = TUNED[0], TUNED[-1]
    end = lambda arm, after: tuned_end(table, arm, after, "jacobian_fro")
    ratios = {arm: end(arm, last) / end(arm, first) for arm in (DECAYED, UNDECAYED)}
    sentence = f"Jacobian norm fine-tuned after epoch {last} over that after epoch {first}"
    out.append(claim(LAW, f"{sentence}, with decay", ratios[DECAYED].dropna(), ERASED, "<=", null=1.0))
    out.append(claim(LAW, f"{sentence}, without decay", ratios[UNDECAYED].dropna(), KEPT, ">=", null=1.0))
    gain = tuned_end(table, UNDECAYED, last, "test_error") - tuned_end(table, DECAYED, last, "test_error")
    sentence = f"test error fine-tuned after epoch {last}, without decay minus with it"
    return [*out, claim(LAW, sentence, gain.dropna(), GAIN, ">=", null=0.0)]


def draw(table: pd.DataFrame) -> Figure:
    """Draw losses, averaged and fine-tuned iterates against epochs after the switch.

    Args:
        table: The figure's table.

    Returns:
        Two rows: training loss, and test errors of averaged and fine-tuned weights; Jacobian norms of the weights
        themselves, the averaged and the fine-tuned ones.
    """
    figure = Figure(figsize=(style.TWO_COLUMN, 3.9), layout="constrained")
    axes = figure.subplots(2, 3, sharex=True)
    table = table.assign(epoch=table["step"] / DIGITS_EPOCH)
    panels = ("train_loss", "test_error_ema", "test_error", "jacobian_fro", "jacobian_fro_ema", "jacobian_fro")
    titles = ("along the run", "averaged weights", "fine-tuned") * 2
    for place, quantity, title in zip(axes.flat, panels, titles, strict=True):
        for arm, look in zip(ARMS, LOOKS, strict=True):
            rows = fine_tuned(table, arm) if title == "fine-tuned" else of(table, "run", arm)
            if not rows.empty:
                marker = {"marker": look["marker"], "ms": 3.5} if title == "fine-tuned" else {}
                band(place, rows, quantity, look, x="epoch", **marker)
        place.set(title=title, ylabel=LABELS[quantity.removesuffix("_ema")], xlim=(0, EPOCHS + 1))
        place.set_ylim(SHOWN.get(quantity.removesuffix("_ema"), (0, None)))
        if quantity.startswith("jacobian"):
            log_ticks(place)
            place.set_xlabel("epoch after the switch")
    names = [f"lr {lr:g}, wd {wd:g}" for lr, wd in ARMS]
    figure.legend([handle(look, marker=True) for look in LOOKS], names, loc="outside upper center", ncols=len(ARMS))
    return figure


def fine_tuned(table: pd.DataFrame, arm: tuple[float, float]) -> pd.DataFrame:
    """Ends of the fine-tunes of a run, at the epochs at which they start.

    Args:
        table: The figure's table, with epochs.
        arm: lr and wd of the run.

    Returns:
        Rows with these epochs.
    """
    rows = pd.concat([of(table, "tuned", arm, after=after) for after in TUNED])
    return rows[rows["step"] == TUNING * DIGITS_EPOCH].assign(epoch=lambda ends: ends["after"])


SPEC = Spec(
    name="noise_driven_process",
    statement=(
        "With weight decay the noise of a large learning rate stays alive at a stabilised loss, and the iterate that "
        "averaging or fine-tuning finds below it keeps a small Jacobian norm; without decay it returns to memorising."
    ),
    drawn=(
        "Noisy digits: a run that has memorised its labels (lr 0.05, no decay, 50 epochs) goes on at five learning "
        "rates and decays. Training loss of every epoch; test error and scale-invariant Jacobian norm of the weights, "
        f"of their exponential average (half-life {HALF_LIFE // DIGITS_EPOCH} epochs) and after {TUNING} epochs at lr "
        f"{LR_AFTER:g} without decay, at the epochs at which these start; at lr 0.03, wd 0.3 the weights decay to "
        "nothing and leave the axes. Lines are means over seeds, bands their range."
    ),
    origin="original",
    runs={"cpu": runs},
    reduce=reduce,
    labels=labels,
    draw=draw,
    claims=claims,
)
