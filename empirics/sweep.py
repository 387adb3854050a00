"""Many runs: finished ones are skipped, failures are recorded while the others go on, and all become one table."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from empirics import tabulate
from empirics.config import TrainConfig
from empirics.executors import Executor, Job, Local, Started, choose
from empirics.executors.job import BUSY, POLL
from empirics.executors.local import JOB
from empirics.files import write_atomic
from empirics.interrupt import Interrupted, Request, interruptible
from empirics.origins import followed
from empirics.progress import Display
from empirics.records import Record
from empirics.tabulate import OVER
from theory.errors import InputError, require, whole


@dataclass(frozen=True)
class Sweep:
    """Run directories, in an order, to be read together.

    Example:
        >>> len(Sweep((Record(Path("nowhere")),)).table())
        1
    """

    records: tuple[Record, ...]
    """The runs."""
    configs: tuple[TrainConfig, ...] | None = None
    """Their configurations, if they are known without reading the directories."""

    @staticmethod
    def open(root: Path | str) -> Sweep:
        """All run directories in a folder.

        Args:
            root: The folder.

        Returns:
            Them, by name.

        Raises:
            InputError: If it holds none.
        """
        paths = sorted(path for path in Path(root).iterdir() if path.is_dir()) if Path(root).is_dir() else []
        records = tuple(record for record in map(Record, paths) if record.status != "new" or record.error)
        if not records:
            raise InputError(f"root = {str(root)!r} is not allowed: it must be a folder that holds run directories.")
        return Sweep(records)

    def table(self, *, tensors: bool = False) -> pd.DataFrame:
        """One row a run: what differs between the configurations, status, last losses and norms.

        Args:
            tensors: Also the last norm of every tensor, in columns norm:<tensor>.

        Returns:
            See `empirics.tabulate.table`.
        """
        return tabulate.table(self.records, self.configs, tensors=tensors)

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)


def sweep(
    configs: Sequence[TrainConfig],
    root: Path | str,
    *,
    executor: Executor | str = "local",
    predict: Any = None,
    retry: str | None = None,
    device: str | None = None,
    cache: Path | None = None,
    display: Display | None = None,
    **options: Any,
) -> Sweep:
    """Train every configuration; a run that is over, or failed before, is not run again.

    Each run writes what it prints to log.txt in its directory. A run that fails leaves the reason in error.txt
    (`Record.error`), one that diverges its divergence.json, and the others go on. The run directory's name is made of
    the configuration's hash, so a configuration that was trained before, by whatever command, is found there.

    Args:
        configs: The runs.
        root: Folder of run directories.
        executor: local, torchrun, ray, slurm, or one of `empirics.executors`.
        predict: As in `train`; must be a function of an importable module, since other processes call it.
        retry: failed: run those again, from their last checkpoint, that failed before.
        device: As in `train`.
        cache: As in `train`.
        display: Where progress is shown; a new one on standard error if omitted.
        **options: Of the executor: workers (local: runs at a time), processes (torchrun: of each run), and so on.

    Returns:
        The runs, in the order of the configurations, whatever became of them.

    Raises:
        InputError: If two configurations are the same, `predict` cannot be imported, or the executor cannot work.
        Interrupted: After Ctrl-C or SIGTERM, when all running runs have saved; exit code 130.
    """
    where = choose(executor, **options)
    require(retry in (None, "failed"), "retry", retry, "failed, or left out")
    path, function = Path(root).resolve(), import_path(predict)
    jobs = [Job(config, path, function, device, cache and Path(cache).resolve()) for config in configs]
    repeated = sorted(name for name, count in Counter(job.record.name for job in jobs).items() if count > 1)
    if repeated:
        raise InputError(f"configs hold {repeated[0]} more than once: every run must differ from the others.")
    with interruptible() as stop, display or Display() as shown:
        waiting = []
        for job in jobs:
            before = outcome_before(job.record, retry)
            if before is None:
                waiting.append(job)
            else:
                shown.close(job.record.name, before)
        if waiting:
            with where:
                _run(waiting, where, stop, shown, over=len(jobs) - len(waiting))
        if stop.made:
            left = sum(outcome_before(job.record, None) is None for job in jobs)
            raise Interrupted(
                f"The sweep was stopped, {left} of {len(jobs)} runs are left: the same command continues it."
            )
    return Sweep(tuple(Record(Path(root) / job.record.name) for job in jobs), tuple(configs))


def run_all(
    configs: Sequence[TrainConfig], root: Path | str, *, workers: int = 1, predict: Any = None, **options: Any
) -> list[Record]:
    """Train every configuration, `workers` at a time, those that failed before again.

    Args:
        configs: The runs.
        root: Folder of run directories.
        workers: Processes at a time.
        predict: As in `sweep`.
        **options: Further arguments of `sweep`: device, cache, display.

    Returns:
        The records, in the order of the configurations, whatever became of them.

    Raises:
        InputError: As `sweep`.
        Interrupted: As `sweep`.
    """
    local = Local(whole("workers", workers, low=1))
    return list(sweep(configs, root, executor=local, predict=predict, retry="failed", **options))


def outcome_before(record: Record, retry: str | None) -> str | None:
    """Why a run need not be run.

    Args:
        record: The run.
        retry: As in `sweep`.

    Returns:
        A few words; None if it has to be run.
    """
    if record.status in OVER:
        return f"{record.status} before"
    if record.error is not None and retry != "failed":
        return f"{record.error} (before; --retry failed runs it again)"
    return None


def import_path(function: Any) -> str | None:
    """Where another process finds a function, as module:name; None for None.

    Args:
        function: A function at the top level of an importable module.

    Returns:
        The path.

    Raises:
        InputError: If it is anything else.
    """
    if function is None:
        return None
    module, name = getattr(function, "__module__", "__main__"), getattr(function, "__qualname__", "")
    if module == "__main__" or getattr(sys.modules[module], name, None) is not function:
        raise InputError(f"predict = {function!r} is not allowed: it must be a function of an importable module.")
    return f"{module}:{name}"


def _run(waiting: list[Job], executor: Executor, stop: Request, shown: Display, *, over: int) -> None:
    """Hand out the runs, and see each to its end, or, once a stop is asked for, those that have begun."""
    running: list[tuple[Job, Started]] = []
    asked, total, failed = False, over + len(waiting), 0
    while running or (waiting and not stop.made):
        while not stop.made and (executor.width is None or len(running) < executor.width):
            job = _next(waiting, [job for job, _ in running])
            if job is None:
                break
            waiting.remove(job)
            (job.record.path / "error.txt").unlink(missing_ok=True)
            running.append((job, executor.start(job)))
        if stop.made and not asked:
            asked = True
            for _, started in running:
                started.stop()
        time.sleep(POLL)
        for job, started in list(running):
            code = started.ended()
            if code is not None:
                running.remove((job, started))
                text = "stopped" if asked and code else outcome(job, code)
                shown.close(job.record.name, text)
                over, failed = over + 1, failed + (text not in ("finished", "stopped"))
                shown.overall(over, total, failed)
            elif (progress := job.record.progress()) is not None:
                shown.update(job.record.name, progress[0], job.config.steps, progress[1])


def _next(waiting: list[Job], running: list[Job]) -> Job | None:
    """The first run that follows none (match, twin, init_from) that is still to be trained."""
    ahead = {job.record.name for job in (*waiting, *running)}
    for job in waiting:
        if ahead.isdisjoint(followed(job.config)):
            return job
    return waiting[0] if waiting and not running else None  # they follow one another: its own error says so


def outcome(job: Job, code: int) -> str:
    """What became of a run that ended; a failure is written to error.txt.

    Args:
        job: The run.
        code: Its exit code.

    Returns:
        finished, diverged, or a sentence; one that another process trains is no failure.
    """
    record = Record(job.record.path)
    if code == 0 and record.status in OVER:
        return record.status
    log = record.path / "log.txt"
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    reason = record.error or (lines[-1] if lines else "it printed nothing")
    if code == BUSY:
        return f"left alone: {reason}"
    sentence = f"failed with exit code {code}: {reason}"
    write_atomic(record.path / "error.txt", sentence)
    return sentence


def _end_with_sweep() -> None:
    """Ask this process to save and stop when the sweep that started it is gone, even by kill -9: its pipe closes."""
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Train the run that the environment describes; what goes wrong is the last line printed."""
    if JOB not in os.environ:
        sys.exit("python -m empirics.sweep is what a sweep starts: use `decaylab sweep`.")
    job = Job.from_json(os.environ[JOB])
    threading.Thread(target=_end_with_sweep, daemon=True).start()
    sys.exit(job.attempt())


if __name__ == "__main__":
    main()
