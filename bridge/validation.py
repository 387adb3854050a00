"""The main job's checks: what theory said about five runs before they began, against what they did."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from bridge import bounds
from bridge.check import Check
from bridge.compare import Comparison, compare
from bridge.run_checks import (
    block_matrices,
    calibrated_checks,
    invariant_checks,
    prior_checks,
    recipe_of,
    why_not_judged,
    worst_of,
)
from empirics.records import Record


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
    tenth = recipe.steps // 10
    runs = {"decayed": compare(decayed), "undecayed": compare(undecayed)}
    checks = []
    for kind, comparison in runs.items():
        checks += prior_checks(comparison, recipe, kind)
    ratio = angle_ratio_residual(runs["decayed"], runs["undecayed"], start=tenth)
    checks.append(
        worst_of("adamw_trajectory", "angle decayed/undecayed, MLP matrices", ratio[judged], bounds.ANGLE_RATIO)
    )
    median = float(ratio[blocks].abs().median())
    checks.append(
        Check("adamw_trajectory", "angle decayed/undecayed, median over block matrices", median, bounds.ANGLE_RATIO)
    )
    for kind, record in (("decayed", decayed), ("undecayed", undecayed)):
        checks += calibrated_checks(record, kind)
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
    errors = [final(record, "test_error") for record in (decayed, undecayed)]
    jacobians = [final(record, "jacobian_fro") for record in (decayed, undecayed)]
    return [
        *invariant_checks(invariant),
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
