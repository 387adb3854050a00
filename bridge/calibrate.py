"""From measurements of the run so far to the few numbers that a prediction cannot know before the data."""

from __future__ import annotations

import numpy as np
import pandas as pd

from empirics.records import Record
from theory.calibration import adamw_drive, long_run_ratio
from theory.errors import InputError, require
from theory.optimizers import SGD
from theory.probe import Probe, TensorProbe
from theory.recipe import Recipe


def calibrate(record: Record, *, start: int, stop: int, recipe: Recipe | None = None) -> Probe:
    """Measure a window of a run; `predict(recipe, probe)` then speaks of the steps after it.

    AdamW: one long-run variance per tensor from the norm curve and one size of the update, both relative to the law's;
    a prediction cannot know them, since correlated gradients (a signal) change them. SGD: c2 = mean of ||g||^2 ||w||^2,
    and, where the run recorded `signal` or `windows`, the gradient's lean on the weights, which acts as further decay.
    In both cases the prediction starts from the norm measured at the end of the window.

    Args:
        record: The run, finished or not.
        start: First step of the window.
        stop: Last step of the window; the prediction is issued there and must be judged on later steps only.
        recipe: The run's recipe; the one stored with its prediction if omitted.

    Returns:
        The probe.

    Raises:
        InputError: If the run holds no recipe or fewer than three measurements in the window.
    """
    recipe = recipe or record.recipe
    if recipe is None:
        raise InputError(f"{record.name} holds no recipe (it was trained without a prediction): pass one.")
    norms = record.pivot("norm").loc[start:stop]
    require(
        len(norms) >= 3, "start, stop", (start, stop), f"a window of {record.name} with at least three measurements"
    )
    at, steps = int(norms.index[-1]), norms.index.to_numpy()
    is_sgd = isinstance(recipe.optimizer, SGD)
    other = record.pivot("grad_norm" if is_sgd else "relative_update").loc[start:stop]
    lean = _lean(record, start, stop) if is_sgd else {}
    probes: dict[str, TensorProbe] = {}
    for group in recipe.groups:
        if group.name not in norms or not np.all(norms[group.name] > 0):
            continue
        norm, extra = norms[group.name].to_numpy(), other[group.name].to_numpy()
        if is_sgd:
            c2 = float(np.mean((norm * extra) ** 2))
            probes[group.name] = TensorProbe(c2=c2, norm=float(norm[-1]), radial=lean.get(group.name, 0.0))
            continue
        drive = adamw_drive(recipe, group)
        moved = (extra * norm) ** 2 / group.size / drive.update[steps]
        probes[group.name] = TensorProbe(
            norm=float(norm[-1]),
            long_run_ratio=long_run_ratio(drive, group.size, steps, norm),
            update_ratio=float(np.mean(moved[np.isfinite(moved)])),
        )
    return Probe(step=at + 1, tensors=probes)


def _lean(record: Record, start: int, stop: int) -> dict[str, float]:
    """Mean cosine of gradient and weights in the window, by tensor; empty if the run recorded none."""
    recorded = set(record.metrics()["quantity"].unique())
    for quantity in ("grad_cosine", "grad_radial"):  # over every step; at the first step of some windows
        table = record.pivot(quantity).loc[start:stop] if quantity in recorded else pd.DataFrame()
        if len(table):
            return {str(name): float(mean) for name, mean in table.mean().items() if np.isfinite(mean)}
    return {}
