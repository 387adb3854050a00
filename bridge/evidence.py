"""What a run's own numbers say about the assumptions of the laws, tensor by tensor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from bridge.compare import COMPARED, Comparison, compare
from empirics.records import Record
from theory.calibration import adamw_drive, long_run_ratio
from theory.departures.drift import drift_corrected_angle
from theory.errors import InputError
from theory.optimizers import SGD, Adam, AdamW
from theory.precision.check import BITS, precision_check
from theory.predict import predict
from theory.probe import Probe, TensorProbe
from theory.recipe import Group, Recipe

FORMATS = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
"""Names of safetensors, and ours."""


@dataclass(frozen=True)
class TensorEvidence:
    """About one tensor."""

    group: Group
    """As in the recipe."""
    norm: float | None = None
    """log(predicted/measured) of the norm."""
    update: float | None = None
    """log(predicted/measured) of the update's size itself (relative update times norm)."""
    long_run: float | None = None
    """Long-run variance of the update over the law's, from the norm curve."""
    drift: tuple[float, float] | None = None
    """SGD: residual of the angle once the drift of the norm is in the law, and that drift per step."""
    cosine: float = float("nan")
    """Mean cosine of gradient and weight, where a probe measured it."""
    rounding: tuple[float, str] | None = None
    """Share of weights that rounding affects, and how."""
    corrected: Mapping[str, float] = field(default_factory=dict)
    """By quantity: the residual once the measured long-run variance and update size are in the law."""
    shrink: float = 0.0
    """lr*weight_decay at the peak rate."""

    @property
    def cosine_text(self) -> str:
        """The cosine in words; "" if it was not measured."""
        return "" if np.isnan(self.cosine) else f" (mean cosine of gradient and weights {self.cosine:+.3f})"


@dataclass(frozen=True)
class Evidence:
    """About a run."""

    recipe: Recipe
    """What was predicted from."""
    clipped: float
    """Share of steps whose gradient was clipped; 0 if it was not recorded."""
    tensors: Mapping[str, TensorEvidence]
    """By name."""


def gather(record: Record, start: int = 0, stop: int | None = None, weight_dtype: str | None = None) -> Evidence:
    """Collect the evidence.

    Args:
        record: The run, with its recipe.
        start: First step that counts.
        stop: Step after the last that counts; the end if omitted.
        weight_dtype: Format of the weights; read off the last checkpoint if omitted.

    Returns:
        The evidence.

    Raises:
        InputError: If the run holds no recipe.
    """
    recipe = record.recipe
    if recipe is None:
        raise InputError(f"{record.name} holds no recipe: it was trained without a prediction.")
    comparison = compare(record, quantities=measured(record))
    logs, updates = _logs(comparison, start, stop)
    ratios = _long_run(record, recipe, start, stop)
    corrected = _corrected(record, recipe, ratios, updates, start, stop)
    drifts = _drifts(record, recipe, comparison, start, stop)
    cosines = _mean(record, "grad_cosine")
    rounded = _rounding(recipe, weight_dtype or stored_dtype(record.path))
    tensors = {
        group.name: TensorEvidence(
            group,
            logs.get(group.name),
            updates.get(group.name),
            ratios.get(group.name),
            drifts.get(group.name),
            cosines.get(group.name, float("nan")),
            rounded.get(group.name),
            corrected.get(group.name, {}),
            float(recipe.shrink(np.arange(recipe.steps), group).max()),
        )
        for group in recipe.groups
    }
    named = {name: TensorEvidence(Group(name, (1,))) for name in set(comparison.windows["tensor"]) - set(tensors)}
    return Evidence(recipe, _mean(record, "clipped_fraction").get("", 0.0), named | tensors)


def measured(record: Record) -> list[str]:
    """Which of the quantities that can be compared a run holds.

    Args:
        record: The run.

    Returns:
        Their names.
    """
    held = set(record.metrics()["quantity"].unique())
    return [quantity for quantity in COMPARED if quantity in held]


def stored_dtype(run: Path) -> str | None:
    """Format that a run's weights were stored in, from the header of its last checkpoint.

    Args:
        run: The run directory.

    Returns:
        "float32", "bfloat16" or "float16", the narrowest of any tensor; None without a checkpoint of such tensors.
    """
    files = sorted(run.glob("checkpoints/*/model.safetensors"))
    if not files:
        return None
    with open(files[-1], "rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    kinds = {FORMATS[x["dtype"]] for key, x in header.items() if key != "__metadata__" and x["dtype"] in FORMATS}
    return min(kinds, key=lambda kind: BITS[kind]) if kinds else None


def _chosen(comparison: Comparison, start: int, stop: int | None) -> pd.DataFrame:
    frame = comparison.windows
    last = int(frame["stop"].max()) if stop is None else stop
    return frame[(frame["start"] >= start) & (frame["stop"] <= last)]


def _logs(comparison: Comparison, start: int, stop: int | None) -> tuple[dict[str, float], dict[str, float]]:
    frame = _chosen(comparison, start, stop)
    wide = frame.pivot(index=["tensor", "start"], columns="quantity", values=["predicted", "measured"])
    found = []
    for columns in (("norm",), ("norm", "relative_update")):
        if not set(columns) <= set(frame["quantity"]):
            found.append({})
            continue
        size = {kind: wide[kind][list(columns)].prod(axis=1, skipna=False) for kind in ("predicted", "measured")}
        means = {kind: np.square(x).groupby("tensor").mean() for kind, x in size.items()}
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = 0.5 * np.log(means["predicted"] / means["measured"])
        found.append({str(name): float(x) for name, x in logs.items() if np.isfinite(x)})
    return found[0], found[1]


def _log(predicted: ArrayLike, measured: ArrayLike) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(0.5 * np.log(np.mean(np.square(predicted)) / np.mean(np.square(measured))))


def _long_run(record: Record, recipe: Recipe, start: int, stop: int | None) -> dict[str, float]:
    optimizer, found = recipe.optimizer, {}
    if not isinstance(optimizer, (Adam, AdamW)):
        return found
    try:
        norms = record.pivot("norm").loc[start : None if stop is None else stop - 1]
        norms = norms[norms.index < recipe.steps]
    except InputError:
        return found
    drives = {}
    for group in recipe.groups:
        if group.name not in norms:
            continue
        curve = norms[group.name].dropna()
        if len(curve) < 3 or not (curve > 0).all():
            continue
        key = group.lr_factor, recipe.decay_of(group)
        try:
            drive = drives[key] if key in drives else drives.setdefault(key, adamw_drive(recipe, group))
        except InputError:  # coupled decay has no such drive
            continue
        found[group.name] = long_run_ratio(drive, group.size, curve.index.to_numpy(), curve.to_numpy())
    return found


def _corrected(
    record: Record,
    recipe: Recipe,
    ratios: Mapping[str, float],
    updates: Mapping[str, float],
    start: int,
    stop: int | None,
) -> dict[str, dict[str, float]]:
    """Residuals with the measured ratios in the law; the bulk of the tensors at once."""
    tensors = {
        name: TensorProbe(long_run_ratio=ratio, update_ratio=float(np.exp(-2 * updates.get(name, 0.0))))
        for name, ratio in ratios.items()
    }
    groups = tuple(group for group in recipe.groups if group.name in tensors)
    if not groups:
        return {}
    prediction = predict(replace(recipe, groups=groups), Probe(tensors=tensors))
    again = compare(record, prediction, quantities=measured(record))
    out: dict[str, dict[str, float]] = {}
    for row in again.table(start, stop).to_dict("records"):
        out.setdefault(str(row["tensor"]), {})[str(row["quantity"])] = float(row["residual"])
    return out


def _drifts(
    record: Record, recipe: Recipe, comparison: Comparison, start: int, stop: int | None
) -> dict[str, tuple[float, float]]:
    """SGD: the angle from lr*weight_decay and the norm's drift over each window, against the measured one."""
    optimizer, found = recipe.optimizer, {}
    if not isinstance(optimizer, SGD) or optimizer.nesterov:
        return found
    norms = record.pivot("norm")
    frame = _chosen(comparison, start, stop)
    invariant = {group.name: group for group in recipe.groups if group.scale_invariant is not None}
    for tensor, part in frame[frame["quantity"] == "angle"].groupby("tensor", sort=False):
        group = invariant.get(str(tensor))
        if group is None or group.name not in norms:
            continue
        logs = np.log(norms[group.name])
        ends = part["stop"].to_numpy() - 1
        at = part["start"].to_numpy()
        inside = (ends > at) & np.isin(at, logs.index) & np.isin(ends, logs.index)
        if not inside.any():
            continue
        drift = (logs.loc[ends[inside]].to_numpy() - logs.loc[at[inside]].to_numpy()) / (ends - at)[inside]
        rates = recipe.lr((at[inside] + ends[inside]) // 2, group)
        angles = []
        for d, lr in zip(drift.tolist(), rates.tolist(), strict=True):
            try:
                law = drift_corrected_angle(d, lr, recipe.decay_of(group), optimizer.momentum, optimizer.dampening)
                angles.append(float(law.angle))
            except InputError:  # the norm shrinks faster than decay can: not orthogonal after all
                angles.append(np.nan)
        seen = part["measured"].to_numpy()[inside]
        good = np.isfinite(angles)
        residual = float(np.expm1(_log(np.array(angles)[good], seen[good]))) if good.any() else np.nan
        found[group.name] = residual, float(drift[np.argmax(np.abs(drift))])
    return found


def _rounding(recipe: Recipe, dtype: str | None) -> dict[str, tuple[float, str]]:
    if dtype is None or dtype == "float32":
        return {}
    found = {}
    for finding in precision_check(recipe, dtype):
        text = (
            f"Weights in {dtype}: {finding.what.replace('_', ' ')} for {finding.fraction_affected:.0%} of them "
            f"from step {finding.first_step:,} on; {finding.remedy}."
        )
        names = [finding.group] if finding.group else [group.name for group in recipe.groups]
        for name in names:
            if name not in found or finding.fraction_affected > found[name][0]:
                found[name] = finding.fraction_affected, text
    return found


def _mean(record: Record, quantity: str) -> dict[str, float]:
    table = record.metrics()
    rows = table[table["quantity"] == quantity]
    return {str(name): float(x) for name, x in rows.groupby("tensor")["value"].mean().items()}
