"""The judge of `rotation`, on numbers that hold and on numbers that do not."""

import pandas as pd
import pytest

from paper.figures.build import RESULTS
from paper.figures.rotation import INVARIANT, SINGLE, claims, draw, runs
from paper.figures.table import read_table


def table(factor, seeds=(3, 4, 5)):
    """Every judged number is `factor` of its bound; angles are off by 20 % of the factor in opposite directions."""
    rows = []
    for seed in seeds:
        for kind, sign in (("decayed", 1), ("undecayed", -1)):
            for sentence, (_, bound) in SINGLE.items():
                rows.append((seed, kind, sentence.format(kind), "check", factor * bound))
            for name in ("t.h.0.mlp.c_fc.weight", "t.h.0.attn.c_attn.weight.q"):
                rows.append((seed, kind, name, "angle_residual", sign * 0.09 * factor))
        for name, (_, bound) in INVARIANT.items():
            rows.append((seed, "invariant", name, "check", factor * bound))
    return pd.DataFrame(rows, columns=["seed", "kind", "tensor", "quantity", "value"]).assign(what="measured", step=1)


def test_every_check_passes_inside_its_bound_and_fails_beyond_it():
    inside, beyond = claims(table(0.9)), claims(table(1.3))
    assert len(inside) == len(beyond) == 2 * len(SINGLE) + 2 + len(INVARIANT)
    assert all(c.passed for c in inside)
    assert not any(c.passed for c in beyond)


def test_one_seed_decides_nothing():
    assert {c.verdict for c in claims(table(0.5, seeds=(3,)))} == {"undecided"}


def test_the_ratio_of_angles_is_that_of_the_two_runs():
    ratio = next(c for c in claims(table(1.0)) if c.claim == "angle decayed/undecayed, MLP matrices")
    assert ratio.measured == pytest.approx(1.09 / 0.91 - 1, rel=1e-12)


def test_the_committed_table_is_drawn():
    committed = read_table(RESULTS / "cpu" / "rotation.parquet")
    assert committed is not None
    assert set(committed.runs) == {config.directory for config in runs()}
    assert len(draw(committed.rows).axes) == 2 * 12 + 2
