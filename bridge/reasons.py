"""Why a tensor left its band: the assumption that was most likely violated, with the numbers that say so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bridge.compare import Comparison, compare
from bridge.evidence import Evidence, TensorEvidence, gather, measured
from empirics.records import Record
from theory.errors import InputError
from theory.optimizers import SGD, Adam
from theory.recipe import Group, Recipe

LARGE_RATIO = 1.2
"""Long-run variance over the law's, or its inverse, from which gradients count as correlated in time."""
LARGE_UPDATE = 0.1
"""Relative error of the update's own size from which it, not the norm, needs an explanation; the law's own is 5 %."""
ORTHOGONAL = 0.05
"""Residual of SGD's drift-corrected angle up to which gradients count as orthogonal to the weights."""
CLIPPED = 0.05
"""Share of clipped steps from which clipping may matter."""


@dataclass(frozen=True)
class Reason:
    """The most likely violated assumption behind one tensor and quantity."""

    tensor: str
    """Name of the tensor."""
    quantity: str
    """What is off, or was not predicted."""
    assumption: str
    """signal (gradients are not independent noise), scale_invariance, update_size, clipping, rounding, not_decayed,
    equilibrium (the law speaks of stationary norms), unknown_before_data, or unexplained."""
    sentence: str
    """The evidence, in words and numbers."""
    value: float
    """The number that decided."""
    explained: float
    """Share of the residual (of its logarithm) that vanishes once the number is put into the law; nan if unknown."""


def reasons(
    record: Record,
    comparison: Comparison | None = None,
    *,
    quantities: Sequence[str] = ("norm", "angle"),
    start: int = 0,
    stop: int | None = None,
    weight_dtype: str | None = None,
) -> list[Reason]:
    """Explain every tensor and quantity whose verdict is not "in band".

    Measured numbers (long-run variance from the norm curve, size of the update, drift of the norm) are put into the
    laws one at a time; the one that removes most of the residual names the assumption. This is a diagnosis after the
    fact, made from the run that it explains, never a prediction.

    Args:
        record: The run, with its recipe.
        comparison: Its comparison; with the stored prediction if omitted.
        quantities: What is explained, and missed where it was measured and not predicted.
        start: First step that counts.
        stop: Step after the last that counts.
        weight_dtype: Format that the weights were stored in; that of the run's last checkpoint if omitted.

    Returns:
        One reason for each such tensor and quantity, in the comparison's order; then one for each tensor and quantity
        that was measured and is known to theory, but not predicted.

    Raises:
        InputError: If the run holds no recipe.
    """
    comparison = comparison or compare(record, quantities=measured(record))
    table = comparison.table(start, stop)
    evidence = gather(record, start, stop, weight_dtype)
    outside = table[(table["verdict"] != "in band") & table["quantity"].isin(quantities)]
    found = [_explain(row, evidence) for row in outside.to_dict("records")]
    return found + not_predicted(record, comparison, [name for name in quantities if name in measured(record)])


def not_predicted(record: Record, comparison: Comparison, quantities: Sequence[str]) -> list[Reason]:
    """Why measured tensors are not in the comparison.

    Args:
        record: The run, with its recipe.
        comparison: Its comparison.
        quantities: What was measured.

    Returns:
        A reason for each tensor of the recipe, with the quantities that are missing joined by commas.
    """
    recipe = _recipe(record)
    had = set(zip(comparison.windows["tensor"], comparison.windows["quantity"], strict=True))
    found = []
    for group in recipe.groups:
        missing = [quantity for quantity in quantities if (group.name, quantity) not in had]
        if missing:
            found.append(_unpredicted(recipe, group, ", ".join(missing)))
    return found


def reasons_table(found: list[Reason]) -> pd.DataFrame:
    """Reasons as a table.

    Args:
        found: The reasons.

    Returns:
        Columns tensor, quantity, assumption, explained, sentence.
    """
    rows = [(r.tensor, r.quantity, r.assumption, r.explained, r.sentence) for r in found]
    return pd.DataFrame(rows, columns=["tensor", "quantity", "assumption", "explained", "sentence"])


def _unpredicted(recipe: Recipe, group: Group, quantity: str) -> Reason:
    optimizer, nan = recipe.optimizer, float("nan")
    if isinstance(optimizer, SGD) and group.scale_invariant is None:
        why = (
            "It is not scale-invariant (tested on the first batch, or not tested), so lr*weight_decay alone does not "
            "set its rotation, and its norm depends on the loss."
        )
        return Reason(group.name, quantity, "scale_invariance", why, nan, nan)
    if isinstance(optimizer, (SGD, Adam)) and recipe.decay_of(group) == 0 and "angle" in quantity:
        why = "It is not decayed: it has no equilibrium, and its path depends on the data."
        return Reason(group.name, quantity, "not_decayed", why, 0.0, nan)
    if isinstance(optimizer, (SGD, Adam)):
        why = "It depends on the gradients' size (c2), which only data tell; `calibrate` measures it."
        return Reason(group.name, quantity, "unknown_before_data", why, nan, nan)
    why = "It was not measured, its initial norm is unknown, or the optimizer's law does not speak of such tensors."
    return Reason(group.name, quantity, "unknown_before_data", why, nan, nan)


def _explain(row: Mapping[str, Any], evidence: Evidence) -> Reason:
    tensor, quantity, residual = str(row["tensor"]), str(row["quantity"]), float(row["residual"])
    seen, nan = evidence.tensors[tensor], float("nan")
    off = (
        f"{1 - row['in_band']:.0%} of the run lies outside the band, mostly {row['verdict']} it (in all "
        f"{-residual / (1 + residual):+.0%} against the prediction). "
    )
    if seen.rounding is not None:
        share, sentence = seen.rounding
        return Reason(tensor, quantity, "rounding", off + sentence, share, nan)
    if seen.drift is not None and quantity == "angle":
        return _sgd_angle(tensor, off, residual, seen)
    by_norm, by_update = -(seen.norm or 0.0), seen.update or 0.0  # contributions to log(predicted/measured)
    update_off = quantity != "norm" and abs(np.expm1(by_update)) >= LARGE_UPDATE
    if not (update_off and abs(by_update) > abs(by_norm)):
        cause = _norm_cause(seen, quantity, residual, evidence)
        lead = off if quantity == "norm" else f"{off}Mostly through its norm ({np.expm1(by_norm):+.0%}). "
        if cause is not None:
            assumption, text, value, explained = cause
            return Reason(tensor, quantity, assumption, lead + text, value, explained)
    if update_off:
        text = f"The update itself is {np.expm1(-by_update):+.0%} against the law's. "
        sgd = isinstance(evidence.recipe.optimizer, SGD)
        if evidence.clipped > CLIPPED and (sgd or evidence.clipped < 1):
            text += f"{evidence.clipped:.0%} of the steps were clipped, which the law leaves out."
            return Reason(tensor, quantity, "clipping", off + text, evidence.clipped, nan)
        text += "Gradients that are often zero, far from Gaussian, or small against eps do that."
        return Reason(tensor, quantity, "update_size", off + text, float(np.exp(-by_update)), nan)
    if seen.group.scale_invariant is None:
        text = (
            "It is not scale-invariant (tested on the first batch, or not tested): its gradient may have a part along "
            f"the weights{seen.cosine_text}, which turns nothing. The band of such tensors is wider, but not enough."
        )
        return Reason(tensor, quantity, "scale_invariance", off + text, seen.cosine, nan)
    text = (
        "None of the assumptions that the run's own numbers can test explains it: a bug, or a law that is wrong here."
    )
    return Reason(tensor, quantity, "unexplained", off + text, residual, 0.0)


def _sgd_angle(tensor: str, off: str, residual: float, seen: TensorEvidence) -> Reason:
    """With the norm's drift the law is an identity for gradients orthogonal to the weights: two cases are left."""
    assert seen.drift is not None
    corrected, drift = seen.drift
    explained = _explained(residual, corrected)
    if abs(corrected) <= ORTHOGONAL:
        text = (
            f"The law speaks of stationary norms; this one moved by up to {drift:+.2e} per step (of its logarithm; "
            f"lr*weight_decay alone is {seen.shrink:.2e} at the peak). With the drift the law is off by "
            f"{corrected:+.1%}."
        )
        return Reason(tensor, "angle", "equilibrium", off + text, drift, explained)
    with_it = "the norm shrinks faster than decay can make it" if np.isnan(corrected) else f"off by {corrected:+.0%}"
    text = (
        f"For gradients orthogonal to the weights, angle and drift of the norm are tied by an identity: {with_it}. "
        f"It is not scale-invariant after all{seen.cosine_text} (a gain passes the test as long as its bias is 0)."
    )
    return Reason(tensor, "angle", "scale_invariance", off + text, corrected, float("nan"))


def _norm_cause(
    seen: TensorEvidence, quantity: str, residual: float, evidence: Evidence
) -> tuple[str, str, float, float] | None:
    ratio, corrected = seen.long_run, seen.corrected.get(quantity, np.nan)
    undecayed = evidence.recipe.decay_of(seen.group) == 0
    forget = " It is not decayed, so nothing makes its norm forget." if undecayed else ""
    explained = _explained(residual, corrected)
    after = f" With that number the law is off by {corrected:+.0%}." if np.isfinite(corrected) else ""
    if ratio is not None and ratio >= LARGE_RATIO:
        text = (
            f"Its steps add up {ratio:.1f} times as much as independent ones (long-run variance over the law's, from "
            f"the norm curve): gradients point the same way for long, a signal.{forget}{after}{seen.cosine_text}"
        )
        return "signal", text, ratio, explained
    if ratio is not None and ratio <= 1 / LARGE_RATIO:
        text = f"Its steps undo one another: they add up to {ratio:.2f} of what independent ones would.{forget}"
        if seen.group.scale_invariant is None:
            text += f" It is not scale-invariant, so the loss can pull its norm back.{after}{seen.cosine_text}"
            return "scale_invariance", text, ratio, explained
        return "signal", f"{text} Its gradients are anticorrelated in time.{after}", ratio, explained
    if undecayed:
        text = "It is not decayed: its norm keeps the sum of all that ever pushed it, and only the start is known."
        return "not_decayed", text, 0.0, float("nan")
    return None


def _explained(before: float, after: float) -> float:
    """Share of |log(predicted/measured)| that vanished, in (-inf, 1]."""
    if not np.isfinite(after) or before <= -1 or after <= -1 or before == 0:
        return float("nan")
    return 1 - abs(np.log1p(after)) / abs(np.log1p(before))


def _recipe(record: Record) -> Recipe:
    if record.recipe is None:
        raise InputError(f"{record.name} holds no recipe: pass a run that was trained with a prediction.")
    return record.recipe
