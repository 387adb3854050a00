"""Interleaved timing and results with their environment."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from empirics.config import TrainConfig
from empirics.data import TextData
from empirics.environment import environment
from empirics.files import write_atomic
from empirics.models import GPT2Config
from theory.optimizers import AdamW
from theory.schedules import Cosine

MODEL = GPT2Config(vocab_size=1024, block_size=64, n_layer=2, n_head=2, n_embd=64)
OPTIMIZER = AdamW(lr=4e-3, betas=(0.9, 0.95), weight_decay=0.1)
SMALL = TrainConfig(
    name="small",
    model=MODEL,
    data=TextData(vocab_size=MODEL.vocab_size, block_size=MODEL.block_size),
    optimizer=OPTIMIZER,
    schedule=Cosine(warmup=100, final=0.1),
    steps=10_000,
    batch_size=8,
    grad_clip=1.0,
)


def interleave(arms: Mapping[str, Callable[[], None]], *, rounds: int) -> dict[str, np.ndarray]:
    """Time several pieces of work in turn, so that whatever else the machine does falls on all of them.

    Args:
        arms: Work to time, by name; each is run once, untimed, first.
        rounds: How often each is timed; the order is reversed every other round.

    Returns:
        Seconds of every round, by name.
    """
    for work in arms.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds):
        for name in list(arms) if number % 2 else reversed(list(arms)):
            began = time.perf_counter()
            arms[name]()
            seconds[name].append(time.perf_counter() - began)
    return {name: np.array(values) for name, values in seconds.items()}


def ratio(seconds: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    """Ratio of two interleaved timings, round by round.

    Args:
        seconds: Of each round.
        reference: Of the same rounds.

    Returns:
        Median and quartiles.
    """
    low, median, high = np.quantile(seconds / reference, [0.25, 0.5, 0.75])
    return {"median": round(median, 4), "quartile_low": round(low, 4), "quartile_high": round(high, 4)}


def write(
    folder: Path,
    name: str,
    *,
    settings: Mapping[str, Any],
    results: Mapping[str, Any],
    device: torch.device | None = None,
) -> None:
    """Write folder/name.json and print the results.

    Args:
        folder: Where results are kept.
        name: The benchmark.
        settings: What was run.
        results: What came out.
        device: Where it was run; the CPU if omitted.
    """
    machine = environment(device or torch.device("cpu"))
    machine.pop("command")  # it may hold paths of this machine
    folder.mkdir(parents=True, exist_ok=True)
    content = {"benchmark": name, "settings": settings, "results": results, "environment": machine}
    write_atomic(folder / f"{name}.json", json.dumps(content, indent=1) + "\n")
    print(f"{name}: {json.dumps(results, indent=1)}")
