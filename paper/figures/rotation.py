"""Every matrix of a GPT-2 and a ResNet through a whole run: predicted before it, calibrated on a part of it, measured.

The main job's runs (`decaylab validate`) at seeds 3, 4 and 5, and its checks of single runs with their bounds
(`bridge.bounds`), section 2 of the specification: a GPT-2 with 2 layers of width 64 over 6,000 steps of cosine, with
decay and without; and the scale-invariant ResNet on noisy digits at lr 0.3, wd 0.03. GPT-2: a priori, and calibrated
at the half of the run on its second quarter. ResNet: from lr*wd alone, and from c^2 of epochs 5-10. Queries, keys,
values and output projections are shown but not judged a priori: they are not scale-invariant, or follow a signal.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from bridge import bounds
from bridge.compare import Comparison, compare
from bridge.run_checks import (
    block_matrices,
    c2_prediction,
    calibrated_checks,
    calibrated_prediction,
    invariant_checks,
    prior_checks,
    recipe_of,
    why_not_judged,
)
from empirics.config import TrainConfig
from empirics.experiments import experiment
from empirics.models import GPT2Config
from empirics.records import Record
from paper.curves import rms_windows
from paper.figures.claims import Claim, claim
from paper.figures.language_model import COLUMNS
from paper.figures.rotation_panels import QUANTITIES, draw
from paper.figures.setups import SEEDS
from paper.figures.spec import Spec

EXPERIMENTS = {
    "decayed": "gpt2_small_text",
    "undecayed": "gpt2_small_text_undecayed",
    "invariant": "resnet_noisy_digits_invariant",
}
"""Experiments by the name that runs have here."""
WINDOWS = 60
"""Curves are RMS values over so many windows of a run."""
SINGLE = {
    "RMS update of every block matrix, {}": ("adamw_trajectory", bounds.UPDATE),
    "angle of the MLP matrices a priori, {}": ("adamw_trajectory", bounds.ANGLE_MLP),
    "norm after calibration, second half, {}": ("long_run_ratio", bounds.NORM_CALIBRATED),
    "norm after calibration, second half, {}, median over block matrices": (
        "long_run_ratio",
        bounds.NORM_CALIBRATED_MEDIAN,
    ),
}
"""Law and bound of what is judged in each run of the GPT-2."""
INVARIANT = {
    "angle from lr*wd alone, scale-invariant, pooled": ("sgd_equilibrium", bounds.EQUILIBRIUM_POOLED),
    "the same, worst layer": ("sgd_equilibrium", bounds.EQUILIBRIUM_LAYER),
    "angle from lr*wd and the norm's drift": ("drift", bounds.DRIFT),
    "angle from the norms alone": ("angle_from_norms", bounds.FROM_NORMS),
    "norms of epochs 10-60 from c2 of epochs 5-10 (RMS)": ("sgd_trajectory", bounds.NORM_FROM_C2),
}
"""The same of the ResNet."""


def runs() -> list[TrainConfig]:
    """The runs, seed by seed."""
    return [experiment(name, seed=seed) for seed in SEEDS for name in EXPERIMENTS.values()]


def kind_of(config: TrainConfig) -> str:
    """Which of the three a run is.

    Args:
        config: The run.

    Returns:
        decayed, undecayed or invariant.
    """
    if not isinstance(config.model, GPT2Config):
        return "invariant"
    return "decayed" if config.optimizer.weight_decay > 0 else "undecayed"


def reduce(record: Record) -> pd.DataFrame:
    """Curves of a run and the numbers that are judged.

    Args:
        record: The finished run, with its prediction.

    Returns:
        Columns step (end of the window), tensor, quantity (norm, angle; angle_residual: predicted/measured - 1 from a
        tenth of the run on; check), what (measured, predicted, low, high, calibrated), value. Of a check, `tensor` is
        what it claims.
    """
    kind, recipe = kind_of(record.config), recipe_of(record)
    again = c2_prediction(record) if kind == "invariant" else calibrated_prediction(record)
    prior = compare(record, windows=WINDOWS, quantities=QUANTITIES)
    parts = [measured(record), curves(prior, ("predicted", "low", "high"))]
    parts.append(curves(compare(record, again, windows=WINDOWS, quantities=QUANTITIES), ("predicted",), "calibrated"))
    if kind == "invariant":
        checks = invariant_checks(record)
    else:
        comparison = compare(record)
        checks = prior_checks(comparison, recipe, kind) + calibrated_checks(record, kind)
        ratio = comparison.residual("angle", start=recipe.steps // 10)[block_matrices(recipe)]
        parts.append(
            pd.DataFrame({"tensor": ratio.index, "quantity": "angle_residual", "what": "predicted", "value": ratio})
        )
    judged = {check.claim: check.measured for check in checks}
    parts.append(
        pd.DataFrame({"tensor": list(judged), "quantity": "check", "what": "measured", "value": list(judged.values())})
    )
    rows = pd.concat(parts, ignore_index=True)
    return rows.assign(step=rows["step"].fillna(recipe.steps).astype(int))[
        ["step", "tensor", "quantity", "what", "value"]
    ]


def measured(record: Record) -> pd.DataFrame:
    """Norms and angles of a run, RMS over windows.

    Args:
        record: The run.

    Returns:
        Columns step, tensor, quantity, what, value.
    """
    width, parts = recipe_of(record).steps / WINDOWS, []
    for quantity in QUANTITIES:
        for name, values in record.pivot(quantity).items():
            at, rms = rms_windows(values.index.to_numpy(np.int64), values.to_numpy(np.float64), width)
            part = {"step": at, "tensor": str(name), "quantity": quantity, "what": "measured", "value": rms}
            parts.append(pd.DataFrame(part))
    rows = pd.concat(parts, ignore_index=True)
    return rows[shown(rows["tensor"])]


def shown(names: pd.Series) -> pd.Series:
    """Whether tensors are drawn: a GPT-2's block matrices, all of a ResNet's."""
    return names.str.endswith(tuple(COLUMNS)) | ~names.str.contains("transformer")


def curves(comparison: Comparison, columns: tuple[str, ...], name: str = "") -> pd.DataFrame:
    """A comparison's windows, long.

    Args:
        comparison: Of a run.
        columns: Which of predicted, low, high.
        name: What to call the one column.

    Returns:
        Columns step, tensor, quantity, what, value.
    """
    windows = comparison.windows
    long = windows[shown(windows["tensor"])].melt(["tensor", "quantity", "stop"], list(columns), "what", "value")
    long = long.rename(columns={"stop": "step"})
    return long.assign(what=name) if name else long


def claims(table: pd.DataFrame) -> list[Claim]:
    """The main job's checks of single runs, and the ratio of angles with and without decay.

    Args:
        table: The figure's table.

    Returns:
        The claims; each seed's number is the worst of its tensors.
    """
    checks = table[table["quantity"] == "check"].sort_values("seed")
    of = lambda name: checks.loc[checks["tensor"] == name, "value"].tolist()
    out = []
    for kind in ("decayed", "undecayed"):
        for sentence, (law, bound) in SINGLE.items():
            name = sentence.format(kind)
            out.append(claim(law, name, of(name), bound, "<="))
    residual = table[table["quantity"] == "angle_residual"].pivot_table(
        index=["seed", "tensor"], columns="kind", values="value"
    )
    if {"decayed", "undecayed"} <= set(residual):
        off = ((1 + residual["decayed"]) / (1 + residual["undecayed"]) - 1).abs()
        mlp = off[[why_not_judged(str(name)) is None for _, name in off.index]]
        worst, median = (
            mlp.groupby("seed").max().dropna().tolist(),
            off.groupby("seed").median().dropna().tolist(),
        )
        law = "adamw_trajectory"
        out.append(claim(law, "angle decayed/undecayed, MLP matrices", worst, bounds.ANGLE_RATIO, "<="))
        out.append(claim(law, "angle decayed/undecayed, median over block matrices", median, bounds.ANGLE_RATIO, "<="))
    return out + [claim(law, name, of(name), bound, "<=") for name, (law, bound) in INVARIANT.items()]


SPEC = Spec(
    name="rotation",
    statement=(
        "Norm and rotation of every matrix follow from the recipe where its assumptions hold, and from a short "
        "calibration where they do not."
    ),
    drawn=(
        "Block matrices of a small GPT-2 with weight decay through a run of 6,000 steps, and all layers of a "
        "scale-invariant ResNet on noisy digits: RMS over 60 windows, the prediction written before the first step "
        "with its band, and the one calibrated on the second quarter (GPT-2) or on epochs 5–10 (ResNet)."
    ),
    origin="ours",
    runs={"cpu": runs},
    predicted=True,
    reduce=reduce,
    labels=lambda config: {"kind": kind_of(config)},
    draw=draw,
    claims=claims,
)
