"""The tables of a watch: what it understood, and every tensor beside its prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from bridge.describe import audit
from bridge.watch_forecast import Forecast
from bridge.watch_rates import RateLog
from bridge.watch_subject import Subject
from empirics.directory import Values
from theory.errors import InputError

COLUMNS = [
    "tensor",
    "step",
    "lr",
    "weight_decay",
    "norm",
    "norm_predicted",
    "norm_residual",
    "angle",
    "angle_predicted",
    "angle_residual",
    "note",
]


def watch_table(
    subject: Subject, rates: RateLog, recent: Sequence[tuple[int, Values]], chosen: Forecast | None, measured: int
) -> pd.DataFrame:
    """Every tensor that was measured lately, as it is and as it is predicted to be.

    Args:
        subject: What is watched.
        rates: What its groups were told.
        recent: The latest measured steps, increasing.
        chosen: What is predicted, if anything was measured.
        measured: How many steps were measured since the beginning.

    Returns:
        One row a tensor, see `Watch.table`.
    """
    if not recent or chosen is None:
        return pd.DataFrame(columns=COLUMNS)
    steps = [step for step, _ in recent]
    predicted = chosen.series(steps)
    group_of = {member.name: i for i, members in subject.members.items() for member in members}
    told = {i: rates.of(i) for i in set(group_of.values())}
    rows = []
    for name in dict.fromkeys(name for _, values in recent for name in values["norm"]):
        seen = [k for k, (_, values) in enumerate(recent) if name in values["norm"]]
        last = steps[seen[-1]]
        norm = recent[seen[-1]][1]["norm"][name]
        angle = _rms([recent[k][1]["angle"][name] for k in seen])
        of = {quantity: each[name] for quantity, each in predicted.items() if name in each}
        norm_p = float(of["norm"][seen[-1]]) if "norm" in of else math.nan
        angle_p = _rms([float(of["angle"][k]) for k in seen]) if "angle" in of else math.nan
        own = told.get(group_of.get(name, -1))
        rows.append(
            {
                "tensor": name,
                "step": last,
                "lr": math.nan if own is None else own.lr[last - subject.start],
                "weight_decay": math.nan if own is None else own.weight_decay[last - subject.start],
                "norm": norm,
                "norm_predicted": norm_p,
                "norm_residual": _residual(norm_p, norm),
                "angle": angle,
                "angle_predicted": angle_p,
                "angle_residual": _residual(angle_p, angle),
                "note": _note(subject, chosen, name, len(seen), len(recent)),
            }
        )
    return pd.DataFrame(rows, columns=COLUMNS)


def audit_table(subject: Subject) -> pd.DataFrame:
    """What acts on which parameter, for any optimizer.

    Args:
        subject: What is watched.

    Returns:
        As `bridge.describe.audit` with a column `predicted`: yes, or why not. For optimizers that `audit` does not
        know, without the columns of the laws.
    """
    reasons = subject.reasons
    try:
        table = audit(subject.model, subject.optimizer, spec=subject.spec, loss_fn=subject.loss_fn, batch=subject.batch)
    except InputError:
        rows = []
        for i, members in sorted(subject.members.items()):
            group = subject.optimizer.param_groups[i]
            decay = float(group.get("weight_decay", 0.0))
            law = subject.laws.get(i)
            convention = "unknown" if law is None else law.decay.value
            rows += [
                {
                    "tensor": member.name,
                    "shape": "x".join(map(str, member.shape)),
                    "group": str(i),
                    "lr": float(group["lr"]),
                    "weight_decay": decay,
                    "decayed": "yes" if decay else "no",
                    "convention": convention if decay else "none",
                    "scale_invariant": "not tested"
                    if subject.loss_fn is None
                    else ("yes" if member.invariant else "no"),
                    "norm": member.norm0,
                }
                for member in members
            ]
        table = pd.DataFrame(rows)
    held = {member.name for members in subject.members.values() for member in members}
    verdict = [reasons.get(name, "yes") if name in held else "not in the optimizer" for name in table["tensor"]]
    return table.assign(predicted=verdict)


def _note(subject: Subject, chosen: Forecast, name: str, seen: int, recent: int) -> str:
    parts = []
    if name in subject.foreign:
        parts.append(subject.foreign[name])
    reason = chosen.reasons.get(name) or subject.reasons.get(name)
    if reason:
        parts.append(f"measured, not predicted: {reason}")
    if seen < recent:
        parts.append(f"had a gradient in {seen} of the last {recent} measured steps")
    return "; ".join(parts)


def _residual(predicted: float, measured: float) -> float:
    return predicted / measured - 1 if measured > 0 else math.nan


def _rms(values: Sequence[float]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
