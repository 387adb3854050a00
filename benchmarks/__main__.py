"""Run the benchmarks: python -m benchmarks [--nanogpt DIR]."""

from __future__ import annotations

from pathlib import Path

import tyro

from benchmarks import (
    activations_cost,
    emulation_cost,
    gpt2_throughput,
    hessian_cost,
    jacobian_cost,
    rotation_cost,
    sweep_table,
    tokenise_speed,
    watch_cost,
)


def main(*, nanogpt: Path | None = None, out: Path = Path(__file__).parent / "results") -> None:
    """Run every benchmark and write its result as JSON.

    Args:
        nanogpt: Checkout of github.com/karpathy/nanoGPT; without it gpt2_throughput has no ratio to its loop.
        out: Folder for the results.
    """
    rotation_cost.main(out=out)
    watch_cost.main(out=out)
    activations_cost.main(out=out)
    emulation_cost.main(out=out)
    jacobian_cost.main(out=out)
    hessian_cost.main(out=out)
    tokenise_speed.main(out=out)
    sweep_table.main(out=out)
    gpt2_throughput.main(nanogpt=nanogpt, out=out)


if __name__ == "__main__":
    tyro.cli(main)
