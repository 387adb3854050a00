"""Many runs as one table: how their configurations differ, and what became of each."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from empirics.directory import leaves
from empirics.records import Record
from theory.errors import InputError
from theory.serialize import to_dict

OVER = ("finished", "diverged")
LEFT_OUT = ("name", "probes.", "keep_every")
SUMMARY = "summary.json"
"""What `table` needs of a run that is over, so that no metrics are read for it a second time."""


def summarise(record: Record) -> dict[str, Any]:
    """Where a run that is over ended; kept in summary.json, as long as its metrics.parquet has the size it had then.

    Args:
        record: The run.

    Returns:
        metrics_bytes; step, the number of steps recorded; final, the last value of each global quantity, by name;
        norms, the last norm of each tensor. None stands for nan and inf.
    """
    size = (record.path / "metrics.parquet").stat().st_size
    file = record.path / SUMMARY
    with contextlib.suppress(OSError, ValueError):
        kept = json.loads(file.read_text())
        if kept["metrics_bytes"] == size:
            return kept
    made = {"metrics_bytes": size, **_ends(record.path / "metrics.parquet")}
    with contextlib.suppress(OSError):  # a folder that may only be read
        temporary = file.with_name(f".{SUMMARY}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(made, indent=1))  # not synced: it can be made again
        temporary.replace(file)
    return made


def table(records: Sequence[Record], configs: Sequence[Any] | None = None, *, tensors: bool = False) -> pd.DataFrame:
    """One row a run.

    Args:
        records: The runs, new ones too.
        configs: Their configurations; read from the directories if omitted.
        tensors: Also the last norm of every tensor, in columns norm:<tensor>.

    Returns:
        Columns: run; the fields in which the configurations differ, by their dotted names (probes and what does not
        change the training left out); status (new, partial, finished, diverged, failed); step, steps recorded; the last
        value of every global quantity (loss, val_loss ..., of a partial run its loss alone); norm, the root of the sum
        of all tensors' squared norms; error, why it failed; directory.
    """
    given = [None] * len(records) if configs is None else configs
    trees = [_fields(record, config) for record, config in zip(records, given, strict=True)]
    names = dict.fromkeys(name for tree in trees for name in tree)
    varied = [name for name in names if len({repr(tree.get(name)) for tree in trees if tree}) > 1]
    rows = [
        {"run": record.name, **{name: tree.get(name) for name in varied}, **_state(record, tensors=tensors)}
        for record, tree in zip(records, trees, strict=True)
    ]
    ends = ["error", "directory"]
    frame = pd.DataFrame(rows, columns=None if rows else pd.Index(["run", "status", "step", *ends]))
    return frame[[*(name for name in frame.columns if name not in ends), *ends]]


def _state(record: Record, *, tensors: bool) -> dict[str, Any]:
    status, error = record.status, record.error
    row: dict[str, Any] = {"status": "failed" if error is not None and status not in OVER else status, "step": 0}
    row |= {"error": error, "directory": str(record.path)}
    if (record.path / "metrics.parquet").exists():
        found = summarise(record)
        norms = {name: _number(norm) for name, norm in found["norms"].items()}
        row |= {"step": found["step"], **{name: _number(x) for name, x in found["final"].items()}}
        row["norm"] = math.hypot(*norms.values()) if norms else math.nan
        row |= {f"norm:{name}": norm for name, norm in norms.items()} if tensors else {}
    elif (progress := record.progress()) is not None:
        row |= {"step": progress[0], "loss": progress[1]}
    return row


def _fields(record: Record, config: Any) -> dict[str, Any]:
    """Fields that decide a training, by dotted names; none of a run that did not begin and whose are not given."""
    if config is not None:
        tree = to_dict(config)
    elif record.status == "new":
        return {}
    else:
        tree = record.description["config"]
        with contextlib.suppress(InputError, TypeError):  # of a watched loop, say: no configuration of ours
            tree = to_dict(record.config)  # with the fields that came later
    flat = {name: x for name, x in leaves(tree).items() if not name.startswith(LEFT_OUT)}
    plain = {name: tuple(x) if isinstance(x, list) else x for name, x in flat.items() if not name.endswith("kind")}
    return {n.removesuffix(".kind"): x for n, x in flat.items() if n.endswith(".kind")} | plain


def _ends(file: Path) -> dict[str, Any]:
    """See `summarise`; several times as fast as by a data frame, for folders of a thousand runs."""
    import pyarrow.parquet as pq

    names = ["step", "tensor", "quantity", "value"]
    read = pq.read_table(file, columns=names, read_dictionary=["tensor", "quantity"]).unify_dictionaries()
    read = read.combine_chunks()
    if not len(read):
        return {"step": 0, "final": {}, "norms": {}}
    step, value = (read[name].to_numpy() for name in ("step", "value"))
    tensor, quantity = (read[name].chunk(0) for name in ("tensor", "quantity"))
    tensors, quantities = tensor.dictionary.to_pylist(), quantity.dictionary.to_pylist()
    which, what = tensor.indices.to_numpy(), quantity.indices.to_numpy()
    whole = which == (tensors.index("") if "" in tensors else -1)
    norm = what == (quantities.index("norm") if "norm" in quantities else -1)

    def last(names: list[str], keys: Any, rows: Any) -> dict[str, float | None]:
        found = dict(zip(keys[rows].tolist(), value[rows].tolist(), strict=True))  # of equal keys the last stays
        return {names[key]: _finite(x) for key, x in found.items()}

    return {"step": int(step.max()) + 1, "final": last(quantities, what, whole), "norms": last(tensors, which, norm)}


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _number(value: float | None) -> float:
    return math.nan if value is None else value
