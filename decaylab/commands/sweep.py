"""decaylab sweep: many runs, each once, and one table of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from decaylab.output import print_json, print_lines, print_table
from theory.errors import InputError


@dataclass(frozen=True)
class Sweep:
    """Train an experiment at every combination of some fields' values, or a file of configurations, and print a table.

    A run that is over is never repeated; one that fails or diverges is recorded, and the others go on. A sweep that was
    stopped or killed continues. Of a folder of run directories, the table alone is printed.
    """

    target: Annotated[str, tyro.conf.Positional]
    """Name of an experiment; a *.json or *.py file of configurations; or a folder of run directories."""
    set: Annotated[
        tuple[tuple[str, ...], ...],
        tyro.conf.arg(aliases=("--grid",), metavar="FIELD=VALUE,..."),
        tyro.conf.UseAppendAction,
    ] = ()
    """Fields and their values, separated by commas, such as optimizer.lr=1e-3,4e-3 seed=0,1 (seed: of initialisation,
    data order and label noise); values that hold a comma stand in brackets or quotation marks."""
    scale: Literal["cpu", "gpu", "paper"] = "cpu"
    """Size of a published experiment."""
    data: str | None = None
    """Other data: openwebtext, wikitext, fineweb-edu, python, text:DIR, parquet:DIR (column text) or bin:DIR for
    language models; digits, cifar10, cifar100 or parquet:DIR for images."""
    runs: Path = Path("runs")
    """Folder of run directories."""
    executor: Literal["local", "torchrun", "ray", "slurm"] = "local"
    """Where runs are trained: processes of this machine, several processes for each run, Ray, or Slurm."""
    workers: int | None = None
    """local: runs at a time, 1 by default; ray: cores of a Ray of this machine."""
    processes: int | None = None
    """torchrun: processes of each run."""
    address: str | None = None
    """ray: a cluster's address, or auto; this machine by default."""
    cpus: float | None = None
    """ray: processor cores a run, 1 by default."""
    gpus: float | None = None
    """ray: GPUs a run, 0 by default."""
    retries: int | None = None
    """ray: how often a run is taken up again after its worker died, 3 by default."""
    slurm: tuple[str, ...] = ()
    """slurm: options of submitit, such as slurm_partition=gpu timeout_min=600 gpus_per_node=1."""
    retry: Literal["failed"] | None = None
    """failed: also run those again that failed before, from their last checkpoint."""
    tensors: bool = False
    """Add the last norm of every tensor to the JSON."""
    device: str | None = None
    """Device, such as cpu or cuda:1; CUDA if there is one by default."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        """Train what is left, and print the table.

        Returns:
            Exit code: 0 all runs finished, 1 one did not.

        Raises:
            InputError: If the target, a field or an option is not what it should be.
        """
        from bridge.runs import predict_run
        from empirics import sweep

        if Path(self.target).is_dir():
            found = sweep.Sweep.open(self.target)
        else:
            found = sweep.sweep(
                self._configs(),
                self.runs,
                executor=self.executor,
                predict=predict_run,
                retry=self.retry,
                device=self.device,
                **self._options(),
            )
        table = found.table(tensors=self.tensors)
        if self.json:
            print_json(table)
        else:
            print_table(table[[name for name in table.columns if _shown(name)]], title=f"{len(table)} runs")
            print_lines(f"{row.run}: {row.error}" for row in table.itertuples() if row.status == "failed")
        return 0 if (table["status"] == "finished").all() else 1

    def _configs(self) -> list[Any]:
        from empirics.elsewhere import on_data
        from empirics.grid import grid, read_configs
        from empirics.overrides import override

        assignments = [each for group in self.set for each in group]
        if Path(self.target).suffix not in (".json", ".py"):
            return grid(self.target, assignments, scale=self.scale, change=lambda config: on_data(config, self.data))
        there = read_configs(Path(self.target))
        return [override(on_data(config, self.data), assignments) for config in there]

    def _options(self) -> dict[str, Any]:
        names = ("workers", "processes", "address", "cpus", "gpus", "retries")
        options = {name: getattr(self, name) for name in names}
        return options | {"options": _pairs(self.slurm) if self.slurm else None}


def _pairs(assignments: tuple[str, ...]) -> dict[str, Any]:
    wrong = [each for each in assignments if "=" not in each]
    if wrong:
        raise InputError(f"--slurm {wrong[0]!r} is not allowed: it must be option=value, such as timeout_min=600.")
    pairs = (each.split("=", 1) for each in assignments)
    return {name: int(value) if value.isdigit() else value for name, value in pairs}


def _shown(name: str) -> bool:
    return name not in ("error", "directory") and not name.endswith(("_stderr", "_block")) and ":" not in name
