"""What the rotation probe costs: a training step with it over one without, in one process, in turn."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import SMALL, interleave, ratio, write
from empirics.data import Images, Text
from empirics.optimizers import build_optimizer
from empirics.probes.rotation import Rotation
from empirics.train import stepper
from theory.serialize import to_dict

STEPS = 10  # a block: short, so that both sides of a ratio see the same machine


def main(*, repeats: int = 5, rounds: int = 60, out: Path) -> None:
    """Time blocks of 10 steps with the probe at every step, at every tenth, and without it; every repeat is kept.

    A block ends as in the training loop: what was measured is fetched and turned into lines of metrics.jsonl.
    """
    torch.set_num_threads(1)
    data = SMALL.data.open()
    arms = {"without": block(data, every=0), "every 1": block(data, every=1), "every 10": block(data, every=10)}
    timed = [interleave(arms, rounds=rounds) for _ in range(repeats)]
    results = {
        "step_ms_without": [round(1e3 * float(np.median(seconds["without"])) / STEPS, 3) for seconds in timed],
        "every_1": summary([ratio(seconds["every 1"], seconds["without"]) for seconds in timed]),
        "every_10": summary([ratio(seconds["every 10"], seconds["without"]) for seconds in timed]),
    }
    settings = {"config": to_dict(SMALL), "steps_a_block": STEPS, "rounds": rounds, "repeats": repeats}
    write(out, "rotation_cost", settings=settings, results=results)


def summary(ratios: list[dict[str, float]]) -> dict[str, object]:
    """Lowest, middle and highest of the repeats' medians, and the repeats themselves."""
    medians = sorted(each["median"] for each in ratios)
    return {"lowest": medians[0], "median": medians[len(medians) // 2], "highest": medians[-1], "repeats": ratios}


def block(data: Text | Images, *, every: int) -> Callable[[], None]:
    """Ten steps of a network of its own, with the probe at every so many steps (0: without)."""
    model = SMALL.model.build(seed=0)
    optimizer = build_optimizer(SMALL.optimizer, model)
    train_step = stepper(SMALL, data, model, optimizer)
    rotation = Rotation(model, optimizer, every=every) if every else None
    steps = count()

    def run() -> None:
        for _ in range(STEPS):
            train_step(next(steps))
        if rotation is not None:
            "".join(json.dumps(line) for line in rotation.flush())

    return run
