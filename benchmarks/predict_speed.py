"""What a prediction costs, and how far the fast solver is from the recursion that takes every step."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from benchmarks.common import write
from theory import predict, shapes
from theory.optimizers import AdamW
from theory.recipe import Recipe
from theory.schedules import Cosine
from theory.serialize import to_dict
from theory.trajectory.adamw import adamw_trajectory

STEPS = 600_000
RECIPE = Recipe(
    AdamW(lr=6e-4, betas=(0.9, 0.95), weight_decay=0.1), Cosine(warmup=2_000, final=0.1), STEPS, shapes.gpt2("124m")
)


def main(*, repeats: int = 5, out: Path) -> None:
    """Time predict() on GPT-2 124M's 148 tensors and 600,000 steps, and the recursion for one tensor, in CPU seconds.

    Why the two may be exchanged: their largest difference over 20,000 steps spread over the run, for four tensors.
    """
    seconds = []
    for _ in range(repeats):
        began = time.process_time()
        predict(RECIPE).table()
        seconds.append(time.process_time() - began)
    prediction = predict(RECIPE)
    chosen = [0, 4, 8, len(RECIPE.groups) - 4]
    at = np.unique(np.concatenate([np.arange(5_000), np.linspace(5_000, STEPS - 1, 15_000).astype(int)]))
    fast, differences = prediction.values(at), {}
    began = time.process_time()
    for index in chosen:
        group = RECIPE.groups[index]
        every = np.arange(STEPS)
        exact = adamw_trajectory(
            RECIPE.lr(every, group),
            RECIPE.decay_of(group),
            (0.9, 0.95),
            group.norm0 or 1.0,
            group.size,
            at.tolist(),
            scale_invariant=group.scale_invariant is not None,
        )
        differences[group.name] = {
            "norm": float(np.max(np.abs(fast["norm"][:, index] / exact.norm - 1))),
            "angle": float(np.max(np.abs(fast["angle"][:, index] / exact.angle - 1))),
        }
    recursion = (time.process_time() - began) / len(chosen)
    results = {
        "predict_cpu_seconds": [round(value, 3) for value in seconds],
        "recursion_cpu_seconds_one_tensor": round(recursion, 2),
        "speedup_over_all_tensors": round(recursion * len(RECIPE.groups) / float(np.median(seconds)), 1),
        "largest_relative_difference": differences,
    }
    settings = {"recipe": to_dict(RECIPE)["optimizer"], "tensors": len(RECIPE.groups), "steps": STEPS}
    write(out, "predict_speed", settings=settings, results=results)
