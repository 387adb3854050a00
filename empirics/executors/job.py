"""One run of a sweep as any process can take it up."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path

from empirics.config import TrainConfig
from empirics.files import DiskFullError
from empirics.interrupt import Interrupted
from empirics.lock import Lock, LockedError
from empirics.records import Record
from theory.errors import InputError
from theory.serialize import from_dict, to_dict

POLL = 0.2  # seconds
PATIENCE = 20.0  # seconds
FAILED, STOPPED, BUSY = 1, 130, 75  # the last is sysexits.h's EX_TEMPFAIL


@dataclass(frozen=True)
class Job:
    """A run to be trained, by whichever process gets it."""

    config: TrainConfig
    """The run."""
    root: Path
    """Folder of run directories, absolute; every machine that trains must see it."""
    predict: str | None = None
    """The `predict` argument of `train` as module:name."""
    device: str | None = None
    """As in `train`."""
    cache: Path | None = None
    """As in `train`."""

    @cached_property
    def record(self) -> Record:
        """Its run directory."""
        return Record(self.root / self.config.directory)

    def to_json(self) -> str:
        """Write it as JSON.

        Returns:
            The text.
        """
        paths = {"root": str(self.root), "cache": self.cache and str(self.cache)}
        return json.dumps({"config": to_dict(self.config), "predict": self.predict, "device": self.device, **paths})

    @staticmethod
    def from_json(text: str) -> Job:
        """Read what `to_json` wrote.

        Args:
            text: The text.

        Returns:
            The job.
        """
        tree = json.loads(text)
        paths = {"root": Path(tree["root"]), "cache": Path(tree["cache"]) if tree["cache"] else None}
        return Job(**{**tree, **paths, "config": from_dict(tree["config"])})

    def attempt(self) -> int:
        """Train in this process, which may be one of several; what goes wrong is printed, and kept in error.txt.

        Returns:
            Exit code: 0 it is over, 1 it failed, 130 it was stopped and saved, 75 another process trains it.
        """
        from empirics.ranks import OtherProcessError
        from empirics.tabulate import summarise
        from empirics.train import train

        try:
            first = os.environ.get("RANK", "0") == "0"
            if first:
                wait_for_lock(self.record.path)
            predict = None
            if self.predict:
                module, name = self.predict.split(":")
                predict = getattr(import_module(module), name)
            train(self.config, self.root, predict=predict, device=self.device, cache=self.cache)
            if first:
                summarise(Record(self.record.path))
        except LockedError as error:
            print(error, flush=True)
            return BUSY
        except (InputError, DiskFullError) as error:
            self.fail(str(error))
            print(error, flush=True)
            return FAILED
        except Interrupted as stop:
            print(stop, flush=True)
            return STOPPED
        except OtherProcessError as error:  # that one keeps the reason
            print(error, flush=True)
            return FAILED
        except Exception as error:
            self.fail(f"{type(error).__name__}: {error}")
            traceback.print_exc()
            return FAILED
        return 0

    def fail(self, reason: str) -> None:
        """Note why it failed, unless another process has.

        Args:
            reason: A sentence.
        """
        with contextlib.suppress(OSError), open(self.record.path / "error.txt", "x") as file:
            file.write(reason)

    @contextlib.contextmanager
    def logging(self) -> Iterator[None]:
        """Send what this process prints to the run's log.txt."""
        self.record.path.mkdir(parents=True, exist_ok=True)
        with (
            open(self.record.path / "log.txt", "a", buffering=1) as log,
            contextlib.redirect_stdout(log),
            contextlib.redirect_stderr(log),
        ):
            yield


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


def search_path() -> str:
    """This process's import path, for the PYTHONPATH of another."""
    return os.pathsep.join(os.path.abspath(folder) for folder in sys.path)
