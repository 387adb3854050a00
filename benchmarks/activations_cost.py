"""What the activations and windows probes cost: a training step with each over one without, in one process, in turn."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer

from benchmarks.common import SMALL, interleave, ratio, write
from benchmarks.rotation_cost import summary
from empirics.data import Images, Text
from empirics.optimizers import build_optimizer
from empirics.probes.activations import Activations
from empirics.probes.bill import Bill
from empirics.probes.windows import Windows
from empirics.train import stepper
from theory.serialize import to_dict

STEPS = 100  # a block: one window, two measured steps of the activations
Probe = Activations | Windows
Build = Callable[[nn.Module, Optimizer, Bill], Probe]

PROBES: dict[str, Build] = {
    "activations, every 50 (default)": lambda model, optimizer, bill: Activations(model, optimizer, bill=bill),
    "activations, every 1": lambda model, optimizer, bill: Activations(model, optimizer, every=1, bill=bill),
    "windows of 1, 10, 100 (default)": lambda model, optimizer, bill: Windows(model, optimizer, bill=bill),
}


def main(*, repeats: int = 3, rounds: int = 10, out: Path) -> None:
    """Time blocks of 100 steps with each probe and without, every repeat kept, and what each probe's own bill says.

    A block ends as in the training loop: what was measured is fetched and turned into lines of metrics.jsonl.
    """
    torch.set_num_threads(1)
    data = SMALL.data.open()
    bills = {name: Bill() for name in PROBES}
    arms = {"without": block(data)} | {name: block(data, build, bills[name]) for name, build in PROBES.items()}
    timed = [interleave(arms, rounds=rounds) for _ in range(repeats)]
    steps = STEPS * (rounds + 1) * repeats
    step_ms = [1e3 * float(np.median(seconds["without"])) / STEPS for seconds in timed]
    results: dict[str, object] = {"step_ms_without": [round(each, 3) for each in step_ms]}
    for name, bill in bills.items():
        (item,) = bill.cost().items
        billed = 1e3 * item.seconds / steps / float(np.median(step_ms))
        results[name] = summary([ratio(seconds[name], seconds["without"]) for seconds in timed])
        results[f"{name}: billed share of a step"] = round(billed, 5)
    settings = {"config": to_dict(SMALL), "steps_a_block": STEPS, "rounds": rounds, "repeats": repeats}
    write(out, "activations_cost", settings=settings, results=results)


def block(data: Text | Images, build: Build | None = None, bill: Bill | None = None) -> Callable[[], None]:
    """A hundred steps of a network of its own, with a probe or without."""
    model = SMALL.model.build(seed=0)
    optimizer = build_optimizer(SMALL.optimizer, model)
    train_step = stepper(SMALL, data, model, optimizer)
    probe = build(model, optimizer, bill) if build is not None and bill is not None else None
    steps = count()

    def run() -> None:
        for _ in range(STEPS):
            train_step(next(steps))
        if probe is not None:
            "".join(json.dumps(line) for line in probe.flush())

    return run
