"""Claims of the language-model figures on made-up losses whose answer is known."""

import numpy as np
import pandas as pd
import pytest

from paper.figures import lm_effective_lr, lm_l2_and_coverage, load, precision_knob
from paper.figures.lm_low_precision import STEPS

SEEDS = (3, 4, 5)
NORMS = {"l2": 25.0, "decayed": 60.0}
FIGURES = ("lm_effective_lr", "precision_knob", "lm_l2_and_coverage")


def ends(losses: dict[str, float]) -> pd.DataFrame:
    """Arms with a loss at the end, and every seed a different level."""
    rows = []
    for arm, loss in losses.items():
        for i, seed in enumerate(SEEDS):
            rows.append((f"{arm}-{seed}", arm, seed, 800, "train_loss_fresh", loss + 0.1 * i))
            rows.append((f"{arm}-{seed}", arm, seed, 800, "embedding_norm", NORMS.get(arm, 100.0)))
    return pd.DataFrame(rows, columns=["run", "arm", "seed", "step", "quantity", "value"])


def test_matched_runs_must_be_near_and_the_unmatched_far():
    losses = {"decayed": 3.0, "matrix": 3.01, "unmatched": 2.8, "floor": 3.005}
    assert all(claim.passed for claim in lm_effective_lr.claims(ends(losses)))
    near, far, times = lm_effective_lr.claims(ends(losses))
    assert near.measured == pytest.approx(0.01)
    assert "moves the decayed run by 0.005" in near.note
    assert (far.measured, times.measured) == pytest.approx((0.2, 20))
    missed = [claim.passed for claim in lm_effective_lr.claims(ends(losses | {"matrix": 3.06}))]
    assert missed == [False, True, False]
    missed = [claim.passed for claim in lm_effective_lr.claims(ends(losses | {"unmatched": 2.99}))]
    assert missed == [True, False, False]


def knob(onsets: dict[int, float], decayed: float = 0.1) -> pd.DataFrame:
    """Losses of 3 that jump to 5 at the onset; with decay, 3 plus so much for each run that is not float32."""
    rows, steps = [], np.arange(100, STEPS + 1, 20)
    for wd, many in precision_knob.BITS.items():
        for bits in many:
            for seed in SEEDS:
                start = onsets.get(bits, np.inf) if wd == 0 else np.inf
                level = 3 + decayed * (wd > 0 and bits != precision_knob.FLOAT32)
                for step in steps:
                    rows.append((f"{bits}-{wd}-{seed}", wd, float(bits), seed, step, 5.0 if step >= start else level))
    table = pd.DataFrame(rows, columns=["run", "wd", "bits", "seed", "step", "value"])
    return table.assign(quantity="smooth_loss")


def test_onsets_must_rise_with_the_bits_and_decay_must_hold():
    order, delay, flat = precision_knob.claims(knob({2: 400, 3: 1_000, 4: 1_600}))
    assert (order.passed, delay.passed, flat.passed) == (True, True, True)
    assert delay.measured == 1_200
    assert flat.measured == pytest.approx(0.1)
    assert [c.passed for c in precision_knob.claims(knob({2: 400, 3: 1_600, 4: 1_000}))] == [False, True, True]
    assert [c.passed for c in precision_knob.claims(knob({2: 1_700}))] == [True, False, True]
    assert [c.passed for c in precision_knob.claims(knob({2: 400}, decayed=0.3))] == [True, True, False]


def test_each_kind_of_decay_must_lower_the_loss():
    arms: dict[str, float] = dict.fromkeys(lm_l2_and_coverage.ARMS, 3.0)
    better = dict.fromkeys(lm_l2_and_coverage.PANELS, 2.98)
    found = lm_l2_and_coverage.claims(ends(arms | better))
    assert all(claim.passed for claim in found)
    assert "ends at 0.25 of that run's norm, and at 0.60 under" in found[0].note
    worse = [claim.passed for claim in lm_l2_and_coverage.claims(ends(arms | better | {"sgd-decayed": 3.01}))]
    assert worse == [True, True, False, True]
    assert not any(claim.passed for claim in lm_l2_and_coverage.claims(ends(arms)))


@pytest.mark.parametrize("name", FIGURES)
def test_runs_are_told_apart_and_come_after_those_they_follow(name):
    spec = load(name)
    configs = spec.configs("cpu")
    assert len({config.directory for config in configs}) == len(configs)
    keys = {(config.seed, float(config.optimizer.weight_decay), *spec.labels(config).items()) for config in configs}
    assert len(keys) == len(configs)
    seen: set[str] = set()
    for config in configs:
        assert {config.match, config.twin} - {""} <= seen
        seen.add(config.directory)
