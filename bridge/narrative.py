"""The main job's result in plain words, every number taken from the runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from bridge.check import Check
from bridge.compare import compare
from bridge.run_checks import SETTLED, block_matrices, calibrated_prediction, recipe_of, why_not_judged
from bridge.validation import final
from empirics.records import Record
from theory.advice import run_timescales


def summary(records: Mapping[str, Record], checks: Sequence[Check]) -> list[str]:
    """What happened, in a few sentences.

    Args:
        records: The finished runs by role.
        checks: Their checks.

    Returns:
        Sentences, the verdict first.
    """
    failed = [check for check in checks if not check.passed]
    verdict = f"All {len(checks)} bounds hold." if not failed else f"{len(failed)} of {len(checks)} bounds fail."
    when = all(record.preregistered for record in records.values())
    sentences = [
        f"{verdict} Every prediction was written "
        + (
            "before step 0 of its run, and is unchanged."
            if when
            else "for its run, but NOT all before step 0: do not trust this."
        ),
        *(
            f"Failed: {check.claim}: {check.measured:.3g}, bound {check.relation} {check.bound:g}. {check.note}"
            for check in failed
        ),
        *_language_model(records["lm-decayed"], records["lm-undecayed"]),
        *_residual_network(records["vision-decayed"], records["vision-undecayed"], records["vision-invariant"]),
    ]
    seeds = min(check.seeds for check in checks)
    if seeds < 3:
        sentences.append(
            f"This is {seeds} seed{'s' if seeds > 1 else ''}: a demonstration on your machine, not a claim. The bounds "
            "were "
            "confirmed with three fresh seeds; that result is committed as benchmarks/results/validate.json."
        )
    return sentences


def _language_model(decayed: Record, undecayed: Record) -> list[str]:
    recipe = recipe_of(decayed)
    start = recipe.steps // 10
    mlp = [name for name in block_matrices(recipe) if why_not_judged(name) is None]
    tables = [compare(record).table(start) for record in (decayed, undecayed)]
    measured, predicted = (_pooled(tables[0], mlp, column) for column in ("measured", "predicted"))
    ratio = [_pooled(tables[0], mlp, column) / _pooled(tables[1], mlp, column) for column in ("measured", "predicted")]
    group = next(group for group in recipe.groups if group.name == mlp[0])
    kappa, relaxation = run_timescales(recipe, group)
    reach = (
        "came close to equilibrium and then lagged the falling rate" if kappa >= 1 else "stayed set by initialisation"
    )
    losses = [final(record, "val_loss") for record in (decayed, undecayed)]
    return [
        f"GPT-2: with weight decay {recipe.optimizer.weight_decay:g} the MLP matrices turned by {1e3 * measured:.2f} "
        "mrad a step "
        f"(predicted {1e3 * predicted:.2f}), {ratio[0]:.2f} times as fast as without (predicted {ratio[1]:.2f}).",
        f"Its norms relax within {relaxation:,.0f} steps at the peak rate; over the run lr*weight_decay adds up to "
        f"{kappa:.2f}, so norms {reach}. Validation loss {losses[0]:.3f} nats with decay, {losses[1]:.3f} without.",
    ]


def _pooled(table: pd.DataFrame, names: Sequence[str], column: str) -> float:
    rows = table[(table["quantity"] == "angle") & table["tensor"].isin(names)]
    return float(np.sqrt((rows[column] ** 2).mean()))


def _residual_network(decayed: Record, undecayed: Record, invariant: Record) -> list[str]:
    start, stop = SETTLED
    table = compare(invariant).table(start, stop)
    measured, predicted = (_pooled(table, list(table["tensor"]), column) for column in ("measured", "predicted"))
    errors = [final(record, "test_error") for record in (decayed, undecayed)]
    jacobians = [final(record, "jacobian_fro") for record in (decayed, undecayed)]
    return [
        f"Scale-invariant ResNet: every convolution turned by {measured:.4f} rad a step at stationary norm; "
        "lr*weight_decay alone "
        f"says {predicted:.4f}, whatever the data.",
        f"ResNet on digits with 30 % noisy labels: test error {errors[0]:.1%} with decay, {errors[1]:.1%} without; "
        "Jacobian norm "
        f"{jacobians[0]:.0f} against {jacobians[1]:.0f}. Decay kept the noise alive, and the noise kept the network "
        "from "
        "memorising the wrong labels.",
    ]


def tensor_table(record: Record, *, start: int) -> pd.DataFrame:
    """Residuals of a language model, a priori and calibrated, and why some are not judged.

    Args:
        record: The run.
        start: First step that counts for the a-priori residuals.

    Returns:
        Columns tensor, angle predicted and measured (mrad/step), residuals, and the reason where a tensor is not
        judged.
    """
    recipe, half = recipe_of(record), recipe_of(record).steps // 2
    prior = compare(record)
    calibrated = compare(record, calibrated_prediction(record))
    angles = prior.table(start).query("quantity == 'angle'").set_index("tensor")
    norms, worst = prior.residual("norm", start=start), calibrated.worst("norm", start=half)
    rows = []
    for group in recipe.groups:
        if group.name not in angles.index:
            continue
        matrix = len(group.shape) >= 2
        rows.append(
            {
                "tensor": group.name,
                "angle predicted (mrad/step)": 1e3 * angles.loc[group.name, "predicted"],
                "angle measured (mrad/step)": 1e3 * angles.loc[group.name, "measured"],
                "angle residual": angles.loc[group.name, "residual"],
                "norm residual": norms[group.name],
                "norm residual, calibrated, worst": worst.get(group.name, np.nan),
                "why not judged a priori": why_not_judged(group.name)
                or ("" if matrix else "a gain: driven by the signal"),
            }
        )
    return pd.DataFrame(rows)


def layer_table(record: Record) -> pd.DataFrame:
    """Angles of the scale-invariant ResNet at stationary norm.

    Args:
        record: The run.

    Returns:
        Columns layer, predicted and measured (rad/step), residual.
    """
    table = compare(record).table(*SETTLED).query("quantity == 'angle'")
    names = {"tensor": "layer", "predicted": "angle predicted (rad/step)", "measured": "angle measured (rad/step)"}
    return table.rename(columns=names)[[*names.values(), "residual"]].reset_index(drop=True)
