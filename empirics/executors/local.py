"""Processes of this machine, so many at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from empirics.executors.job import Job, search_path
from theory.errors import whole

JOB = "DECAYLAB_JOB"
"""Environment variable that tells `python -m empirics.sweep` what to train."""


@dataclass(frozen=True)
class Local:
    """Train runs in processes of their own.

    Example:
        >>> Local(workers=4).width
        4
    """

    workers: int = 1
    """Runs at a time."""

    def __post_init__(self) -> None:
        whole("workers", self.workers, low=1)

    @property
    def width(self) -> int:
        """Runs at a time."""
        return self.workers

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def start(self, job: Job) -> Process:
        """Start a run in a new process.

        Args:
            job: The run.

        Returns:
            The process.
        """
        return Process.start(job, ["-m", "empirics.sweep"])


@dataclass(frozen=True)
class Process:
    """A run in a process of this machine."""

    popen: subprocess.Popen[bytes]
    """The process. Its standard input stays open as long as this sweep lives, and tells it when that is over."""

    @staticmethod
    def start(job: Job, arguments: Sequence[str]) -> Process:
        """Start Python, in a session of its own so that Ctrl-C reaches it through the sweep only.

        Args:
            job: The run; what is printed goes to its log.txt.
            arguments: Of the interpreter.

        Returns:
            The process.
        """
        path = job.record.path
        path.mkdir(parents=True, exist_ok=True)
        threads = {"OMP_NUM_THREADS": str(job.config.threads)}
        with open(path / "log.txt", "ab") as log:
            popen = subprocess.Popen(
                [sys.executable, *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | threads | {"PYTHONPATH": search_path(), JOB: job.to_json()},
                start_new_session=True,
            )
        return Process(popen)

    def ended(self) -> int | None:
        """Its exit code; None while it runs."""
        code = self.popen.poll()
        if code is not None and self.popen.stdin is not None:
            self.popen.stdin.close()
        return code

    def stop(self) -> None:
        """Ask it to save and stop."""
        self.popen.terminate()
