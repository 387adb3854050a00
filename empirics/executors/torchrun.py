"""Several processes for each run, one run after another: what `torchrun` starts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from empirics.executors.job import Job
from empirics.executors.local import Process
from theory.errors import whole


@dataclass(frozen=True)
class Torchrun:
    """Train each run in several processes of this machine that share its batches.

    Example:
        >>> Torchrun(processes=2).width
        1
    """

    processes: int = 1
    """Processes of a run; on GPUs, one each."""

    def __post_init__(self) -> None:
        whole("processes", self.processes, low=1)

    @property
    def width(self) -> int:
        """Runs at a time."""
        return 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def start(self, job: Job) -> Process:
        """Start a run.

        Args:
            job: The run.

        Returns:
            torchrun's own process; it hands signals on to the others.
        """
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(self.processes)]
        return Process.start(job, [*launcher, "-m", "empirics.sweep"])
