"""decaylab compare: what a run was predicted to do, and what it did."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from decaylab.output import print_json, print_table
from theory.errors import InputError


@dataclass(frozen=True)
class Compare:
    """Compare run directories with the predictions stored in them, tensor by tensor, over the whole run."""

    run_directories: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run directories, runs/<name>-<hash8>."""
    start: int = 0
    """First step that counts."""
    stop: int | None = None
    """Step after the last that counts; the end of the run by default."""
    quantity: tuple[str, ...] = ("norm", "angle")
    """Quantities to show: norm, angle, relative_update."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        """Compare and print.

        Returns:
            Exit code 0.

        Raises:
            InputError: If a directory is no run directory or holds no prediction.
        """
        from bridge.compare import COMPARED, compare
        from empirics.records import Record

        if not self.run_directories:
            raise InputError("RUN is missing: give at least one run directory.")
        for name in self.quantity:
            if name not in COMPARED:
                raise InputError(f"quantity = {name!r} is not allowed: it must be one of {', '.join(COMPARED)}.")
        results = []
        for path in self.run_directories:
            record = Record(path)
            _ = record.description  # a sentence if this is no run directory
            comparison = compare(record, quantities=self.quantity)
            when = (
                "written before step 0" if comparison.preregistered else "NOT written before step 0, or changed since"
            )
            table = comparison.table(self.start, self.stop)
            if self.json:
                results.append({"run": str(path), "preregistered": comparison.preregistered, "table": table})
            else:
                title = f"{record.name} ({record.status}); prediction {when}; residual = predicted/measured - 1"
                print_table(table, title=title, number=".3g")
        if self.json:
            print_json(results)
        return 0
