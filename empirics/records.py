"""The run directory: what a run is, what was predicted, what happened. One writer, any number of readers."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import pandas as pd

from empirics.files import one_sentence_if_full, write_atomic
from empirics.lock import Lock
from theory.errors import InputError
from theory.recipe import Recipe
from theory.serialize import content_hash, from_dict, to_dict

Values = Mapping[str, Mapping[str, float]]
Status = Literal["new", "partial", "finished", "diverged"]

UNITS = {
    "loss": "nats",
    "val_loss": "nats",
    "train_loss_fresh": "nats",
    "test_loss": "nats",
    "angle": "rad/step",
}
"""Unit of each quantity; the others are pure numbers, or in the units of the weights, and have "1"."""


class Prediction(Protocol):
    """What a run directory stores of a prediction."""

    recipe: Recipe

    def table(self) -> pd.DataFrame:
        """Tidy table."""
        ...


@dataclass(frozen=True)
class Record:
    """A run directory, opened for reading; it may still be written.

    Example:
        >>> Record(Path("nowhere")).status
        'new'
    """

    path: Path
    """The directory."""

    @property
    def name(self) -> str:
        """The directory's name, <name>-<hash8>."""
        return self.path.name

    @property
    def status(self) -> Status:
        """new (nothing written), partial (resumable), finished or diverged."""
        for file, status in (
            ("divergence.json", "diverged"),
            ("metrics.parquet", "finished"),
            ("config.json", "partial"),
        ):
            if (self.path / file).exists():
                return status
        return "new"

    @cached_property
    def description(self) -> dict[str, Any]:
        """config.json: config, hash, environment, data_hash, prediction_sha256.

        Raises:
            InputError: If this is no run directory.
        """
        return _read_json(self.path / "config.json")

    @property
    def config(self) -> Any:
        """The run's `TrainConfig`."""
        return from_dict(self.description["config"])

    @property
    def divergence(self) -> dict[str, Any] | None:
        """divergence.json: step, trigger and per-tensor state; None if the run did not diverge."""
        return _read_json(self.path / "divergence.json") if (self.path / "divergence.json").exists() else None

    @property
    def error(self) -> str | None:
        """Why the last attempt at this run failed, if it did: a sentence."""
        file = self.path / "error.txt"
        return file.read_text() if file.exists() else None

    @property
    def recipe(self) -> Recipe | None:
        """The recipe that was predicted from; None if the run had no prediction."""
        file = self.path / "recipe.json"
        return Recipe.from_json(file.read_text()) if file.exists() else None

    @property
    def preregistered(self) -> bool:
        """Whether there is a prediction and it is, byte for byte, the one written before step 0."""
        file = self.path / "prediction.parquet"
        return file.exists() and sha256(file.read_bytes()) == self.description["prediction_sha256"]

    def prediction(self) -> pd.DataFrame | None:
        """The prediction's tidy table.

        Returns:
            The table, or None if the run had no prediction.
        """
        file = self.path / "prediction.parquet"
        return pd.read_parquet(file) if file.exists() else None

    def metrics(self) -> pd.DataFrame:
        """Everything measured so far.

        Returns:
            Columns run, step, tensor ("" for a global quantity), quantity, value, unit; a row a number.
        """
        file = self.path / "metrics.parquet"
        return pd.read_parquet(file) if file.exists() else tidy(self.name, self.lines())

    def lines(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl, without a torn last line.

        Returns:
            Dictionaries {"step": t, "values": {quantity: {tensor: value}}}, None standing for a number that is not finite.

        Raises:
            InputError: If a line other than the last cannot be read.
        """
        file = self.path / "metrics.jsonl"
        return list(_parse(file)) if file.exists() else []

    def series(self, quantity: str, tensor: str = "") -> pd.Series:
        """One quantity of one tensor.

        Args:
            quantity: Its name.
            tensor: The tensor's name; "" for a global quantity.

        Returns:
            Values indexed by step.

        Raises:
            InputError: If it was not measured; lists what was.
        """
        table = self._of(quantity)
        rows = table[table["tensor"] == tensor]
        if rows.empty:
            names = ", ".join(repr(name) for name in table["tensor"].unique())
            raise InputError(f"tensor = {tensor!r} has no {quantity} in {self.name}: it must be one of {names}.")
        return rows.set_index("step")["value"].rename(quantity)

    def pivot(self, quantity: str) -> pd.DataFrame:
        """One quantity of all tensors.

        Args:
            quantity: Its name.

        Returns:
            Steps in rows, tensors in columns, in the model's order.

        Raises:
            InputError: If it was not measured; lists what was.
        """
        table = self._of(quantity)
        return table.pivot_table(index="step", columns="tensor", values="value")[list(table["tensor"].unique())]

    def _of(self, quantity: str) -> pd.DataFrame:
        table = self.metrics()
        rows = table[table["quantity"] == quantity]
        if rows.empty:
            measured = ", ".join(sorted(table["quantity"].unique())) or "nothing yet"
            raise InputError(f"quantity = {quantity!r} is not in {self.name}: it holds {measured}.")
        return rows


class RunDirectory:
    """A run directory, locked for writing; a context manager.

    Args:
        path: The directory, made if it is not there.
        config: The run's configuration.

    Raises:
        InputError: If another process writes it, or it belongs to another configuration (the fields are named).
    """

    def __init__(self, path: Path, config: Any) -> None:
        self.path, self.config, self.record = path, config, Record(path)
        self.check(path, config)
        path.mkdir(parents=True, exist_ok=True)
        self._lock = Lock(path)
        (path / "error.txt").unlink(missing_ok=True)

    @staticmethod
    def check(path: Path, config: Any) -> None:
        """Raise `InputError` if a directory belongs to another configuration; a new one belongs to nobody."""
        record = Record(path)
        if record.status == "new" or record.description["hash"] == content_hash(config):
            return
        there, given = _leaves(record.description["config"]), _leaves(to_dict(config))
        fields = [key for key in {**there, **given} if there.get(key) != given.get(key)]
        differences = "; ".join(f"{key} is {there.get(key)!r} there, {given.get(key)!r} here" for key in fields)
        raise InputError(f"{path} holds another run: {differences or 'its hash was altered'}.")

    def __enter__(self) -> RunDirectory:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def create(
        self, *, environment: Mapping[str, Any], data_hash: str, source: str, prediction: Prediction | None
    ) -> None:
        """Write everything that is known before step 0; config.json comes last and makes the run exist.

        Args:
            environment: See `empirics.environment`.
            data_hash: Content hash of the data.
            source: Source of the training script.
            prediction: What is expected, if anything.
        """
        table = b""
        if prediction is not None:
            table = parquet(prediction.table())
            write_atomic(self.path / "prediction.parquet", table)
            write_atomic(self.path / "recipe.json", prediction.recipe.to_json(indent=1))
        write_atomic(self.path / "source.txt", source)
        description = {
            "config": to_dict(self.config),
            "hash": content_hash(self.config),
            "data_hash": data_hash,
            "prediction_sha256": sha256(table) if prediction is not None else None,
            "environment": environment,
        }
        write_atomic(self.path / "config.json", json.dumps(description, indent=1))

    def append(self, records: Iterable[tuple[int, Values]], *, sync: bool = False) -> None:
        """Add records to metrics.jsonl, a line each.

        Args:
            records: Pairs (step, {quantity: {tensor: value}}), in order of steps.
            sync: Wait until they are on the disk.

        Raises:
            DiskFullError: If the disk is full; no torn line is left.
        """
        lines = "".join(_line(step, values) for step, values in records)
        file = self.path / "metrics.jsonl"
        with one_sentence_if_full(file), open(file, "ab", buffering=0) as stream:
            end = stream.tell()
            try:
                _write_all(stream, lines.encode())
                if sync:
                    os.fsync(stream.fileno())
            except OSError:
                stream.truncate(end)
                raise

    def truncate(self, step: int) -> None:
        """Forget the records of a step and all later ones, and a torn last line.

        Args:
            step: The step at which the run continues.
        """
        kept = [line for line in self.record.lines() if line["step"] < step]
        write_atomic(self.path / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))

    def write_json(self, name: str, value: Any) -> None:
        """Write one of the directory's JSON files.

        Args:
            name: timing.json, divergence.json ...
            value: JSON values.
        """
        write_atomic(self.path / name, json.dumps(value, indent=1))

    def finish(self) -> None:
        """Compact the records into metrics.parquet, which makes the run finished."""
        write_atomic(self.path / "metrics.parquet", parquet(tidy(self.record.name, self.record.lines())))


def tidy(run: str, lines: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Records as a long table.

    Args:
        run: The run's name.
        lines: As from `Record.lines`.

    Returns:
        Columns run, step, tensor, quantity, value, unit.
    """
    rows = [
        (run, line["step"], tensor, quantity, math.nan if value is None else value, UNITS.get(quantity, "1"))
        for line in lines
        for quantity, values in line["values"].items()
        for tensor, value in values.items()
    ]
    table = pd.DataFrame(rows, columns=["run", "step", "tensor", "quantity", "value", "unit"])
    return table.astype({"step": "int64", "value": "float64"})


def parquet(table: pd.DataFrame) -> bytes:
    """A table as the bytes of a parquet file.

    Args:
        table: Any table.

    Returns:
        The bytes.
    """
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256.

    Args:
        data: Any bytes.

    Returns:
        64 digits.
    """
    return hashlib.sha256(data).hexdigest()


def _line(step: int, values: Values) -> str:
    try:
        return json.dumps({"step": step, "values": values}, allow_nan=False) + "\n"
    except ValueError:  # JSON has no nan and no inf
        clean = {q: {k: v if math.isfinite(v) else None for k, v in each.items()} for q, each in values.items()}
        return json.dumps({"step": step, "values": clean}) + "\n"


def _write_all(stream: io.RawIOBase | io.FileIO, data: bytes) -> None:
    while data:
        data = data[stream.write(data) :]


def _parse(file: Path) -> Iterable[dict[str, Any]]:
    lines = file.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            if line:
                yield json.loads(line)
        except ValueError:
            if number < len(lines):
                raise InputError(f"{file} is damaged: line {number} of {len(lines)} is not JSON.") from None


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        raise InputError(f"{file.parent} is not a run directory: it has no {file.name}.") from None
    except ValueError:
        raise InputError(f"{file} is damaged: it is not JSON.") from None


def _leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for key, item in value.items() for k, v in _leaves(item, f"{prefix}.{key}".lstrip(".")).items()}
