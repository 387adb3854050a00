"""decaylab report: one run as one HTML file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from decaylab.output import print_json, print_lines


@dataclass(frozen=True)
class Report:
    """Write a run's report: what weight decay did in it, predicted and measured, and what other settings would do.

    One self-contained HTML file: works offline, on a phone, and by keyboard. Needs the `report` extra.
    """

    run_directory: Annotated[Path, tyro.conf.Positional]
    """Run directory, runs/<name>-<hash8>."""
    out: Path | None = None
    """The HTML file; report.html in the run directory by default."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        """Write it and print its path.

        Returns:
            Exit code 0.

        Raises:
            InputError: If it is no run directory, holds no recipe, or a library is missing.
        """
        from bridge.report_run import run_report

        path = run_report(self.run_directory, self.out)
        if self.json:
            print_json({"report": str(path), "bytes": path.stat().st_size})
        else:
            print_lines([str(path)])
        return 0
