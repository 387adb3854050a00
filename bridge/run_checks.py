"""Checks of single runs: what theory said before they began, or from a part of them, against what they did."""

from __future__ import annotations

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


def prior_checks(comparison: Comparison, recipe: Recipe, kind: str) -> list[Check]:
    """Checks of a GPT-2 on the prediction from before its first step.

    Args:
        comparison: Of the run.
        recipe: Its recipe.
        kind: Its name in the claims.

    Returns:
        The checks.
    """
    blocks, tenth = block_matrices(recipe), recipe.steps // 10
    judged = [name for name in blocks if why_not_judged(name) is None]
    update = update_residual(comparison, start=tenth)[blocks]
    angle = comparison.residual("angle", start=tenth)[judged]
    law = "adamw_trajectory"
    return [
        worst_of(law, f"RMS update of every block matrix, {kind}", update, bounds.UPDATE),
        worst_of(law, f"angle of the MLP matrices a priori, {kind}", angle, bounds.ANGLE_MLP),
    ]


def calibrated_checks(record: Record, kind: str) -> list[Check]:
    """Checks of a GPT-2's norms in the second half, calibrated on the second quarter.

    Args:
        record: The run.
        kind: Its name in the claims.

    Returns:
        The checks.
    """
    recipe = recipe_of(record)
    calibrated = compare(record, calibrated_prediction(record))
    worst = calibrated.worst("norm", start=recipe.steps // 2)[block_matrices(recipe)]
    claim = f"norm after calibration, second half, {kind}"
    return [
        worst_of("long_run_ratio", claim, worst, bounds.NORM_CALIBRATED),
        Check(
            "long_run_ratio",
            f"{claim}, median over block matrices",
            float(worst.median()),
            bounds.NORM_CALIBRATED_MEDIAN,
        ),
    ]


def invariant_checks(record: Record) -> list[Check]:
    """Checks of a scale-invariant ResNet at constant rate.

    Args:
        record: The run.

    Returns:
        The checks.
    """
    first, last = SETTLED
    optimizer = recipe_of(record).optimizer
    assert isinstance(optimizer, SGD)
    product = optimizer.lr * optimizer.weight_decay
    measured = record.pivot("angle").loc[first : last - 1]
    rms = np.sqrt((measured**2).mean())
    equilibrium = compare(record).residual("angle", start=first, stop=last)
    pooled = float(np.sqrt((((1 + equilibrium) * rms) ** 2).sum() / (rms**2).sum()) - 1)
    norms = record.pivot("norm")
    norms.loc[-1] = record.pivot("norm0").iloc[0]
    norms = norms.sort_index()
    drift = np.log(norms.loc[last - 1] / norms.loc[first - 1]) / (last - first)
    drift_residual = np.sqrt(2 * (product + drift)) / rms - 1
    from_norms = {
        name: angle_from_norms(norms.loc[first - 1 : last - 1, name], optimizer.lr, optimizer.weight_decay).angle
        for name in norms
    }
    norm_residual = pd.Series({name: np.sqrt(np.mean(angle**2)) for name, angle in from_norms.items()}) / rms - 1
    c2 = compare(record, c2_prediction(record), windows=10_000, quantities=("norm",)).windows
    c2 = c2[c2["stop"] <= DIGITS_CONSTANT]
    law = "sgd_equilibrium"
    return [
        Check(law, "angle from lr*wd alone, scale-invariant, pooled", abs(pooled), bounds.EQUILIBRIUM_POOLED),
        worst_of(law, "the same, worst layer", equilibrium, bounds.EQUILIBRIUM_LAYER),
        worst_of("drift", "angle from lr*wd and the norm's drift", drift_residual, bounds.DRIFT),
        worst_of("angle_from_norms", "angle from the norms alone", norm_residual, bounds.FROM_NORMS),
        Check(
            "sgd_trajectory",
            "norms of epochs 10-60 from c2 of epochs 5-10 (RMS)",
            float(np.sqrt((c2["residual"] ** 2).mean())),
            bounds.NORM_FROM_C2,
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


def worst_of(law: str, claim: str, residuals: pd.Series, bound: float) -> Check:
    """A check of the largest residual.

    Args:
        law: The law.
        claim: What should hold.
        residuals: Signed, by tensor.
        bound: On their absolute value.

    Returns:
        The check; its note names the tensor.
    """
    size = residuals.abs()
    name = str(size.idxmax())
    return Check(law, claim, float(size.max()), bound, note=f"worst of {len(size)}: {name} ({residuals[name]:+.1%})")
