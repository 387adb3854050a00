"""What the rotation probe costs: a training step with it over one without, in one process, in turn."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import SMALL, interleave, ratio, write
from empirics.optimizers import build_optimizer
from empirics.probes.rotation import Rotation
from empirics.train import stepper
from theory.serialize import to_dict

STEPS = 50  # a block: as many steps as lie between two flushes of the training loop


def main(*, rounds: int = 30, out: Path) -> None:
    """Time blocks of 50 steps with the probe at every step, at every tenth, and without it.

    A block ends as in the training loop: what was measured is fetched and turned into the lines of metrics.jsonl.
    """
    torch.set_num_threads(1)
    data, model = SMALL.data.open(), SMALL.model.build(seed=0)
    optimizer = build_optimizer(SMALL.optimizer, model)
    train_step = stepper(SMALL, data, model, optimizer)
    steps = count()

    def block(every: int) -> Callable[[], None]:
        def run() -> None:
            rotation = Rotation(model, optimizer, every=every, start=STEPS) if every else None
            for _ in range(STEPS):
                train_step(next(steps))
            if rotation is not None:
                "".join(json.dumps(line) for line in rotation.flush())
                rotation.close()

        return run

    seconds = interleave({"without": block(0), "every 1": block(1), "every 10": block(10)}, rounds=rounds)
    results = {
        "step_ms_without": round(1e3 * float(np.median(seconds["without"])) / STEPS, 3),
        "every_1": ratio(seconds["every 1"], seconds["without"]),
        "every_10": ratio(seconds["every 10"], seconds["without"]),
    }
    settings = {"config": to_dict(SMALL), "steps_a_block": STEPS, "rounds": rounds}
    write(out, "rotation_cost", settings=settings, results=results)
