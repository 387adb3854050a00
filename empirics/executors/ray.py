"""Ray: on this machine or on a cluster; a run whose worker dies is taken up by another one."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Self

from empirics.executors.job import FAILED, STOPPED, Job, search_path
from theory.errors import InputError, finite, whole


@dataclass
class Ray:
    """Hand all runs to Ray, which queues them.

    On a cluster, the folder of run directories must be one that all machines share, and decaylab installed on each.
    """

    address: str | None = None
    """A cluster's address, or auto; a Ray of this machine alone if omitted, unless one is running in this process."""
    cpus: float = 1
    """Processor cores a run."""
    gpus: float = 0
    """GPUs a run; one half: two runs share one."""
    retries: int = 3
    """How often a run is taken up again after its worker died."""
    workers: int | None = None
    """Cores of a Ray of this machine; all of them if omitted."""
    started: bool = field(default=False, init=False, repr=False)
    """Whether this Ray is ours to shut down."""

    def __post_init__(self) -> None:
        finite("cpus", self.cpus)
        finite("gpus", self.gpus)
        whole("retries", self.retries)
        if self.workers is not None:
            whole("workers", self.workers, low=1)

    @property
    def width(self) -> None:
        """Ray has a queue of its own."""

    def __enter__(self) -> Self:
        ray = imported()
        if not ray.is_initialized():
            where = {"num_cpus": self.workers, "include_dashboard": False}
            if self.address is not None:
                where = {"address": self.address}
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing about anyone's use is sent anywhere
            try:
                ray.init(log_to_driver=False, logging_level="error", **where)
            except (ConnectionError, RuntimeError, ValueError) as error:
                line = str(error).splitlines()[0]
                raise InputError(f"address = {self.address!r}: Ray cannot be reached or started ({line}).") from None
            self.started = True
        return self

    def __exit__(self, *_: object) -> None:
        if self.started:
            self.started = False
            imported().shutdown()

    def start(self, job: Job) -> Task:
        """Queue a run.

        Args:
            job: The run.

        Returns:
            Its task.
        """
        ray = imported()
        job.record.path.mkdir(parents=True, exist_ok=True)
        environment = {"env_vars": {"PYTHONPATH": search_path(), "OMP_NUM_THREADS": str(job.config.threads)}}
        remote = ray.remote(_attempt).options(
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            max_retries=self.retries,
            runtime_env=environment,
            name=job.record.name,
        )
        return Task(job, remote.remote(job.to_json()))


@dataclass(frozen=True)
class Task:
    """A run that Ray has."""

    job: Job
    """The run."""
    reference: Any
    """Ray's reference to its exit code."""

    def ended(self) -> int | None:
        """Its exit code; None while it waits or runs."""
        ray = imported()
        ready, _ = ray.wait([self.reference], timeout=0)
        if not ready:
            return None
        try:
            return ray.get(self.reference)
        except ray.exceptions.TaskCancelledError:
            return STOPPED
        except ray.exceptions.RayError as error:  # its workers died too often
            self.job.fail(f"Ray gave up: {str(error).splitlines()[0]}")
            return FAILED

    def stop(self) -> None:
        """Ask it to save and stop."""
        imported().cancel(self.reference)


def imported() -> Any:
    """Ray, or the sentence that it is not installed."""
    try:
        import ray
    except ImportError:
        raise InputError(
            "executor = 'ray' needs the package ray: pip install 'decaylab[ray]', or choose local."
        ) from None
    return ray


def _attempt(job: str) -> int:
    run = Job.from_json(job)
    with run.logging():
        return run.attempt()
