"""Does a recipe survive weights stored in low precision? Decay, steps and second moments that round away."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr

from theory.errors import require
from theory.optimizers import Adam, AdamW, Decay
from theory.precision.bf16 import normal_sizes
from theory.precision.survival import bf16_scale_survival
from theory.predict import predict
from theory.recipe import Recipe

BITS = {"bfloat16": 8, "float16": 11, "float32": 24}
"""Significant bits of the weights' formats, the leading one included."""
STALL = 0.17
"""RMS step over the weights' spacing at which a rounded walk stops growing (`rounding_diffusion`: 0.15 to 0.2)."""
OVERFLOW = 65_520.0
"""Magnitude that float16 rounds to infinity."""


@dataclass(frozen=True)
class PrecisionFinding:
    """Something that rounding does to a run."""

    what: str
    """decay_rounds_away, steps_stall, second_moment_frozen or overflow."""
    group: str
    """Name of the tensor it was found in; "" if it concerns the optimizer as a whole."""
    fraction_affected: float
    """Share of the weights affected at `first_step`, in [0, 1]."""
    first_step: int
    """Step at which it begins under the schedule."""
    severity: str
    """"high" where most weights are affected, else "low"."""
    remedy: str
    """What to do about it."""


def precision_check(
    recipe: Recipe, weight_dtype: str = "bfloat16", rounding: str = "nearest"
) -> list[PrecisionFinding]:
    """What storing weights (and Adam's moments) in low precision will do under a recipe's schedule.

    Decay: p.mul_(1 - shrink) changes no weight where shrink <= 2^-(p+1), p significant bits (`bf16_scale_survival`);
    stochastic rounding, or the one rounding of fused kernels, keeps it alive. Steps: a weight of spacing u stalls where
    the RMS step is below 0.17 u (`rounding_diffusion`), with norms and steps as `predict` gives them. Second moments:
    v.mul_(beta2) never forgets where 1-beta2 <= 2^-(p+1). Nothing is said about gradients and activations, whose sizes
    no recipe knows: `coupled_l2_survival` and `residual_precision` take them.

    Source: theory.precision. Shares follow from weights normally distributed around 0.

    Args:
        recipe: The recipe.
        weight_dtype: "bfloat16", "float16" or "float32", of weights and optimizer state; float32 master weights are
            "float32".
        rounding: "nearest" (torch's for-loop and foreach kernels), "fused" (one rounding a step) or "stochastic".

    Returns:
        Findings, one of a kind for each tensor; empty if all is well.

    Raises:
        InputError: If the format or the rounding is unknown, or the recipe cannot be predicted.

    Example:
        >>> from theory.recipe import Group
        >>> recipe = Recipe(AdamW(lr=6e-4, weight_decay=0.1), steps=100, groups=(Group("w", (64, 64), norm0=1.3),))
        >>> [(f.what, f.fraction_affected, f.first_step) for f in precision_check(recipe)]
        [('second_moment_frozen', 1.0, 0), ('decay_rounds_away', 1.0, 0)]
    """
    require(weight_dtype in BITS, "weight_dtype", weight_dtype, f"one of {', '.join(BITS)}")
    roundings = ("nearest", "fused", "stochastic")
    require(rounding in roundings, "rounding", rounding, f"one of {', '.join(roundings)}")
    bits, found = BITS[weight_dtype], []
    if weight_dtype == "float32":
        return []
    limit = 2.0 ** -(bits + 1)
    optimizer = recipe.optimizer
    if isinstance(optimizer, (Adam, AdamW)) and rounding != "stochastic":
        frozen = np.flatnonzero(1 - recipe.betas()[:, 1] <= limit)
        if len(frozen):
            remedy = f"keep the second moment in float32, or take betas[1] below {1 - limit:.5f}"
            found.append(PrecisionFinding("second_moment_frozen", "", 1.0, int(frozen[0]), "high", remedy))
    prediction = predict(recipe)
    at = prediction.default_steps()
    values = prediction.values(at)
    for index, group in enumerate(recipe.groups):
        shrink = recipe.shrink(np.arange(recipe.steps), group)
        lost = np.flatnonzero((shrink > 0) & (shrink <= limit))
        if len(lost) and rounding == "nearest" and optimizer.decay is not Decay.COUPLED:
            exact = weight_dtype == "bfloat16"
            share = 1 - bf16_scale_survival(1 - float(shrink[lost[0]])).fraction_changed if exact else 1.0
            remedy = "round stochastically, use fused kernels, keep float32 master weights, or decay every k-th step"
            found.append(PrecisionFinding("decay_rounds_away", group.name, share, int(lost[0]), "high", remedy))
        rms, step = values["rms"][:, index], (values["relative_update"] * values["rms"])[:, index]
        if rounding != "stochastic":
            found += _stalled(group.name, at, rms, step, bits)
        large = np.flatnonzero(6 * rms > OVERFLOW) if weight_dtype == "float16" else []
        if len(large):
            remedy = "use bfloat16, or more weight decay"
            share = float(2 * ndtr(-OVERFLOW / rms[large[0]]))
            found.append(PrecisionFinding("overflow", group.name, share, int(at[large[0]]), "high", remedy))
    return found


def _stalled(name: str, at: np.ndarray, rms: np.ndarray, step: np.ndarray, bits: int) -> list[PrecisionFinding]:
    """The first reported step at which a tenth of a tensor's weights no longer move although the rate is not zero."""
    sizes = normal_sizes(512)
    moving = np.flatnonzero(np.isfinite(rms) & (rms > 0) & (step > 0))
    for i in moving.tolist():
        spacing = np.ldexp(1.0, np.frexp(rms[i] * sizes)[1] - bits)
        share = float(np.mean(step[i] < STALL * spacing))
        if share >= 0.1:
            remedy = "round stochastically or keep float32 master weights"
            return [PrecisionFinding("steps_stall", name, share, int(at[i]), "high" if share > 0.5 else "low", remedy)]
    return []
