"""A run directory read back: what the run is, what was predicted, what happened; also while it is being written."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from theory.errors import InputError
from theory.recipe import Recipe
from theory.serialize import from_dict

if TYPE_CHECKING:
    from empirics.probes.bill import Cost

Status = Literal["new", "partial", "finished", "diverged"]

UNITS = {
    "loss": "nats",
    "val_loss": "nats",
    "fresh_loss": "nats",
    "val_loss_block": "nats",
    "fresh_loss_block": "nats",
    "train_loss_fresh": "nats",
    "test_loss": "nats",
    "angle": "rad/step",
    "angle_<n>": "rad",
    "row_angle_<n>": "rad",
    "noise_scale": "examples",
}
"""Unit of each quantity, <n> for any number; the others are pure numbers, or in the units of the weights, and have "1".
"""


@dataclass(frozen=True)
class Record:
    """A run directory, opened for reading; it may still be written.

    Example:
        >>> Record(Path("nowhere")).status
        'new'
    """

    path: Path
    """The directory."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))  # a string will do

    @property
    def name(self) -> str:
        """The directory's name, <name>-<hash8>."""
        return self.path.name

    @property
    def status(self) -> Status:
        """One of new (nothing written), partial (resumable), finished and diverged."""
        if (self.path / "divergence.json").exists():
            return "diverged"
        if (self.path / "metrics.parquet").exists():
            return "finished"
        if (self.path / "config.json").exists():
            return "partial"
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
        import empirics.config  # noqa: F401 - makes its classes known

        return from_dict(self.description["config"])

    @property
    def divergence(self) -> dict[str, Any] | None:
        """divergence.json: step, trigger and per-tensor state; None if the run did not diverge."""
        return _read_json(self.path / "divergence.json") if (self.path / "divergence.json").exists() else None

    @property
    def events(self) -> list[dict[str, Any]]:
        """events.json: spikes and drifts of the loss that did not end the run, and how every tensor looked then."""
        return _read_json(self.path / "events.json") if (self.path / "events.json").exists() else []

    @property
    def notes(self) -> list[str]:
        """notes.json: what a watch had to say, such as learning rates that left the schedule; often empty."""
        return _read_json(self.path / "notes.json") if (self.path / "notes.json").exists() else []

    def cost(self) -> Cost:
        """What the probes cost, in measured seconds and as a share of the time since the run was last started.

        Returns:
            The bill; prints as a table.

        Raises:
            InputError: If the run has not written one yet.
        """
        from empirics.probes.bill import Cost, Item

        file = self.path / "timing.json"
        bill = _read_json(file).get("probes") if file.exists() else None
        if bill is None:
            raise InputError(f"{self.path} has no bill of its probes: it is written with the first checkpoint.")
        return Cost(tuple(Item(**item) for item in bill["items"]), bill["seconds"])

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

    def progress(self) -> tuple[int, float] | None:
        """How far the run is, from the end of metrics.jsonl.

        Returns:
            Steps done and the latest loss (nats); None before the first.
        """
        file = self.path / "metrics.jsonl"
        if not file.exists():
            return None
        with open(file, "rb") as stream:
            stream.seek(max(file.stat().st_size - 2**20, 0))
            ends = stream.read().split(b"\n")[:-1]
        line = next((line for line in reversed(ends) if line.endswith(b"}") and b'"loss"' in line), None)
        values = json.loads(line) if line is not None and line.startswith(b"{") else None
        if values is None:
            return None
        loss = values["values"]["loss"][""]
        return values["step"] + 1, math.nan if loss is None else loss

    def lines(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl, without a torn last line.

        Returns:
            Dictionaries {"step": t, "values": {quantity: {tensor: value}}}; None stands for nan and inf.

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
        rows = table.loc[table["tensor"] == tensor]
        if rows.empty:
            names = ", ".join(repr(name) for name in table["tensor"].unique())
            raise InputError(f"tensor = {tensor!r} has no {quantity} in {self.name}: it must be one of {names}.")
        return pd.Series(rows["value"].to_numpy(), index=pd.Index(rows["step"], name="step"), name=quantity)

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
        wide = table.pivot(index="step", columns="tensor", values="value")
        return wide.reindex(columns=table["tensor"].unique())

    def _of(self, quantity: str) -> pd.DataFrame:
        table = self.metrics()
        rows = table.loc[table["quantity"] == quantity]
        if rows.empty:
            measured = ", ".join(sorted(table["quantity"].unique())) or "nothing yet"
            raise InputError(f"quantity = {quantity!r} is not in {self.name}: it holds {measured}.")
        return rows


def unit(quantity: str) -> str:
    """Unit of a quantity, of its value for averaged weights, or of its standard error.

    Args:
        quantity: Its name; "<name>_average" for averaged weights, "<name>_stderr" for the standard error.

    Returns:
        The unit, "1" if it has none.

    Example:
        >>> unit("row_angle_100"), unit("noise_scale_stderr"), unit("norm")
        ('rad', 'examples', '1')
    """
    plain = quantity.removesuffix("_stderr").removesuffix("_average")
    return UNITS.get(re.sub(r"_\d+$", "_<n>", plain), "1")


def tidy(run: str, lines: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Records as a long table.

    Args:
        run: The run's name.
        lines: As from `Record.lines`.

    Returns:
        Columns run, step, tensor, quantity, value, unit.
    """
    rows = [
        (run, line["step"], tensor, quantity, math.nan if value is None else value, unit(quantity))
        for line in lines
        for quantity, values in line["values"].items()
        for tensor, value in values.items()
    ]
    table = pd.DataFrame(rows, columns=["run", "step", "tensor", "quantity", "value", "unit"])
    return table.astype({"step": "int64", "value": "float64"})


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256.

    Args:
        data: Any bytes.

    Returns:
        64 digits.
    """
    return hashlib.sha256(data).hexdigest()


def _parse(file: Path) -> Iterable[dict[str, Any]]:
    lines = file.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            if line:
                yield json.loads(line)
        except ValueError:
            if number < len(lines):
                raise InputError(f"{file} is damaged: line {number} of {len(lines)} is not JSON.") from None


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except FileNotFoundError:
        raise InputError(f"{file.parent} is not a run directory: it has no {file.name}.") from None
    except ValueError:
        raise InputError(f"{file} is damaged: it is not JSON.") from None
