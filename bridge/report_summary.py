"""The report's first paragraph: what weight decay does in this run, whether it has settled, what would change it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from bridge.findings import findings
from bridge.reasons import Reason
from bridge.report_whatif import FACTORS, Grid
from empirics.records import Record
from theory.recipe import Recipe

MEANING = {
    "signal": "gradients that point the same way for long (a signal)",
    "scale_invariance": "no scale invariance",
    "update_size": "updates of another size than the law's",
    "clipping": "gradient clipping",
    "rounding": "rounding of the stored weights",
    "not_decayed": "no decay",
    "equilibrium": "norms that still drift",
    "unexplained": "nothing that the run's own numbers can show",
}
"""Assumptions in plain words."""


def summary(
    record: Record, recipe: Recipe, table: pd.DataFrame | None, found: Sequence[Reason], grid: Grid
) -> list[str]:
    """What a reader should know first.

    Args:
        record: The run.
        recipe: Its recipe.
        table: Verdicts, as from `Comparison.table`; None if nothing could be compared.
        found: Reasons of those that are not in band.
        grid: Predictions at other settings.

    Returns:
        Sentences, the most important first.
    """
    about = findings(record)
    by = {finding.what: finding.sentence for finding in about}
    decayed = any(recipe.decay_of(group) > 0 for group in recipe.groups)
    optimizer = recipe.optimizer
    lead = (
        f"{type(optimizer).__name__}, learning rate {optimizer.lr:g}, weight decay {optimizer.weight_decay:g} "
        f"({optimizer.decay.value}), {type(recipe.schedule).__name__} schedule, {recipe.steps:,} steps; the run is "
        f"{record.status}. "
    )
    if not decayed:
        lead += "Nothing is decayed: norms grow for as long as the learning rate lasts, and rotation falls as they do."
    else:
        lead += by.get("effective_lr") or by.get("rotation") or "Weight decay sets how fast its weights rotate."
    sentences = [lead]
    sentences += [by[key] for key in ("equilibrium", "rotation") if key in by and by[key] not in lead]
    sentences += _what_would_change(recipe, grid)
    if table is not None:
        sentences.append(_verdict(record, table))
        sentences += _why(found)
    return sentences


def _what_would_change(recipe: Recipe, grid: Grid) -> list[str]:
    """Predicted ends of the run at twice and half the decay and the rate, decayed tensors pooled."""
    decayed = [i for i, group in enumerate(recipe.groups) if recipe.decay_of(group) > 0]
    here, twice, half = (FACTORS.index(x) for x in (1.0, 2.0, 0.5))
    found = []
    for what, cells in {
        "weight decay": ((here, twice), (here, half)),
        "learning rate": ((twice, here), (half, here)),
    }.items():
        parts = []
        for name, (i, j) in zip(("Twice", "half"), cells, strict=True):
            norm, angle = (_ratio(grid.values[q], (i, j), here, decayed) for q in ("norm", "angle"))
            numbers = [f"norms {norm:.2f}" if np.isfinite(norm) else "", f"rotation {angle:.2f}" if angle > 0 else ""]
            text = " and ".join(number for number in numbers if number)
            if text:
                parts.append(f"{name} the {what}: {text} times as large" if not parts else f"{name}: {text}")
        if parts:
            found.append(f"{'; '.join(parts)} at the end (predicted, decayed tensors, geometric means).")
    return found


def _ratio(values: np.ndarray, cell: tuple[int, int], here: int, chosen: Sequence[int]) -> float:
    last = -1 if np.nanmax(np.abs(values[here, here, :, -1]), initial=0.0) > 0 else -2  # a schedule may end at zero
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(values[*cell][chosen, last] / values[here, here][chosen, last])
    logs = logs[np.isfinite(logs)]
    return float(np.exp(logs.mean())) if len(logs) else float("nan")


def _verdict(record: Record, table: pd.DataFrame) -> str:
    parts = []
    for quantity, rows in table.groupby("quantity", sort=False):
        inside = int((rows["verdict"] == "in band").sum())
        parts.append(
            f"{quantity}: {inside} of {len(rows)} tensors in band, median residual "
            f"{rows['residual'].abs().median():.0%}"
        )
    when = (
        "The prediction was written before step 0 and is unchanged"
        if record.preregistered
        else "The prediction was NOT written before step 0 (or was changed since), so it proves little"
    )
    return f"{when}. {'; '.join(parts)}."


def _why(found: Sequence[Reason]) -> list[str]:
    counts = Counter(reason.assumption for reason in found if reason.assumption in MEANING)
    tensors = {
        assumption: dict.fromkeys(r.tensor for r in found if r.assumption == assumption)
        for assumption, _ in counts.items()
    }
    if not counts:
        return []
    parts = [
        f"{MEANING[assumption]} ({len(tensors[assumption])} of the tensors, {next(iter(tensors[assumption]))} first)"
        for assumption, _ in counts.most_common()
    ]
    return [f"Outside the band, or not predicted, most likely because of: {'; '.join(parts)}."]
