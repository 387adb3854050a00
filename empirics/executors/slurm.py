"""Slurm, through submitit: a job for each run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Self

from empirics.executors.job import FAILED, STOPPED, Job
from theory.errors import InputError

CANCELLED = ("CANCELLED", "INTERRUPTED")


@dataclass(frozen=True)
class Slurm:
    """Submit a job for each run; one that is preempted or runs out of time is queued again and continues.

    The folder of run directories must be one that all nodes share. What jobs print beside their runs' log.txt is in its
    subfolder .slurm.
    """

    cluster: str | None = None
    """slurm, local (processes of this machine) or debug (this process); Slurm if there is one, else local, if
    omitted."""
    options: dict[str, Any] = field(default_factory=dict)
    """As in submitit's `update_parameters`: timeout_min, cpus_per_task, gpus_per_node, slurm_partition ..."""

    @property
    def width(self) -> None:
        """Slurm has a queue of its own."""

    def __enter__(self) -> Self:
        imported()
        return self

    def __exit__(self, *_: object) -> None: ...

    def start(self, job: Job) -> Submitted:
        """Submit a run.

        Args:
            job: The run.

        Returns:
            Its job.

        Raises:
            InputError: If submitit has no such option, or there is no Slurm.
        """
        job.record.path.mkdir(parents=True, exist_ok=True)
        try:
            executor = imported().AutoExecutor(folder=job.root / ".slurm", cluster=self.cluster)
            executor.update_parameters(**{"name": "decaylab", "timeout_min": 24 * 60, **self.options})
            return Submitted(job, executor.submit(Attempt(), job.to_json()))
        except (NameError, ValueError, TypeError, RuntimeError) as error:
            raise InputError(f"executor = 'slurm' cannot submit: {str(error).splitlines()[0]}") from None


@dataclass(frozen=True)
class Submitted:
    """A run that Slurm has."""

    job: Job
    """The run."""
    handle: Any
    """submitit's job."""

    def ended(self) -> int | None:
        """Its exit code; None while it waits or runs."""
        try:
            if not self.handle.done():
                return None
            return STOPPED if self.handle.state in CANCELLED else int(self.handle.result())
        except Exception as error:  # a job that left no result: killed, out of memory ...
            if self.handle.state in CANCELLED:
                return STOPPED
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raised = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]  # in its traceback
            self.job.fail(f"Slurm's job {self.handle.job_id} left no result: {(raised or lines)[-1]}")
            return FAILED

    def stop(self) -> None:
        """Cancel the job; its last checkpoint stays."""
        self.handle.cancel()


class Attempt:
    """What a job does; submitit sends it away again when its time is over."""

    def __call__(self, job: str) -> int:
        """Train.

        Args:
            job: The run, as JSON.

        Returns:
            The exit code.
        """
        run = Job.from_json(job)
        with run.logging():
            return run.attempt()

    def checkpoint(self, job: str) -> Any:
        """The same again: it continues from its last checkpoint."""
        return imported().helpers.DelayedSubmission(self, job)


def imported() -> Any:
    """submitit, or the sentence that it is not installed."""
    try:
        import submitit
    except ImportError:
        raise InputError(
            "executor = 'slurm' needs the package submitit: pip install 'decaylab[slurm]', or choose local."
        ) from None
    return submitit
