"""What opening a sweep of many finished runs costs: from a folder of run directories to one table."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.common import SMALL, write
from empirics.records import Record
from empirics.sweep import Sweep
from empirics.tabulate import SUMMARY
from empirics.train import train
from theory.serialize import to_dict

CONFIG = replace(SMALL, steps=200, rotation_every=10, data=replace(SMALL.data, val_windows=16))


def main(*, runs: int = 1_000, repeats: int = 5, out: Path) -> None:
    """Copy one finished run of a small GPT-2 many times, and time `Sweep.open(folder).table()`.

    Once as sweeps leave their runs, with a summary.json in each, and once with none, as `decaylab train` leaves them:
    then the first table reads all metrics. Files are in the system's cache. Importing is not counted.
    """
    load = [round(value, 2) for value in os.getloadavg()]
    with tempfile.TemporaryDirectory() as folder:
        record = train(CONFIG, Path(folder) / "one")
        (record.path / SUMMARY).unlink(missing_ok=True)
        root = Path(folder) / "many"
        for number in range(runs):
            name = root / f"{CONFIG.name}-{number:08d}"
            shutil.copytree(record.path, name, ignore=shutil.ignore_patterns("checkpoints"))
        first, first_cpu, _ = timed(root)
        seconds, cpu, rows = zip(*(timed(root) for _ in range(repeats)), strict=True)
        numbers = len(Record(record.path).metrics())
    results = {
        "seconds": round(float(np.median(seconds)), 2),
        "cpu_seconds": round(float(np.median(cpu)), 2),
        "seconds_first_without_summaries": round(first, 2),
        "cpu_seconds_first_without_summaries": round(first_cpu, 2),
        "rows": rows[0],
        "numbers_a_run": numbers,
    }
    settings = {"config": to_dict(CONFIG), "runs": runs, "repeats": repeats, "load_average": load}
    write(out, "sweep_table", settings=settings, results=results)


def timed(root: Path) -> tuple[float, float, int]:
    """Seconds to open a folder and make its table, by the clock and of this process; and the table's rows."""
    began, spent = time.perf_counter(), time.process_time()
    table = Sweep.open(root).table()
    return time.perf_counter() - began, time.process_time() - spent, len(table)
