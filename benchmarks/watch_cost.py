"""What a watch costs: training with `dl.watch` attached over training without, in one process, in turn.

Seconds are the process's own CPU seconds, on one thread: what else the machine does is not counted.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import SMALL, ratio, write
from benchmarks.rotation_cost import summary
from bridge.watch import watch
from empirics.data import Images, Text
from empirics.models import GPT2Config
from empirics.optimizers import build_optimizer
from empirics.train import stepper
from theory.serialize import to_dict

STEPS = 100  # a block: one flush at the default interval
LARGE = GPT2Config(vocab_size=50257, block_size=1024, n_layer=12, n_head=12, n_embd=768)


def main(*, repeats: int = 3, rounds: int = 6, large_rounds: int = 3, out: Path) -> None:
    """Time blocks of 100 steps with a watch at its default interval and without; every repeat is kept.

    Run directory and loss are written, as by a user. Besides, one measured step of GPT-2 124M, as a share of ten steps
    of a single window of 1,024 tokens: the smallest batch it is ever trained on.
    """
    torch.set_num_threads(1)
    data = SMALL.data.open()
    with tempfile.TemporaryDirectory() as root:
        with_it, close = block(data, Path(root))
        arms = {"without": block(data)[0], "watch": with_it}
        timed = [interleave_cpu(arms, rounds=rounds) for _ in range(repeats)]
        close()
        results = {
            "step_ms_without": [round(1e3 * float(np.median(seconds["without"])) / STEPS, 3) for seconds in timed],
            "watch_every_10": summary([ratio(seconds["watch"], seconds["without"]) for seconds in timed]),
            "gpt2_124m": large(Path(root), large_rounds),
        }
    settings = {"config": to_dict(SMALL), "steps_a_block": STEPS, "rounds": rounds, "repeats": repeats}
    settings |= {"large": to_dict(LARGE), "large_batch": 1, "large_rounds": large_rounds}
    write(out, "watch_cost", settings=settings, results=results)


def interleave_cpu(arms: dict[str, Callable[[], None]], *, rounds: int) -> dict[str, np.ndarray]:
    """As `benchmarks.common.interleave`, in CPU seconds."""
    for work in arms.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds):
        for name in list(arms) if number % 2 else reversed(list(arms)):
            seconds[name].append(cpu_seconds(arms[name]))
    return {name: np.array(values) for name, values in seconds.items()}


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of some work."""
    began = time.process_time()
    work()
    return time.process_time() - began


def block(data: Text | Images, root: Path | None = None) -> tuple[Callable[[], None], Callable[[], None]]:
    """A hundred steps of a network of its own, watched or not, and what ends the watch."""
    model = SMALL.model.build(seed=0)
    optimizer = build_optimizer(SMALL.optimizer, model)
    train_step = stepper(SMALL, data, model, optimizer)
    watched = watch(model, optimizer, root=root, name="small") if root is not None else None
    steps = count()

    def run() -> None:
        for _ in range(STEPS):
            loss, _ = train_step(next(steps))
            if watched is not None:
                watched.log(loss=loss)

    return run, watched.close if watched is not None else lambda: None


def large(root: Path, rounds: int) -> dict[str, float]:
    """GPT-2 124M: seconds of a training step, what measuring adds to one, and its share of ten."""
    model = LARGE.build(seed=0)
    optimizer = build_optimizer(SMALL.optimizer, model)
    tokens = torch.randint(LARGE.vocab_size, (1, LARGE.block_size + 1), generator=torch.Generator().manual_seed(0))

    def gradient() -> None:
        optimizer.zero_grad()
        model.loss(tokens[:, :-1], tokens[:, 1:]).backward()

    forward = cpu_seconds(gradient)
    optimizer.step()  # its state is made
    plain = [cpu_seconds(optimizer.step) for _ in range(rounds)]
    with watch(model, optimizer, root=root, name="large", every=1) as watched:
        optimizer.step()  # its copy of the weights is made
        measured = [cpu_seconds(optimizer.step) for _ in range(rounds)]
        fetched = cpu_seconds(watched.flush) / (rounds + 1)
    step, added = forward + float(np.median(plain)), float(np.median(measured) - np.median(plain)) + fetched
    return {"step_s": round(step, 3), "measuring_s": round(added, 4), "share_of_ten_steps": round(added / 10 / step, 5)}
