"""What an executor is."""

from __future__ import annotations

from typing import Protocol, Self

from empirics.executors.job import Job


class Started(Protocol):
    """A run that an executor has taken on."""

    def ended(self) -> int | None:
        """Its exit code, as from `Job.attempt`; None while it waits or runs."""
        ...

    def stop(self) -> None:
        """Ask it to save and stop, without waiting."""
        ...


class Executor(Protocol):
    """Where runs are trained: a context manager, entered for the length of a sweep."""

    @property
    def width(self) -> int | None:
        """How many runs it takes at a time; None: all, it has a queue of its own."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def start(self, job: Job) -> Started:
        """Take on a run, without waiting for it."""
        ...
