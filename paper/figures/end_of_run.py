"""Gradient norms rise at the end of a schedule because weight norms lag; corrected decay removes the rise.

torch.optim.AdamW on scale-invariant weights with random gradients, started in equilibrium at the peak rate, which then
falls to zero: a simulation, since the closed form speaks of nothing else. ||g|| ||w|| is constant there, so the rise of
the gradient norm is the fall of the weight norm. Bound: the specification's 5 %. The last steps, in which the learning
rate is zero or nearly so, change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from paper import style
from paper.figures.bands import LOOKS
from paper.figures.claims import Claim, claim, interval
from paper.figures.setups import SEEDS
from paper.figures.spec import Spec
from paper.laws.drive import Model, walk
from theory.equilibrium.adamw import adamw_equilibrium
from theory.trajectory.closed_form import closed_form_norm
from theory.trajectory.gradient_rise import gradient_rise

LR, DECAY, BETAS, D, TENSORS = 4e-3, 0.5, (0.9, 0.95), 512, 4
"""Peak rate, decay, AdamW's betas, coordinates of a tensor, tensors of a seed."""
KAPPAS = (2.0, 5.0, 10.0)
"""lr·wd·steps of the runs."""
SHOWN = 5.0
"""That of the run drawn in full."""
POINTS = 100
"""Moments at which norms are kept."""
OFF = 0.05
"""Largest relative difference between measured and predicted rise."""
KINDS = ("linear", "cosine")
CONVENTIONS = ("decoupled", "corrected")
INPUTS = {
    "lr": LR,
    "wd": DECAY,
    "betas": BETAS,
    "d": D,
    "tensors": TENSORS,
    "kappas": KAPPAS,
    "seeds": SEEDS,
    "points": POINTS,
}


def rates(kind: str, steps: int) -> np.ndarray:
    """The schedule's multiplier.

    Args:
        kind: linear or cosine, to zero.
        steps: Number of steps.

    Returns:
        Values from 1 towards 0, shape (steps,).
    """
    s = (np.arange(steps) + 0.5) / steps
    return 1 - s if kind == "linear" else (1 + np.cos(np.pi * s)) / 2


def simulate(scale: str) -> pd.DataFrame:
    """Run AdamW down every schedule.

    Args:
        scale: Not used: there is one.

    Returns:
        Columns run, kind, convention, kappa, seed, step, steps, quantity (rise), value: the gradient norm over that at
        the start, root mean square over tensors.
    """
    del scale
    norm = float(adamw_equilibrium(LR, DECAY, BETAS, D).norm)
    model = Model(D, TENSORS, scale_invariant=True)
    parts = []
    for kind in KINDS:
        for kappa in KAPPAS:
            steps = round(kappa / (LR * DECAY))
            shape, every = rates(kind, steps), steps // POINTS
            for convention in CONVENTIONS:
                decays = DECAY * shape if convention == "corrected" else np.full(steps, DECAY)
                for seed in SEEDS:
                    squares, _ = walk(adamw, LR * shape, model, norm, seed, weight_decays=decays.tolist(), every=every)
                    labels: Mapping[str, Any] = {"kind": kind, "convention": convention, "kappa": kappa, "seed": seed}
                    rise = np.sqrt((norm**2 / squares).mean(axis=1))
                    at = every * (1 + np.arange(len(rise)))
                    name = f"{kind}-{convention}-{kappa:g}-seed{seed}"
                    part = pd.DataFrame({"run": name, **labels, "step": at, "steps": steps})
                    parts.append(part.assign(quantity="rise", value=rise))
    return pd.concat(parts, ignore_index=True)


def adamw(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer; its rates are set step by step."""
    return torch.optim.AdamW(parameters, lr=LR, betas=BETAS, eps=1e-30, weight_decay=DECAY)


def ends(table: pd.DataFrame, kind: str, convention: str, kappa: float) -> np.ndarray:
    """Rise at the end, seed by seed.

    Args:
        table: The figure's table.
        kind: The schedule.
        convention: The decay's convention.
        kappa: lr·wd·steps.

    Returns:
        One number a seed.
    """
    chosen = (table["kind"] == kind) & (table["convention"] == convention) & (table["kappa"] == kappa)
    last = table[chosen].sort_values("step").groupby("run").tail(1)
    return last.sort_values("seed")["value"].to_numpy(np.float64)


def claims(table: pd.DataFrame) -> list[Claim]:
    """What is judged: the rise is the closed form's, and under corrected decay there is none.

    Args:
        table: The figure's table.

    Returns:
        The claims; the worst kappa stands for each schedule and convention.
    """
    out = []
    for kind in KINDS:
        for convention in CONVENTIONS:
            predicted = {k: gradient_rise(kind, k).rise if convention == "decoupled" else 1.0 for k in KAPPAS}
            off = {kappa: np.abs(ends(table, kind, convention, kappa) / predicted[kappa] - 1) for kappa in KAPPAS}
            worst = max(off, key=lambda kappa: float(off[kappa].mean()) if len(off[kappa]) else 0.0)
            law = "gradient_rise" if convention == "decoupled" else "decay_convention_norm"
            sentence = f"rise of the gradient norm, {kind} to zero, {convention} decay: relative error of the law"
            note = f"worst of lr·wd·steps = {', '.join(f'{k:g}' for k in KAPPAS)}: {worst:g}"
            out.append(claim(law, sentence, off[worst], OFF, "<=", note=note))
    return out


def draw(table: pd.DataFrame) -> Figure:
    """Draw the gradient norm along a schedule, and its rise against lr·wd·steps.

    Args:
        table: The figure's table.

    Returns:
        Two panels.
    """
    figure = Figure(figsize=(style.TWO_COLUMN, 2.4), layout="constrained")
    along, end = figure.subplots(1, 2)
    chosen = table[(table["kind"] == "linear") & (table["kappa"] == SHOWN)]
    for convention, look in zip(CONVENTIONS, LOOKS, strict=False):
        wide = chosen[chosen["convention"] == convention].pivot_table(index="step", columns="seed", values="value")
        s = wide.index.to_numpy(np.float64) / float(chosen["steps"].iloc[0])
        along.fill_between(s, wide.min(axis=1), wide.max(axis=1), color=look["color"], alpha=0.18, lw=0)
        along.plot(s, wide.mean(axis=1), color=look["color"], label=f"AdamW, {convention} decay")
    s = np.linspace(0, 1, 200)
    law = [closed_form_norm("linear", SHOWN, 1.0, x=1 - x).r ** -0.5 for x in s]
    along.plot(s, law, color=style.INK, lw=0.8, ls=(0, (4, 1.5)), label="closed form")
    along.axhline(1, color=style.INK, lw=0.8, ls=(0, (4, 1.5)))
    along.set(xlabel="part of the run", ylabel="gradient norm, of its start", xlim=(0, 1))
    along.set_title(f"linear to zero, lr·wd·steps = {SHOWN:g}")
    along.legend(fontsize=6.5, loc="upper left")
    rises(end, table)
    return figure


def rises(axes: Axes, table: pd.DataFrame) -> None:
    """Draw the rise at the end against lr·wd·steps, measured over predicted.

    Args:
        axes: Where.
        table: The figure's table.
    """
    kappa = np.geomspace(0.5 * KAPPAS[0], 2 * KAPPAS[-1], 100)
    for kind, dashes in zip(KINDS, ((0, (4, 1.5)), (0, (1, 1))), strict=True):
        axes.plot(
            kappa, [gradient_rise(kind, k).rise for k in kappa], color=style.INK, lw=0.8, ls=dashes, label=f"{kind}"
        )
    for kind, filled in zip(KINDS, (True, False), strict=True):
        for convention, look in zip(CONVENTIONS, LOOKS, strict=False):
            for each in KAPPAS:
                mean, low, high = interval(ends(table, kind, convention, each))
                fill = look["color"] if filled else "white"
                axes.errorbar(
                    each,
                    mean,
                    [[mean - low], [high - mean]],
                    fmt=look["marker"],
                    color=look["color"],
                    mfc=fill,
                    ms=4,
                    lw=0.8,
                )
    axes.axhline(1, color=style.QUIET, lw=0.6)
    axes.set(xscale="log", xlabel="lr·wd·steps", ylabel="rise at the end", title="filled: linear, open: cosine")
    axes.set_xticks(KAPPAS, [f"{each:g}" for each in KAPPAS])
    axes.minorticks_off()
    axes.legend(fontsize=6.5, loc="upper left", title="closed form", title_fontsize=6.5)


SPEC = Spec(
    name="end_of_run",
    statement=(
        "The gradient norm rises at the end of a schedule because the weight norm lags behind the learning rate; "
        "corrected decay removes the rise."
    ),
    drawn=(
        "torch.optim.AdamW on scale-invariant weights with random gradients, from equilibrium at the peak rate: "
        "gradient norm along a linear schedule, and at the end against lr·wd·steps, over the closed form (black)."
    ),
    origin="ours",
    simulation=simulate,
    inputs={"cpu": INPUTS},
    draw=draw,
    claims=claims,
)
