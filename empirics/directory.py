"""A run directory being written: by one process at a time, every file whole or absent."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from empirics.files import one_sentence_if_full, write_atomic
from empirics.lock import Lock
from empirics.records import Record, sha256, tidy
from theory.errors import InputError
from theory.recipe import Recipe
from theory.serialize import to_dict

Values = Mapping[str, Mapping[str, float]]


class Prediction(Protocol):
    """What a run directory stores of a prediction."""

    @property
    def recipe(self) -> Recipe:
        """What was predicted."""
        ...

    def table(self) -> pd.DataFrame:
        """Tidy table."""
        ...


class RunDirectory:
    """A run directory, locked for writing; a context manager.

    Args:
        path: The directory, made if it is not there.
        config: The run's configuration.

    Raises:
        InputError: If another process writes it, or it belongs to another configuration (the fields are named).
    """

    writes = True
    """Whether what is given to it is written."""

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
        if record.status == "new" or record.description["hash"] == config.hash:
            return
        there, given = leaves(to_dict(record.config)), leaves(to_dict(config))
        names = [key for key in {**there, **given} if not key.startswith("probes.")]
        fields = [key for key in names if there.get(key) != given.get(key) and (there.get(key) or given.get(key))]
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
            "hash": self.config.hash,
            "data_hash": data_hash,
            "prediction_sha256": sha256(table) if prediction is not None else None,
            "environment": environment,
        }
        write_atomic(self.path / "config.json", json.dumps(description, indent=1))

    def amend(self) -> None:
        """Store this configuration in place of one that differs in nothing but its probes."""
        description = {**self.record.description, "config": to_dict(self.config)}
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


def _line(step: int, values: Values) -> str:
    try:
        return json.dumps({"step": step, "values": values}, allow_nan=False) + "\n"
    except ValueError:  # JSON has no nan and no inf
        clean = {q: {k: v if math.isfinite(v) else None for k, v in each.items()} for q, each in values.items()}
        return json.dumps({"step": step, "values": clean}) + "\n"


def _write_all(stream: io.RawIOBase | io.FileIO, data: bytes) -> None:
    while data:
        data = data[stream.write(data) :]


def leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    """The values of a nested dictionary by their dotted names."""
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for key, item in value.items() for k, v in leaves(item, f"{prefix}.{key}".lstrip(".")).items()}
