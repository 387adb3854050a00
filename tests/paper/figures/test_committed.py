"""The committed results: drawn and judged again from their tables, judged to fail where the effect is destroyed."""

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from paper.figures import NAMES, load
from paper.figures.build import RESULTS, build
from paper.figures.table import Table, read_table, write_table
from paper.figures.verdicts import entry, read_checks

BELONGS = {"one_run_predicts_the_sweep": {"tensor"}}  # columns that tell rows of one run apart, not runs
COMMITTED = [name for name in NAMES if (RESULTS / "cpu" / f"{name}.parquet").exists()]


def copied(name: str, folder: Path) -> Table:
    table = read_table(RESULTS / "cpu" / f"{name}.parquet")
    assert table is not None
    write_table(table, folder / "cpu" / f"{name}.parquet")
    return table


def test_something_is_committed():
    assert "end_of_run" in COMMITTED


@pytest.mark.parametrize("name", COMMITTED)
def test_committed_tables_give_the_committed_verdicts_in_seconds(name, tmp_path):
    copied(name, tmp_path)
    began = time.process_time()
    outcome = build(load(name), runs=tmp_path / "nowhere", results=tmp_path, train=False)
    assert time.process_time() - began < 20  # processor time, on a machine whose other core is busy, too
    assert entry(outcome, "cpu") == read_checks("cpu")[name]
    assert {path.suffix for path in outcome.files} == {".parquet", ".pdf", ".png"}
    assert all((RESULTS / "cpu" / f"{name}.{suffix}").exists() for suffix in ("pdf", "png"))


@pytest.mark.parametrize("name", COMMITTED)
def test_claims_fail_where_the_effect_is_destroyed(name):
    """What tells runs apart (learning rate, decay, ...) is dealt out anew among the runs of each seed and data set."""
    table = read_table(RESULTS / "cpu" / f"{name}.parquet")
    assert table is not None
    rows, rng = table.rows, np.random.default_rng(0)
    kept = {"run", "seed", "dataset", "train", "step", "steps", "quantity", "value"} | BELONGS.get(name, set())
    dealt = [column for column in rows.columns if column not in kept]
    parts = []
    for _, part in rows.drop_duplicates("run").groupby([c for c in ("seed", "dataset", "train") if c in rows]):
        parts.append(part[dealt].iloc[rng.permutation(len(part))].set_axis(part["run"]))
    shuffled = rows.drop(columns=dealt).join(pd.concat(parts), on="run")
    claims = [claim for claim in load(name).claims(rows) if claim.passed]
    still = [claim for claim in load(name).claims(shuffled) if claim.passed]
    assert len(still) <= len(claims) / 3
    alone = load(name).claims(rows[rows["seed"] == rows["seed"].min()])
    assert not any(claim.passed for claim in alone)
