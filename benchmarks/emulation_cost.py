"""What emulated precision costs: a training step with it over the float32 step, in one process, in turn."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import OPTIMIZER, SMALL, interleave, ratio, write
from benchmarks.rotation_cost import summary
from empirics.config import TrainConfig
from empirics.data import ImageData, Images, Text, TextData
from empirics.models import GPT2Config, ResNetConfig
from empirics.optimizers import build_optimizer
from empirics.precision import emulate
from empirics.train import stepper
from theory.serialize import to_dict

GPT2 = GPT2Config(vocab_size=1024, block_size=128, n_layer=4, n_head=4, n_embd=128)
TEXT = TextData(vocab_size=GPT2.vocab_size, block_size=GPT2.block_size)
CONFIGS = {
    "gpt2_width_128": replace(SMALL, name="gpt2-128", model=GPT2, data=TEXT),
    "gpt2_width_256": replace(SMALL, name="gpt2-256", model=replace(GPT2, n_embd=256), data=TEXT),
    "resnet_width_8": replace(SMALL, name="resnet-8", model=ResNetConfig(), data=ImageData(), batch_size=128),
    "resnet_width_16": replace(SMALL, name="resnet-16", model=ResNetConfig(width=16), data=ImageData(), batch_size=128),
}
FORMATS = {
    "bf16": lambda: emulate(7, 8),
    "fp16": lambda: emulate(10, 5),
    "bf16_stochastic": lambda: emulate(7, 8, "stochastic", torch.Generator().manual_seed(0)),
    "e4m3": lambda: emulate(3, 4),
}


def main(*, repeats: int = 3, rounds: int = 15, out: Path) -> None:
    """Time single steps of four networks in float32 and in each format, in turn; every repeat is kept."""
    torch.set_num_threads(1)
    results = {}
    for name, config in CONFIGS.items():
        data = config.data.open()
        arms = {"float32": block(config, data, None)} | {key: block(config, data, key) for key in FORMATS}
        timed = [interleave(arms, rounds=rounds) for _ in range(repeats)]
        results[name] = {
            "step_ms_float32": [round(1e3 * float(np.median(seconds["float32"])), 3) for seconds in timed],
        } | {key: summary([ratio(seconds[key], seconds["float32"]) for seconds in timed]) for key in FORMATS}
    settings = {"configs": {name: to_dict(config) for name, config in CONFIGS.items()}}
    write(out, "emulation_cost", settings=settings | {"rounds": rounds, "repeats": repeats}, results=results)


def block(config: TrainConfig, data: Text | Images, key: str | None) -> Callable[[], None]:
    """One step of a network of its own: batch, forward, backward, clipping and optimizer."""
    model = config.model.build(seed=0)
    train_step = stepper(config, data, model, build_optimizer(OPTIMIZER, model))
    context = nullcontext() if key is None else FORMATS[key]()
    steps = count()

    def run() -> None:
        with context:
            train_step(next(steps))

    return run
