"""The judge of `transfer`, on losses that are best at the advised setting and on losses that are not."""

import numpy as np
import pandas as pd
import pytest

from paper.figures.transfer import CROSS, NEAR, POINTS, TARGETS, TUNED, advised, claims, config_of, draw, labels
from theory.recommend import advise


def table(best, excess, seeds=(3, 4, 5)):
    """Loss 3 at the best setting and `excess` more at all others; no noise."""
    rows = [
        (seed, p.target, p.cross, "val_loss", 3.0 * (1 + (p.cross != best) * excess)) for seed in seeds for p in POINTS
    ]
    return pd.DataFrame(rows, columns=["seed", "target", "cross", "quantity", "value"])


def test_the_advised_setting_that_is_best_passes():
    found = claims(table("advised", 0.1))
    assert len(found) == len(TARGETS)
    assert all(c.passed and c.measured == 0 for c in found)


@pytest.mark.parametrize(("excess", "passes"), [(0.9 * NEAR, True), (1.1 * NEAR, False)])
def test_another_that_is_better_by_more_than_the_bound_fails(excess, passes):
    found = claims(table("2 lr", excess))
    assert all(c.passed is passes and c.measured == pytest.approx(excess) for c in found)
    assert all("2 lr" in c.note for c in found)


def test_one_seed_decides_nothing_and_a_diverged_setting_is_left_out():
    assert {c.verdict for c in claims(table("advised", 0.1, seeds=(3,)))} == {"undecided"}
    whole = table("2 lr", 0.1)
    gone = whole[~((whole["cross"] == "2 lr") & (whole["seed"] == 4))]
    assert all(c.passed for c in claims(gone))


def test_runs_are_the_settings_that_advise_gives():
    have = {"lr": TUNED[0], "weight_decay": TUNED[1], "batch_size": 16, "steps": 1_000, "width": 32}
    for target, change in TARGETS.items():
        given = {(a.lr, a.weight_decay) for a in advise(have, change)}
        assert advised(target) in given
    for point in POINTS:
        config = config_of(point, 3)
        lr, decay = advised(point.target)
        by, times = CROSS[point.cross]
        assert (config.optimizer.lr, config.optimizer.weight_decay) == (lr * by, decay * times)
        assert labels(config) == {"target": point.target, "cross": point.cross}
    sizes = {p.target: config_of(p, 3) for p in POINTS}
    assert (sizes["batch"].batch_size, sizes["batch"].steps) == (64, 250)
    assert sizes["length"].steps == 4_000
    assert sizes["width"].model.n_embd == 64
    tokens = [c.batch_size * c.steps for c in (sizes["batch"], sizes["width"])]
    assert np.ptp(tokens) == 0


def test_it_is_drawn():
    assert len(draw(table("advised", 0.1)).axes) == 3
