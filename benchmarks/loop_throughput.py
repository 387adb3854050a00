"""Tokens per second of our training loop and of nanoGPT's: same shape, batch, optimizer and cores, in turn."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from benchmarks.common import MODEL, OPTIMIZER, SMALL, interleave, ratio, write
from empirics.data import Text, TextData
from empirics.optimizers import build_optimizer
from empirics.probes.rotation import Rotation
from empirics.train import stepper
from theory.serialize import to_dict

STEPS = 10  # a block


def main(*, nanogpt: Path, rounds: int = 60, out: Path) -> None:
    """Alternate blocks of 10 steps of nanoGPT's loop, of ours, and of ours with the probe at every tenth step."""
    torch.set_num_threads(1)
    data = TextData(vocab_size=MODEL.vocab_size, block_size=MODEL.block_size).open()
    with tempfile.TemporaryDirectory() as folder:
        data.train.tofile(Path(folder) / "train.bin")
        arms = {
            "nanogpt": nanogpt_block(load(nanogpt / "model.py"), Path(folder) / "train.bin"),
            "ours": our_block(data, every=0),
            "ours_probed": our_block(data, every=10),
        }
        seconds = interleave(arms, rounds=rounds)
    tokens = STEPS * SMALL.batch_size * MODEL.block_size
    results = {
        "tokens_per_second": {name: round(tokens / float(np.median(values))) for name, values in seconds.items()},
        "ours_over_nanogpt": ratio(seconds["nanogpt"], seconds["ours"]),
        "ours_probed_over_nanogpt": ratio(seconds["nanogpt"], seconds["ours_probed"]),
    }
    digest = hashlib.sha256((nanogpt / "model.py").read_bytes()).hexdigest()
    settings = {"config": to_dict(SMALL), "steps_a_block": STEPS, "rounds": rounds, "nanogpt_model_sha256": digest}
    write(out, "loop_throughput", settings=settings, results=results)


def our_block(data: Text, *, every: int) -> Callable[[], None]:
    """Ten steps of `empirics.train`'s loop, losses kept and fetched at the end of the block."""
    model = SMALL.model.build(seed=0)
    optimizer = build_optimizer(SMALL.optimizer, model)
    train_step = stepper(SMALL, data, model, optimizer)
    rotation = Rotation(model, optimizer, every=every) if every else None
    steps = count()

    def run() -> None:
        losses = [train_step(next(steps))[0] for _ in range(STEPS)]
        torch.stack(losses).tolist()
        if rotation is not None:
            rotation.flush()

    return run


def nanogpt_block(module: ModuleType, tokens: Path) -> Callable[[], None]:
    """Ten steps with nanoGPT's model and optimizer, in the order of operations of its train.py (CPU, float32)."""
    block = MODEL.block_size
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its number of parameters
        model = module.GPT(
            module.GPTConfig(
                vocab_size=MODEL.vocab_size,
                block_size=MODEL.block_size,
                n_layer=MODEL.n_layer,
                n_head=MODEL.n_head,
                n_embd=MODEL.n_embd,
                dropout=0.0,
                bias=False,
            )
        )
        optimizer = model.configure_optimizers(OPTIMIZER.weight_decay, OPTIMIZER.lr, OPTIMIZER.betas, "cpu")
    scaler = torch.amp.GradScaler("cpu", enabled=False)

    def draw() -> tuple[torch.Tensor, torch.Tensor]:
        stream = np.memmap(tokens, dtype=np.uint16, mode="r")
        starts = torch.randint(len(stream) - block, (SMALL.batch_size,))
        inputs = torch.stack([torch.from_numpy(stream[i : i + block].astype(np.int64)) for i in starts])
        targets = torch.stack([torch.from_numpy(stream[i + 1 : i + 1 + block].astype(np.int64)) for i in starts])
        return inputs, targets

    pending = [draw()]  # the next batch is drawn while the model computes

    def run() -> None:
        loss = torch.zeros(())
        for _ in range(STEPS):
            for group in optimizer.param_groups:
                group["lr"] = OPTIMIZER.lr
            _, loss = model(*pending.pop())
            pending.append(draw())
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), SMALL.grad_clip)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad(set_to_none=True)
        loss.item()

    return run


def load(file: Path) -> ModuleType:
    """Import a module from a file outside the import path."""
    spec = importlib.util.spec_from_file_location("nanogpt_model", file)
    if spec is None or spec.loader is None or not file.exists():
        raise SystemExit(f"{file.parent} is not a checkout of nanoGPT: it has no {file.name}.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
