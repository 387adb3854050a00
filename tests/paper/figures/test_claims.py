"""Figures' claims on made-up numbers whose answer is known, and the list."""

import numpy as np
import pandas as pd
import pytest

from paper.figures import NAMES, jacobian_at_equal_loss, load, overtraining_heatmap
from paper.figures.table import Table, write_table
from paper.figures.verdicts import overview


def heatmap(effect, scatter: float = 0.01) -> pd.DataFrame:
    """Both quantities as a falling function of `effect(lr, wd)`, with noise."""
    rng, rows = np.random.default_rng(0), []
    for config in load("overtraining_heatmap").configs("cpu"):
        lr, wd = config.optimizer.lr, config.optimizer.weight_decay
        value = 1 / (1 + 1_000 * effect(lr, wd)) * np.exp(scatter * rng.normal())
        for quantity in ("jacobian_fro", "test_error"):
            rows.append((config.directory, lr, wd, config.seed, 2325, quantity, value))
    return pd.DataFrame(rows, columns=["run", "lr", "wd", "seed", "step", "quantity", "value"])


def verdicts(table: pd.DataFrame) -> dict[str, bool]:
    return {claim.claim: claim.passed for claim in overtraining_heatmap.claims(table)}


def test_the_product_is_recognised_and_so_is_either_factor():
    assert all(verdicts(heatmap(lambda lr, wd: min(lr * wd, 0.011))).values())
    for effect, factor in ((lambda lr, wd: wd, "wd"), (lambda lr, wd: lr if wd else 0, "lr")):
        found = verdicts(heatmap(effect))
        assert not found[f"|Spearman| of Jacobian norm with lr·wd minus that with {factor} alone"]
        assert not found[f"|Spearman| of test error with lr·wd minus that with {factor} alone"]
    nothing = verdicts(heatmap(lambda lr, wd: 0, scatter=1.0))
    assert not any(passed for sentence, passed in nothing.items() if sentence.startswith("Spearman"))


def test_the_best_cell_of_a_row_is_found():
    table = heatmap(lambda lr, wd: min(lr * wd, 0.011))
    errors = overtraining_heatmap.grid(table, "test_error")
    errors.loc[1.0, 1e-3] = 0.0  # lr*wd = 1e-3, two cells from 1e-2
    assert overtraining_heatmap.cells_off(errors) == 2
    assert overtraining_heatmap.cells_off(overtraining_heatmap.grid(table, "test_error")) <= 1


def test_diverged_runs_do_not_count():
    table = heatmap(lambda lr, wd: min(lr * wd, 0.011))
    victim = table[(table["lr"] == 1.0) & (table["wd"] == 0.03)]
    broken = victim.assign(quantity="diverged", value=1.0).drop_duplicates("run")
    whole = pd.concat([table, broken], ignore_index=True)
    assert np.isnan(overtraining_heatmap.grid(whole, "test_error").loc[1.0, 0.03])
    assert len(overtraining_heatmap.correlations(whole, "test_error")) == 3


def equal_loss(factor: float) -> pd.DataFrame:
    """The most decayed run ends at loss 1.0, the others lower; norms are 100 * factor**rank up to 1.0, half above."""
    rows = []
    for seed in (3, 4, 5):
        for rank, wd in enumerate(jacobian_at_equal_loss.DECAYS):
            lowest = 1.0 - 0.2 * rank  # the most decayed run stops at 1.0
            for step, loss in enumerate(np.linspace(2.0, lowest, 40)):
                norm = 100 * factor**rank / (1 if loss <= 1.0 else 2)
                common = (f"wd{wd:g}-{seed}", wd, seed, step)
                rows += [(*common, "train_loss", loss), (*common, "jacobian_fro", norm)]
    return pd.DataFrame(rows, columns=["run", "wd", "seed", "step", "quantity", "value"])


def test_jacobians_are_compared_where_all_runs_have_the_same_loss():
    loss, norms = jacobian_at_equal_loss.at_equal_loss(equal_loss(1.5).query("seed == 3"))
    assert loss == 1.0
    assert norms.tolist() == pytest.approx([100, 150, 225, 337.5])
    assert all(claim.passed for claim in jacobian_at_equal_loss.claims(equal_loss(1.5)))
    found = [claim.passed for claim in jacobian_at_equal_loss.claims(equal_loss(1.1))]
    assert found == [False, False, True]
    assert not any(claim.passed for claim in jacobian_at_equal_loss.claims(equal_loss(0.8)))


def test_the_list_says_what_is_there_and_what_it_would_cost(tmp_path):
    name = "overtraining_heatmap"
    rows = heatmap(lambda lr, wd: lr * wd)
    table = Table(rows, {run: {} for run in rows["run"].unique()})
    path = tmp_path / "cpu" / f"{name}.parquet"
    write_table(table, path)
    listed = overview(scale="cpu", results=tmp_path).set_index("figure")
    assert list(listed.index) == list(NAMES)
    assert listed.loc[name, ["state", "runs", "minutes", "verdict"]].tolist() == ["complete", "60/60", 0, "-"]
    assert listed.loc["jacobian_at_equal_loss", ["state", "runs"]].tolist() == ["none", "0/12"]
    assert 3 <= listed.loc["jacobian_at_equal_loss", "minutes"] <= 30
    write_table(table.only(list(table.runs)[1:]), path)
    listed = overview(scale="cpu", results=tmp_path).set_index("figure")
    assert listed.loc[name, ["state", "runs", "minutes"]].tolist() == ["partial", "59/60", 1]
    assert overview(scale="gpu", results=tmp_path)["state"].unique().tolist() == ["-"]
