"""decaylab train: one named experiment, its prediction written first."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from decaylab.output import print_json, print_lines


@dataclass(frozen=True)
class Train:
    """Train a named experiment; its prediction is written before step 0. A run that was stopped or killed continues."""

    experiment: Annotated[str, tyro.conf.Positional]
    """Name of the experiment (an unknown one lists them)."""
    set: tuple[str, ...] = ()
    """Fields to change, such as optimizer.lr=1e-3 steps=2000."""
    scale: Literal["cpu", "gpu", "paper"] = "cpu"
    """Size of a published experiment: cpu (a minute or two), gpu (minutes on one 80 GB card), paper (the original)."""
    data: str | None = None
    """Other data: openwebtext, wikitext, fineweb-edu, python, text:DIR, parquet:DIR (column text) or bin:DIR for
    language models; digits, cifar10, cifar100 or parquet:DIR for images."""
    seed: int = 0
    """Seed of initialisation, data order and label noise."""
    runs: Path = Path("runs")
    """Folder of run directories."""
    resume: bool = True
    """Continue a partial run; with --no-resume it is an error."""
    device: str | None = None
    """Device, such as cpu or cuda:1; CUDA if there is one by default."""
    parallel: Literal["auto", "ddp", "fsdp", "none"] = "auto"
    """Under torchrun: ddp (every process has the weights), fsdp (a shard of them), none (alone); auto: ddp."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        """Train.

        Returns:
            Exit code: 0 finished, 1 diverged.

        Raises:
            InputError: If the experiment, a field or the run directory is not what it should be.
        """
        from bridge.runs import predict_run
        from empirics.elsewhere import on_data
        from empirics.experiments import experiment
        from empirics.overrides import override
        from empirics.progress import Display
        from empirics.train import train

        named = experiment(self.experiment, seed=self.seed, scale=self.scale)
        config = override(on_data(named, self.data), self.set)
        with Display() as display:
            record = train(
                config,
                self.runs,
                predict=predict_run,
                resume=self.resume,
                progress=display.follow(config.directory),
                device=self.device,
                parallel=self.parallel,
            )
        if os.environ.get("RANK", "0") != "0" and self.parallel != "none":
            return 0 if record.status == "finished" else 1  # the first process speaks for all
        table = record.metrics()
        globals_ = table[table["tensor"] == ""].groupby("quantity", sort=False)["value"].last().to_dict()
        result = {"run": str(record.path), "status": record.status, "final": globals_}
        if self.json:
            print_json(result | {"divergence": record.divergence})
        else:
            shown = ", ".join(f"{name} {value:.4g}" for name, value in globals_.items())
            print_lines([f"{record.path}: {record.status}; {shown}"])
            if record.divergence:
                print_lines([f"diverged at {record.divergence['trigger']}"])
                print_lines([record.divergence["replay"]["sentence"]] if "replay" in record.divergence else [])
        return 0 if record.status == "finished" else 1
