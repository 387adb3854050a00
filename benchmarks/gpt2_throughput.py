"""Tokens per second of our GPT-2 training loop, its share of the device's peak, and nanoGPT's beside it, in turn.

    python -m benchmarks.gpt2_throughput [--nanogpt DIR] [--shape 124m] [--batch-size 16] [--device cuda]

Same shape, batch, optimizer, precision and device, windows drawn with replacement in both. Not yet run on a GPU: the
peaks in `PEAKS` and the path through CUDA are untested there.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
import tyro

from benchmarks.common import MODEL, SMALL, interleave, ratio, write
from benchmarks.tokenise_speed import timed
from empirics.config import TrainConfig
from empirics.data import Text, TextData
from empirics.models import GPT2Config
from empirics.optimizers import build_optimizer
from empirics.probes.rotation import Rotation
from empirics.train import stepper
from theory.serialize import to_dict

PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165e12,
    "L4": 121e12,
}
"""Dense bf16 operations per second by part of the device's name: from data sheets, estimates, not measured."""
MEASURED = "measured: median over a large matrix product between the other blocks"
GPT2 = GPT2Config(vocab_size=50_304, block_size=1024, n_layer=12, n_head=12, n_embd=768)


def main(
    *,
    nanogpt: Path | None = None,
    shape: Literal["auto", "tiny", "124m"] = "auto",
    batch_size: int | None = None,
    steps: int = 10,
    rounds: int = 60,
    device: str | None = None,
    out: Path = Path(__file__).parent / "results",
) -> None:
    """Alternate blocks of steps of nanoGPT's loop, of ours, and of ours with the probe at every tenth step.

    Args:
        nanogpt: Checkout of github.com/karpathy/nanoGPT; without it there is no ratio.
        shape: tiny (2 layers of width 64, blocks of 64) or 124m (GPT-2 Small, blocks of 1,024); auto: 124m on CUDA.
        batch_size: Windows a step; 8, or 16 on CUDA, if omitted.
        steps: Steps of a block.
        rounds: Blocks of each.
        device: CUDA if there is one, otherwise the CPU (one thread, float32) if omitted.
        out: Folder for the result.
    """
    torch.set_num_threads(1)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    cuda = where.type == "cuda"
    model = GPT2 if shape == "124m" or (shape == "auto" and cuda) else MODEL
    vocabulary = min(model.vocab_size, 50_257)
    config = replace(
        SMALL,
        model=model,
        data=TextData(vocab_size=vocabulary, block_size=model.block_size, replacement=True),
        batch_size=batch_size or (16 if cuda else 8),
        precision="bf16" if cuda else "float32",
    )
    data = config.data.open()
    settings = {"config": to_dict(config), "steps_a_block": steps, "rounds": rounds, "device": str(where)}
    settings["load_average_before"] = [round(load, 2) for load in os.getloadavg()]
    with tempfile.TemporaryDirectory() as folder:
        arms = {
            "ours": our_block(config, data, where, steps=steps, every=0),
            "ours_probed": our_block(config, data, where, steps=steps, every=10),
        }
        if nanogpt is not None:
            data.train.tofile(Path(folder) / "train.bin")
            arms["nanogpt"] = nanogpt_block(
                load(nanogpt / "model.py"), config, Path(folder) / "train.bin", where, steps=steps
            )
            settings["nanogpt_model_sha256"] = hashlib.sha256((nanogpt / "model.py").read_bytes()).hexdigest()
        known, (product, operations) = data_sheet(where), product_block(where)
        if known is None:
            arms["product"] = product
        spent: dict[str, list[float]] = {name: [] for name in arms}
        clock = interleave({name: timed(work, spent[name]) for name, work in arms.items()}, rounds=rounds)
    processor = {name: np.array(values[1:]) for name, values in spent.items()}  # without interleave's untimed round
    per_token = flops_per_token(config)
    results: dict[str, Any] = {"flops_per_token": per_token}
    for kind, seconds in ({"by_clock": clock} | ({} if cuda else {"by_processor_time": processor})).items():
        peak, origin = known or (operations / float(np.median(seconds["product"])), MEASURED)
        tokens = steps * config.batch_size * model.block_size
        rates = {name: tokens / float(np.median(seconds[name])) for name in seconds if name != "product"}
        results[kind] = {
            "tokens_per_second": {name: round(rate) for name, rate in rates.items()},
            "mfu": {name: round(rate * per_token / peak, 4) for name, rate in rates.items()},
            "peak_flops": {"value": round(peak), "origin": origin},
        }
        if nanogpt is not None:
            for name in ("ours", "ours_probed"):
                results[kind][f"{name}_over_nanogpt"] = ratio(seconds["nanogpt"], seconds[name])
    write(out, "gpt2_throughput", settings=settings, results=results, device=where)


def flops_per_token(config: TrainConfig) -> int:
    """Operations of forward and backward pass for one token, as nanoGPT counts them (PaLM, arXiv 2204.02311, App. B).

    6 for each parameter but the positions', and 12 * layers * width * block for attention, which counts masked pairs.
    """
    model = config.model
    assert isinstance(model, GPT2Config)
    network = model.build(seed=0)
    parameters = sum(p.numel() for p in network.parameters()) - model.block_size * model.n_embd
    return 6 * parameters + 12 * model.n_layer * model.n_embd * model.block_size


def data_sheet(device: torch.device) -> tuple[float, str] | None:
    """Operations per second of a known GPU, and where the number comes from."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    for part, peak in PEAKS.items():
        if part in name:
            return peak, f"estimated: data sheet of {part}, dense bf16, not measured"
    return None


def product_block(device: torch.device) -> tuple[Callable[[], None], float]:
    """A large matrix product, which comes close to what any other device can do, and its number of operations."""
    size, dtype = (8192, torch.bfloat16) if device.type == "cuda" else (1024, torch.float32)
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))

    def run() -> None:
        (a @ b)[0, 0].item()  # waits for the device

    return run, 2.0 * size**3


def our_block(config: TrainConfig, data: Text, device: torch.device, *, steps: int, every: int) -> Callable[[], None]:
    """Some steps of `empirics.train`'s loop, losses kept and fetched at the end of the block."""
    model = config.model.build(seed=0).to(device)
    optimizer = build_optimizer(config.optimizer, model)
    train_step = stepper(config, data, model, optimizer)
    rotation = Rotation(model, optimizer, every=every) if every else None
    numbers = count()

    def run() -> None:
        losses = [train_step(next(numbers))[0] for _ in range(steps)]
        torch.stack(losses).tolist()
        if rotation is not None:
            rotation.flush()

    return run


def nanogpt_block(
    module: ModuleType, config: TrainConfig, tokens: Path, device: torch.device, *, steps: int
) -> Callable[[], None]:
    """Some steps with nanoGPT's model and optimizer, in the order of operations of its train.py."""
    shape, optimizer_of, block, cuda = config.model, config.optimizer, config.data.block_size, device.type == "cuda"
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its number of parameters
        model = module.GPT(
            module.GPTConfig(
                vocab_size=shape.vocab_size,
                block_size=shape.block_size,
                n_layer=shape.n_layer,
                n_head=shape.n_head,
                n_embd=shape.n_embd,
                dropout=0.0,
                bias=False,
            )
        ).to(device)
        optimizer = model.configure_optimizers(
            optimizer_of.weight_decay, optimizer_of.lr, optimizer_of.betas, device.type
        )
    if cuda:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        model = torch.compile(model)
    context = torch.autocast("cuda", dtype=torch.bfloat16) if cuda else contextlib.nullcontext()
    scaler = torch.amp.GradScaler(device.type, enabled=False)

    def draw() -> tuple[torch.Tensor, torch.Tensor]:
        stream = np.memmap(tokens, dtype=np.uint16, mode="r")
        starts = torch.randint(len(stream) - block, (config.batch_size,))
        inputs = torch.stack([torch.from_numpy(stream[i : i + block].astype(np.int64)) for i in starts])
        targets = torch.stack([torch.from_numpy(stream[i + 1 : i + 1 + block].astype(np.int64)) for i in starts])
        if cuda:
            return tuple(x.pin_memory().to(device, non_blocking=True) for x in (inputs, targets))
        return inputs, targets

    pending = [draw()]  # the next batch is drawn while the model computes

    def run() -> None:
        loss = torch.zeros(())
        for _ in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = optimizer_of.lr
            with context:
                _, loss = model(*pending.pop())
            pending.append(draw())
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
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


if __name__ == "__main__":
    tyro.cli(main)
