"""A figure's numbers: a small tidy Parquet table that also says which runs and which machine they come from."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from empirics.config import TrainConfig
from empirics.files import write_atomic
from empirics.records import Record
from theory.errors import InputError

KEY = b"decaylab"
"""Of the origin in the Parquet file's metadata."""
TRANSIENT = ("created", "command")
"""Parts of a run's environment that say nothing about its numbers."""
LOSS_WINDOW = 31
"""Steps over which the training loss before an evaluation is averaged."""
EVALUATED = ("test_error", "test_loss", "train_error", "val_loss", "fresh_loss", "train_loss_fresh")
JACOBIANS = ("jacobian_fro", "jacobian_fro_stderr", "jacobian_parameters", "jacobian_inputs")


@dataclass(frozen=True)
class Table:
    """Numbers with their origin."""

    rows: pd.DataFrame
    """Tidy: column run names the run each row comes from."""
    runs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By run directory: config hash, data hash, status, and index into `environments`."""
    environments: Sequence[Mapping[str, Any]] = ()
    """Where they were made."""
    inputs: Mapping[str, Any] | None = None
    """Of a simulation: what it was made from."""

    def only(self, names: Sequence[str]) -> Table:
        """The part that belongs to some runs.

        Args:
            names: Run directories.

        Returns:
            Their rows, in that order.
        """
        kept = [name for name in names if name in self.runs]
        rows = [self.rows[self.rows["run"] == name] for name in kept]
        joined = pd.concat(rows, ignore_index=True) if rows else self.rows.iloc[:0]
        return Table(joined, {name: self.runs[name] for name in kept}, self.environments, self.inputs)


def evaluations(record: Record) -> pd.DataFrame:
    """Reduce a run to its evaluations.

    Args:
        record: The run.

    Returns:
        Columns step (steps done), quantity, value: what was evaluated, the training loss over the steps before each
        evaluation (`train_loss`, nats), and at the end of a run that diverged `diverged` = 1.
    """
    metrics = record.metrics()
    metrics = metrics[metrics["tensor"] == ""]
    found = metrics[metrics["quantity"].isin((*EVALUATED, *JACOBIANS))][["step", "quantity", "value"]]
    loss = metrics[metrics["quantity"] == "loss"].set_index("step")["value"].sort_index()
    recent = loss.rolling(LOSS_WINDOW, min_periods=1).mean()
    steps = [step for step in sorted(found["step"].unique()) if step in recent.index]
    extra = pd.DataFrame({"step": steps, "quantity": "train_loss", "value": recent.loc[steps].to_numpy()})
    if record.status == "diverged":
        end = pd.DataFrame({"step": [int(loss.index[-1])], "quantity": ["diverged"], "value": [1.0]})
        extra = pd.concat([extra, end], ignore_index=True)
    rows = pd.concat([found, extra], ignore_index=True)
    rows["step"] += 1
    return rows.sort_values(["step", "quantity"], ignore_index=True)


def epoch_losses(record: Record, epoch: int) -> pd.DataFrame:
    """Training loss of every epoch of a run.

    Args:
        record: The run.
        epoch: Steps in an epoch.

    Returns:
        Columns step (steps done), quantity (train_loss), value (mean over the epoch, nats).
    """
    loss = record.series("loss")
    loss = loss.groupby(loss.index // epoch).mean()
    steps = (loss.index.to_numpy() + 1) * epoch
    return pd.DataFrame({"step": steps, "quantity": "train_loss", "value": loss.to_numpy()})


def labelled(rows: pd.DataFrame, config: TrainConfig, more: Mapping[str, str | float]) -> pd.DataFrame:
    """Put a run's labels before its rows.

    Args:
        rows: Its numbers.
        config: The run.
        more: Labels besides the usual ones.

    Returns:
        Columns run, dataset, train (images; 0 for text), lr, wd, seed, those of `more`, then those of `rows`.
    """
    out = rows.copy()
    labels = {
        "run": config.directory,
        "dataset": config.data.source.rpartition(":")[2],
        "train": getattr(config.data, "train", 0),
        "lr": float(config.optimizer.lr),
        "wd": float(config.optimizer.weight_decay),
        "seed": config.seed,
    }
    for position, (name, value) in enumerate((labels | dict(more)).items()):
        out.insert(position, name, value)
    return out


def merged(old: Table | None, new: Mapping[str, tuple[Record, pd.DataFrame]]) -> Table:
    """Add runs to a table.

    Args:
        old: The table so far.
        new: By run directory (as the figure names it): the record and its labelled rows.

    Returns:
        Both; a run in both is taken from `new`.
    """
    environments = [dict(item) for item in old.environments] if old else []
    runs = dict(old.runs) if old else {}
    rows = [old.rows[~old.rows["run"].isin(list(new))]] if old is not None and len(old.rows) else []
    for name, (record, part) in new.items():
        description = record.description
        where = stable(description["environment"])
        if where not in environments:
            environments.append(where)
        runs[name] = {
            "data_hash": description["data_hash"],
            "status": record.status,
            "environment": environments.index(where),
        }
        rows.append(part)
    return Table(pd.concat(rows, ignore_index=True) if rows else pd.DataFrame({"run": []}), runs, environments)


def stable(environment: Mapping[str, Any]) -> dict[str, Any]:
    """What of an environment matters for numbers.

    Args:
        environment: As from `empirics.environment.environment`.

    Returns:
        The same without time and command line.
    """
    return {key: value for key, value in environment.items() if key not in TRANSIENT}


def write_table(table: Table, path: Path) -> None:
    """Write a table, whole or not at all.

    Args:
        table: The numbers and their origin.
        path: The Parquet file.
    """
    origin = {"runs": table.runs, "environments": list(table.environments), "inputs": table.inputs}
    arrow = pa.Table.from_pandas(table.rows, preserve_index=False)
    arrow = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), KEY: json.dumps(origin).encode()})
    buffer = io.BytesIO()
    pq.write_table(arrow, buffer, compression="zstd")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, buffer.getvalue())


def read_table(path: Path) -> Table | None:
    """Read what `write_table` wrote.

    Args:
        path: The Parquet file.

    Returns:
        The table; None if there is no file.

    Raises:
        InputError: If it is not such a table.
    """
    if not path.exists():
        return None
    try:
        arrow = pq.read_table(path)
        origin = json.loads(arrow.schema.metadata[KEY])
        return Table(arrow.to_pandas(), origin["runs"], origin["environments"], origin["inputs"])
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        reason = type(error).__name__
        raise InputError(f"{path} is damaged: it is not a figure's table ({reason}); remove it to run again.") from None
