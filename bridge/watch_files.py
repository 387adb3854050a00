"""The run directory of a watched run, and the sinks beside it; a sink that fails is dropped, never the training."""

from __future__ import annotations

import logging
import random
import re
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from bridge.sinks import Sink
from bridge.watch_forecast import Forecast
from empirics.directory import RunDirectory, Values, parquet
from empirics.environment import environment
from empirics.files import write_atomic
from empirics.records import Record
from theory.serialize import content_hash, serializable, to_dict

log = logging.getLogger("decaylab")


@serializable
@dataclass(frozen=True)
class WatchConfig:
    """What was watched; `token` makes every watch a run of its own."""

    name: str
    """First part of the directory's name."""
    model: str
    """Class of the model."""
    optimizer: str
    """Class of the optimizer."""
    parameters: int
    """Number of parameters that are measured."""
    total_steps: int | None
    """Length of the run, if it was announced."""
    start: int
    """Number of the first step."""
    every: int
    """Measured every so many steps."""
    began: str
    """When the watch began, UTC."""
    token: str
    """A random name."""

    @property
    def hash(self) -> str:
        """SHA-256 of the contents."""
        return content_hash(self)

    @staticmethod
    def now(**fields: Any) -> WatchConfig:
        """A configuration that begins now.

        Args:
            **fields: All but `began` and `token`.

        Returns:
            The configuration.
        """
        return WatchConfig(**fields, began=datetime.now(UTC).isoformat(timespec="seconds"), token=uuid.uuid4().hex)


class Files:
    """A watched run's directory and sinks, open for writing.

    Args:
        config: What is watched.
        root: Folder of run directories.
        sinks: Not yet open.
        ahead: The prediction, if it can be made before step 0.
        device: Where the model is.
    """

    def __init__(
        self,
        config: WatchConfig,
        root: Path,
        sinks: Sequence[Sink],
        ahead: Forecast | None,
        device: torch.device,
    ) -> None:
        self.path = root / f"{config.name}-{config.hash[:8]}"
        self.run: RunDirectory = RunDirectory(self.path, config)
        self._sinks: list[Sink] = []
        self.predicted = ahead is not None
        try:
            self.run.create(environment=environment(device), data_hash="", source=script_source(), prediction=ahead)
            with same_randomness():
                for sink in sinks:
                    sink.open(self.path, to_dict(config))
                    self._sinks.append(sink)
        except BaseException:
            self.run.__exit__()
            raise

    @property
    def record(self) -> Record:
        """What was written so far."""
        return Record(self.path)

    def write(self, records: Sequence[tuple[int, Values]]) -> None:
        """Append records to the directory and pass them to the sinks.

        Args:
            records: In order of steps.
        """
        self.run.append(records)
        self._each(lambda sink: [sink.write(step, values) for step, values in records])

    def notes(self, notes: Sequence[str]) -> None:
        """Write notes.json.

        Args:
            notes: Sentences.
        """
        self.run.write_json("notes.json", list(notes))

    def predict_late(self, seen: Forecast) -> None:
        """Store what the laws say on the rates as they were, as prediction_seen.parquet.

        It is also the run's prediction.parquet if there is none; config.json then holds no hash of it, so that it is
        not pre-registered. One that was made before step 0 is never replaced.

        Args:
            seen: The forecast.
        """
        table = parquet(seen.table())
        write_atomic(self.path / "prediction_seen.parquet", table)
        if not self.predicted:
            write_atomic(self.path / "prediction.parquet", table)
            write_atomic(self.path / "recipe.json", seen.recipe.to_json(indent=1))

    def close(self, *, unfinished: str) -> None:
        """Compact the records, unless the run is unfinished; close the sinks and let go of the directory.

        Args:
            unfinished: Why the run is not finished; "" if it is.
        """
        try:
            if unfinished:
                write_atomic(self.path / "error.txt", unfinished)
            elif (self.path / "metrics.jsonl").exists() and not (self.path / "divergence.json").exists():
                self.run.finish()
        finally:
            with same_randomness():
                self._each(lambda sink: sink.close())
            self.run.__exit__()

    def _each(self, action: Callable[[Sink], object]) -> None:
        for sink in tuple(self._sinks):
            try:
                action(sink)
            except Exception as error:
                self._sinks.remove(sink)
                log.warning("%s was dropped, training goes on: %s", type(sink).__name__, error)


def script_source() -> str:
    """Source of the script that is running, or "" if there is none (a notebook, an interpreter)."""
    main: ModuleType | None = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    try:
        return Path(file).read_text() if file else ""
    except (OSError, UnicodeDecodeError):
        return ""


def script_name() -> str:
    """A run's name from the running script's; "watch" if there is none."""
    stem = Path(getattr(sys.modules.get("__main__"), "__file__", None) or "watch").stem
    plain = re.sub(r"[^A-Za-z0-9._=+-]", "-", stem).lstrip("._=+-")
    return plain or "watch"


@contextmanager
def same_randomness() -> Iterator[None]:
    """Leave Python's, numpy's and torch's CPU generators as they were: libraries draw run names from them."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002 - the user's, not ours
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])
