"""What the Jacobian's norm costs on ResNet-18, against vmap(jacrev) of torch.func and a gradient, in one process."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.func import functional_call, jacrev, vmap
from torch.nn import functional as F

from benchmarks.common import write
from benchmarks.resnet18 import resnet18
from empirics.probes.jacobian import jacobian_fro

BATCH, OUTPUTS = 32, 10
CHUNKS = ((1, 1), (1, 10), (2, 10))
"""Samples and outputs that the rival takes at a time."""
SAMPLES = 2
"""Of the batch that the rival is timed on: its samples go one or two at a time, so the time is proportional."""


def main(*, rounds: int = 3, out: Path) -> None:
    """Time everything in turn, by CPU time of one thread, and take the least of each; then peak memory, apart.

    Other work on the machine stretches the elapsed time by what it takes away and slows the caches besides; the least
    CPU time of several interleaved rounds is the nearest to what the work itself needs. Both ratios are kept.
    """
    torch.set_num_threads(1)
    arms = {name: make() for name, make in ARMS.items()}
    cpu: dict[str, list[float]] = {name: [] for name in arms}
    wall: dict[str, list[float]] = {name: [] for name in arms}
    for _ in range(rounds):
        for name, work in arms.items():
            began, clock = time.process_time(), time.perf_counter()
            work()
            cpu[name].append((time.process_time() - began) * scale(name))
            wall[name].append((time.perf_counter() - clock) * scale(name))
    memory = {name: peak(name) for name in arms}
    ours = memory["exact"]
    rivals = [name for name in arms if name.startswith("jacrev")]
    fitting = [name for name in rivals if memory[name] <= ours] or [min(rivals, key=memory.__getitem__)]
    least = {name: min(values) for name, values in cpu.items()}
    elapsed = {name: min(values) for name, values in wall.items()}
    best = min(fitting, key=least.__getitem__)
    best_of_all = min(rivals, key=least.__getitem__)
    results = {
        "cpu_seconds_a_batch": {name: round(value, 3) for name, value in least.items()},
        "elapsed_seconds_a_batch": {name: round(value, 3) for name, value in elapsed.items()},
        "peak_memory_mb": {name: round(value) for name, value in memory.items()},
        "rival_within_our_memory_or_least": best,
        "rival_best_of_all": best_of_all,
        "exact_speedup": speedups("exact", best, best_of_all, least, elapsed),
        "one_probe_speedup": speedups("one probe", best, best_of_all, least, elapsed),
        "exact_in_gradients": round(least["exact"] / least["gradient"], 2),
        "one_probe_in_gradients": round(least["one probe"] / least["gradient"], 2),
        **agreement(),
    }
    settings = {"batch": BATCH, "outputs": OUTPUTS, "rounds": rounds, "rival_timed_on": SAMPLES, "threads": 1}
    write(out, "jacobian_cost", settings=settings, results=results)


def speedups(
    ours: str, best: str, best_of_all: str, cpu: dict[str, float], elapsed: dict[str, float]
) -> dict[str, float]:
    """Ratios of least times."""
    return {
        "cpu": round(cpu[best] / cpu[ours], 2),
        "cpu, rival's best": round(cpu[best_of_all] / cpu[ours], 2),
        "elapsed": round(elapsed[best] / elapsed[ours], 2),
    }


def scale(name: str) -> float:
    """From the samples an arm was timed on to a batch."""
    return BATCH / SAMPLES if name.startswith("jacrev") else 1.0


def images() -> Tensor:
    return torch.randn(BATCH, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def ours(**options: object) -> Callable[[], Callable[[], Tensor]]:
    """The probe."""

    def make() -> Callable[[], Tensor]:
        model, x = resnet18().eval(), images()
        return lambda: torch.from_numpy(jacobian_fro(model, x, batch_size=BATCH, **options).norm.samples)

    return make


def rival(samples: int, outputs: int, total: int = SAMPLES) -> Callable[[], Callable[[], Tensor]]:
    """Squared norms from per-sample Jacobians of torch.func."""

    def make() -> Callable[[], Tensor]:
        model, x = resnet18().eval().requires_grad_(False), images()[:total]
        weights = dict(model.named_parameters())

        def logits(weights: dict[str, Tensor], image: Tensor) -> Tensor:
            return functional_call(model, weights, (image[None],))[0]

        def square(image: Tensor) -> Tensor:
            jacobian = jacrev(logits, chunk_size=outputs)(weights, image)
            return torch.stack([part.square().sum() for part in jacobian.values()]).sum()

        return lambda: vmap(square, chunk_size=samples)(x)

    return make


def gradient() -> Callable[[], Tensor]:
    """One gradient of the loss on the batch, the unit of cost."""
    model, x = resnet18().eval(), images()
    parameters, labels = list(model.parameters()), torch.arange(BATCH) % OUTPUTS
    return lambda: torch.autograd.grad(F.cross_entropy(model(x), labels), parameters)[0]


ARMS: dict[str, Callable[[], Callable[[], Tensor]]] = {
    "exact": ours(method="exact"),
    "one probe": ours(method="random", max_probes=1),
    "gradient": gradient,
    **{f"jacrev, {s} samples x {o} outputs": rival(s, o) for s, o in CHUNKS},
}


def agreement() -> dict[str, float]:
    """Largest relative difference from the rival, sample by sample, and from the same in float64."""
    exact, reference = ours(method="exact")()(), rival(1, OUTPUTS, BATCH)()()
    model, x = resnet18().eval(), images()[:SAMPLES].double()
    double = torch.from_numpy(jacobian_fro(model.double(), x, method="exact").norm.samples)
    return {
        "largest_relative_difference_from_jacrev": float((exact / reference.double() - 1).abs().max()),
        "largest_relative_difference_from_float64": float((exact[:SAMPLES] / double - 1).abs().max()),
        "mean": float(exact.mean()),
        "spread_between_images": float(np.std(exact.numpy(), ddof=1) / exact.mean()),
    }


def peak(name: str) -> float:
    """Most memory that an arm needs above the model, in a process of its own, in MB."""
    command = [sys.executable, "-m", "benchmarks.jacobian_cost", name]
    return float(
        json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    )


def measured(name: str) -> float:
    """Peak resident memory during an arm, less that before it, in MB; Linux only."""
    torch.set_num_threads(1)
    work = ARMS[name]()
    before = psutil.Process().memory_info().rss
    work()
    lines = Path("/proc/self/status").read_text().splitlines()
    high_water_kb = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return high_water_kb * 1024 / 1e6 - before / 1e6


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("arm", choices=list(ARMS))
    print(json.dumps(measured(parser.parse_args().arm)))
