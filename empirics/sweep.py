"""Many runs, each in a process of its own: finished ones are skipped, failures are recorded while the others go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from empirics.config import TrainConfig
from empirics.files import DiskFullError, write_atomic
from empirics.interrupt import Interrupted, interruptible
from empirics.lock import Lock, LockedError
from empirics.progress import Display
from empirics.records import Record
from theory.errors import InputError, whole
from theory.serialize import from_dict, to_dict

POLL = 0.2  # seconds
PATIENCE = 20.0  # seconds


def run_all(
    configs: Sequence[TrainConfig],
    root: Path | str,
    *,
    workers: int = 1,
    predict: Any = None,
    device: str | None = None,
    cache: Path | None = None,
    display: Display | None = None,
) -> list[Record]:
    """Train every configuration, `workers` at a time.

    Each run writes what it prints to log.txt in its directory. A run that fails leaves the reason in error.txt
    (`Record.error`) and can be continued by running the sweep again.

    Args:
        configs: The runs.
        root: Folder of run directories.
        workers: Processes at a time.
        predict: As in `train`; must be a function of an importable module, since other processes call it.
        device: As in `train`.
        cache: As in `train`.
        display: Where progress is shown; a new one on standard error if omitted.

    Returns:
        The records, in the order of the configurations, whatever became of them.

    Raises:
        InputError: If two configurations are the same, or `predict` cannot be imported.
        Interrupted: After Ctrl-C or SIGTERM, when all running runs have saved; exit code 130.
    """
    whole("workers", workers, low=1)
    names = [config.directory for config in configs]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(f"configs hold {repeated[0]} more than once: every run must differ from the others.")
    job = {"root": str(root), "predict": import_path(predict), "device": device, "cache": cache and str(cache)}
    waiting, running = list(configs), list[Run]()
    with interruptible() as stop, display or Display() as shown:
        while waiting or running:
            while waiting and len(running) < workers and not stop.made:
                config = waiting.pop(0)
                record = Record(Path(root) / config.directory)
                if record.status in ("finished", "diverged"):
                    shown.close(record.name, f"{record.status} before")
                else:
                    running.append(start(config, record, job))
            if stop.made:
                for run in running:
                    run.process.terminate()
                for run in running:
                    run.process.wait()
                left = sum(Record(Path(root) / name).status in ("new", "partial") for name in names)
                raise Interrupted(
                    f"The sweep was stopped, {left} of {len(names)} runs are left: the same command continues it."
                )
            time.sleep(POLL)
            for run in list(running):
                if run.process.poll() is not None:
                    running.remove(run)
                    shown.close(run.record.name, run.outcome())
                elif progress := run.record.progress():
                    shown.update(run.record.name, progress[0], run.config.steps, progress[1])
    return [Record(Path(root) / name) for name in names]


@dataclass(frozen=True)
class Run:
    """One training process."""

    config: TrainConfig
    """What it trains."""
    record: Record
    """Its directory."""
    process: subprocess.Popen[bytes]
    """The process."""

    def outcome(self) -> str:
        """What became of the ended process; a failure is written to error.txt.

        Returns:
            finished, diverged, or a sentence.
        """
        if self.process.returncode == 0:
            return self.record.status
        lines = (self.record.path / "log.txt").read_text(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else "it printed nothing"
        sentence = f"failed with exit code {self.process.returncode}: {reason}"
        write_atomic(self.record.path / "error.txt", sentence)
        return sentence


def start(config: TrainConfig, record: Record, job: dict[str, Any]) -> Run:
    """Start a run in a new process, in a session of its own so that Ctrl-C reaches it through the sweep only.

    Args:
        config: The run.
        record: Its directory.
        job: The other arguments of `train`.

    Returns:
        The running process.
    """
    record.path.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": str(config.threads)}
    with open(record.path / "log.txt", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "empirics.sweep"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    with process.stdin as stdin:  # pyright: ignore[reportOptionalContextManager] - it is a pipe
        stdin.write(json.dumps(job | {"config": to_dict(config)}).encode())
    return Run(config, record, process)


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


def end_with(parent: int) -> None:
    """Ask this process to save and stop when the sweep that started it is gone, even by kill -9.

    Args:
        parent: The sweep's process id.
    """
    while os.getppid() == parent:
        time.sleep(POLL)
    os.kill(os.getpid(), signal.SIGTERM)


def wait_for_lock(path: Path) -> None:
    """Give a run of an earlier, killed sweep time to save and let go of its directory.

    Args:
        path: The run directory.

    Raises:
        LockedError: If it is still being written after `PATIENCE` seconds.
    """
    end = time.monotonic() + PATIENCE
    while path.exists():
        try:
            Lock(path).release()
        except LockedError:
            if time.monotonic() > end:
                raise
            time.sleep(POLL)
        else:
            return


def main() -> None:
    """Train the run that is described on standard input; what goes wrong is the last line printed."""
    from empirics.train import train

    job = json.load(sys.stdin)
    predict = None
    if job["predict"]:
        module, name = job["predict"].split(":")
        predict = getattr(import_module(module), name)
    cache = Path(job["cache"]) if job["cache"] else None
    threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
    try:
        wait_for_lock(Path(job["root"]) / from_dict(job["config"]).directory)
        train(from_dict(job["config"]), job["root"], predict=predict, device=job["device"], cache=cache)
    except (InputError, DiskFullError) as error:
        sys.exit(str(error))
    except Interrupted as stop:
        print(stop, flush=True)
        raise


if __name__ == "__main__":
    main()
