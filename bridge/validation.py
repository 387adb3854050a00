"""The main job's checks: what theory said about five runs before they began, against what they did."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from bridge import bounds
from bridge.calibrate import calibrate
from bridge.check import Check
from bridge.compare import Comparison, compare
from empirics.experiments import DIGITS_CONSTANT, DIGITS_EPOCH
from empirics.records import Record
from theory.errors import InputError
from theory.invariance import angle_from_norms
from theory.optimizers import SGD
from theory.predict import predict
from theory.prediction import Prediction
from theory.recipe import Recipe

NOT_JUDGED = {
    "wte": "its rows see few gradients, and those point the same way for long (a signal)",
    "wpe": "it is not scale-invariant: the loss pulls it back towards small norms",
    ".v": "value and output projections are not scale-invariant: the loss pulls them back towards small norms",
    "attn.c_proj": "value and output projections are not scale-invariant: the loss pulls them back towards small norms",
    ".q": "queries and keys follow a signal early in training, which pushes their norm up",
    ".k": "queries and keys follow a signal early in training, which pushes their norm up",
}
"""Tensors whose a-priori norm is predicted and shown, not judged, and why (by a part of their names)."""
SETTLED = (20 * DIGITS_EPOCH, DIGITS_CONSTANT)
"""Steps of the ResNet at stationary norm: epochs 20 to 60."""
C2_WINDOW = (5 * DIGITS_EPOCH, 10 * DIGITS_EPOCH - 1)
"""Steps from which c2 is measured: epochs 5 to 10."""


def block_matrices(recipe: Recipe) -> list[str]:
    """Names of the matrices inside a GPT-2's blocks.

    Args:
        recipe: Recipe of the run.

    Returns:
        Names, in order.
    """
    return [group.name for group in recipe.groups if ".h." in group.name and len(group.shape) >= 2]


def why_not_judged(name: str) -> str | None:
    """Why the a-priori norm and angle of a tensor are not judged.

    Args:
        name: The tensor's name.

    Returns:
        The reason, or None if they are.
    """
    return next((why for part, why in NOT_JUDGED.items() if part in name and "mlp" not in name), None)


def calibrated_prediction(record: Record) -> Prediction:
    """Issue a language model's prediction again at half of the run, from the norm curves of its second quarter.

    Args:
        record: The finished run.

    Returns:
        The prediction for the second half.
    """
    recipe = recipe_of(record)
    return predict(recipe, calibrate(record, start=recipe.steps // 4, stop=recipe.steps // 2))


def c2_prediction(record: Record) -> Prediction:
    """Issue a ResNet's prediction again at epoch 10, from the gradients' size in epochs 5 to 10.

    Args:
        record: The run.

    Returns:
        The prediction for the rest of the run.
    """
    return predict(recipe_of(record), calibrate(record, start=C2_WINDOW[0], stop=C2_WINDOW[1]))


def recipe_of(record: Record) -> Recipe:
    """The recipe stored with a run's prediction.

    Args:
        record: The run.

    Returns:
        Its recipe.

    Raises:
        InputError: If the run has no prediction.
    """
    if record.recipe is None:
        raise InputError(f"{record.name} holds no prediction: it cannot be validated.")
    return record.recipe


def language_model_checks(decayed: Record, undecayed: Record) -> list[Check]:
    """Checks on the GPT-2 runs.

    Args:
        decayed: The run with weight decay.
        undecayed: The same without.

    Returns:
        The checks, in the order of the report.
    """
    recipe = recipe_of(decayed)
    blocks = block_matrices(recipe)
    judged = [name for name in blocks if why_not_judged(name) is None]
    tenth, half = recipe.steps // 10, recipe.steps // 2
    runs = {"decayed": compare(decayed), "undecayed": compare(undecayed)}
    checks = []
    for kind, comparison in runs.items():
        update = update_residual(comparison, start=tenth)[blocks]
        checks.append(_worst("adamw_trajectory", f"RMS update of every block matrix, {kind}", update, bounds.UPDATE))
        angle = comparison.residual("angle", start=tenth)[judged]
        checks.append(
            _worst("adamw_trajectory", f"angle of the MLP matrices a priori, {kind}", angle, bounds.ANGLE_MLP)
        )
    ratio = angle_ratio_residual(runs["decayed"], runs["undecayed"], start=tenth)
    checks.append(
        _worst("adamw_trajectory", "angle decayed/undecayed, MLP matrices", ratio[judged], bounds.ANGLE_RATIO)
    )
    median = float(ratio[blocks].abs().median())
    checks.append(
        Check("adamw_trajectory", "angle decayed/undecayed, median over block matrices", median, bounds.ANGLE_RATIO)
    )
    for kind, record in (("decayed", decayed), ("undecayed", undecayed)):
        calibrated = compare(record, calibrated_prediction(record))
        worst = calibrated.worst("norm", start=half)[blocks]
        checks.append(
            _worst("long_run_ratio", f"norm after calibration, second half, {kind}", worst, bounds.NORM_CALIBRATED)
        )
        claim = f"norm after calibration, second half, {kind}, median over block matrices"
        checks.append(Check("long_run_ratio", claim, float(worst.median()), bounds.NORM_CALIBRATED_MEDIAN))
    gaps = [final(record, "val_loss") - final(record, "fresh_loss") for record in (decayed, undecayed)]
    claim = "validation minus fresh training loss, decayed minus undecayed (nats)"
    note = f"gaps {gaps[0]:.4f} and {gaps[1]:.4f}"
    stderr = math.hypot(*(paired_stderr(decayed, undecayed, f"{kind}_loss_block") for kind in ("val", "fresh")))
    checks.append(Check("one-pass regime", claim, abs(gaps[0] - gaps[1]), bounds.GAP, stderr=stderr, note=note))
    return checks


def residual_network_checks(decayed: Record, undecayed: Record, invariant: Record) -> list[Check]:
    """Checks on the ResNet runs.

    Args:
        decayed: The run with weight decay.
        undecayed: The same without.
        invariant: The scale-invariant variant with weight decay.

    Returns:
        The checks, in the order of the report.
    """
    first, last = SETTLED
    optimizer = recipe_of(invariant).optimizer
    assert isinstance(optimizer, SGD)
    product = optimizer.lr * optimizer.weight_decay
    measured = invariant.pivot("angle").loc[first : last - 1]
    rms = np.sqrt((measured**2).mean())
    equilibrium = compare(invariant).residual("angle", start=first, stop=last)
    pooled = float(np.sqrt((((1 + equilibrium) * rms) ** 2).sum() / (rms**2).sum()) - 1)
    norms = invariant.pivot("norm")
    norms.loc[-1] = invariant.pivot("norm0").iloc[0]
    norms = norms.sort_index()
    drift = np.log(norms.loc[last - 1] / norms.loc[first - 1]) / (last - first)
    drift_residual = np.sqrt(2 * (product + drift)) / rms - 1
    from_norms = {
        name: angle_from_norms(norms.loc[first - 1 : last - 1, name], optimizer.lr, optimizer.weight_decay).angle
        for name in norms
    }
    norm_residual = pd.Series({name: np.sqrt(np.mean(angle**2)) for name, angle in from_norms.items()}) / rms - 1
    c2 = compare(invariant, c2_prediction(invariant), windows=10_000, quantities=("norm",)).windows
    c2 = c2[c2["stop"] <= DIGITS_CONSTANT]
    errors = [final(record, "test_error") for record in (decayed, undecayed)]
    jacobians = [final(record, "jacobian_fro") for record in (decayed, undecayed)]
    law = "sgd_equilibrium"
    return [
        Check(law, "angle from lr*wd alone, scale-invariant, pooled", abs(pooled), bounds.EQUILIBRIUM_POOLED),
        _worst(law, "the same, worst layer", equilibrium, bounds.EQUILIBRIUM_LAYER),
        _worst("drift", "angle from lr*wd and the norm's drift", drift_residual, bounds.DRIFT),
        _worst("angle_from_norms", "angle from the norms alone", norm_residual, bounds.FROM_NORMS),
        Check(
            "sgd_trajectory",
            "norms of epochs 10-60 from c2 of epochs 5-10 (RMS)",
            float(np.sqrt((c2["residual"] ** 2).mean())),
            bounds.NORM_FROM_C2,
        ),
        Check(
            "over-training regime",
            "test error, undecayed minus decayed",
            errors[1] - errors[0],
            bounds.ERROR_GAIN,
            ">=",
            note=f"{errors[1]:.1%} against {errors[0]:.1%}",
        ),
        Check(
            "over-training regime",
            "Jacobian norm, decayed over undecayed",
            jacobians[0] / jacobians[1],
            bounds.JACOBIAN_RATIO,
            note=f"{jacobians[0]:.0f} against {jacobians[1]:.0f}",
        ),
    ]


def update_residual(comparison: Comparison, *, start: int) -> pd.Series:
    """Residual of the update's size itself: relative update times norm, so that the norm's own error drops out.

    Args:
        comparison: Of a run under AdamW.
        start: First step that counts.

    Returns:
        predicted/measured - 1 of the RMS over windows, indexed by tensor.
    """
    frame = comparison.windows[comparison.windows["start"] >= start]
    sizes = frame.pivot(index=["tensor", "start"], columns="quantity", values=["predicted", "measured"])
    ratio = (sizes["predicted"]["relative_update"] * sizes["predicted"]["norm"]) / (
        sizes["measured"]["relative_update"] * sizes["measured"]["norm"]
    )
    return 1 / np.sqrt((1 / ratio**2).groupby("tensor").mean()) - 1


def angle_ratio_residual(decayed: Comparison, undecayed: Comparison, *, start: int) -> pd.Series:
    """Residual of the ratio of angles between two runs.

    Args:
        decayed: Comparison of one run.
        undecayed: Comparison of the other.
        start: First step that counts.

    Returns:
        predicted ratio / measured ratio - 1, indexed by tensor.
    """
    first, second = (comparison.residual("angle", start=start) for comparison in (decayed, undecayed))
    return (1 + first) / (1 + second) - 1


def paired_stderr(first: Record, second: Record, quantity: str) -> float:
    """Standard error of the mean difference between two runs that were evaluated on the same blocks.

    Args:
        first: One run.
        second: The other.
        quantity: A quantity measured in blocks.

    Returns:
        Standard error over blocks.
    """
    difference = first.pivot(quantity).iloc[-1] - second.pivot(quantity).iloc[-1]
    return float(difference.std() / math.sqrt(len(difference)))


def final(record: Record, quantity: str) -> float:
    """Last value of a global quantity.

    Args:
        record: The run.
        quantity: Its name.

    Returns:
        The value.
    """
    return float(record.series(quantity).iloc[-1])


def validation_checks(records: Mapping[str, Record]) -> list[Check]:
    """All checks of the main job.

    Args:
        records: Finished runs by role, as in `empirics.experiments.validation`.

    Returns:
        The checks.
    """
    return language_model_checks(records["lm-decayed"], records["lm-undecayed"]) + residual_network_checks(
        records["vision-decayed"], records["vision-undecayed"], records["vision-invariant"]
    )


def unfinished(records: Mapping[str, Record]) -> list[str]:
    """Which runs did not finish, and why.

    Args:
        records: Runs by role.

    Returns:
        A sentence for each; none if all finished.
    """
    reasons = []
    for role, record in records.items():
        if record.status != "finished":
            why = record.error or (record.divergence or {}).get("trigger") or "its directory says no more"
            reasons.append(f"run {role} ({record.name}) is {record.status}, not finished: {why}.")
    return reasons


def _worst(law: str, claim: str, residuals: pd.Series, bound: float) -> Check:
    size = residuals.abs()
    name = str(size.idxmax())
    return Check(law, claim, float(size.max()), bound, note=f"worst of {len(size)}: {name} ({residuals[name]:+.1%})")
