"""decaylab figure: make the paper's figures, from committed results or by running what is missing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from decaylab.output import print_json, print_lines, print_table

if TYPE_CHECKING:
    from paper.figures.build import Outcome


@dataclass(frozen=True)
class Figure:
    """Make a figure of the paper: run what is missing, draw it, check its claims.

    Where the committed table is complete nothing is run: drawing and checking take seconds. Exit code 0 if all checks
    hold, 1 if one fails or runs are missing, 2 on misuse. If it is stopped or killed, the same command continues it.
    """

    figure: Annotated[str, tyro.conf.Positional]
    """Name of the figure, all, or list (state, cost and last verdict of each)."""
    scale: Literal["cpu", "gpu", "paper"] = "cpu"
    """cpu: two cores, minutes to hours; gpu: one card; paper: the original's set-up."""
    jobs: int | None = None
    """Runs at a time; the number of CPU cores by default (1 at the other scales)."""
    runs: Path = Path("runs")
    """Folder of run directories."""
    results: Path | None = None
    """Folder of results; the committed ones by default."""
    data: str | None = None
    """CIFAR-10 as parquet:DIR (train*.parquet, test*.parquet); runs that need it are left out without it."""
    train: bool = True
    """Run what is missing; with --no-train draw what is there."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        """Do it.

        Returns:
            Exit code: 0 all checks hold, 1 one fails or a run is missing.

        Raises:
            InputError: If an argument is not allowed.
        """
        from paper.figures import NAMES, load
        from paper.figures.build import RESULTS, build
        from paper.figures.verdicts import overview, write_checks

        results = self.results or RESULTS
        if self.figure == "list":
            table = overview(scale=self.scale, results=results)
            if self.json:
                print_json({"scale": self.scale, "figures": table})
            else:
                print_table(
                    table.drop(columns="statement"), title=f"Figures at scale {self.scale} (--json adds their claims)"
                )
            return 0
        specs = [load(name) for name in (NAMES if self.figure == "all" else (self.figure,))]
        if self.figure == "all":
            specs = [each for each in specs if self.scale in each.scales]
        jobs = self.jobs or ((os.cpu_count() or 1) if self.scale == "cpu" else 1)
        outcomes = []
        for each in specs:
            outcome = build(
                each,
                scale=self.scale,
                runs=self.runs,
                results=results,
                data=self.data,
                jobs=jobs,
                train=self.train,
                say=lambda line: None if self.json else print_lines([line]),
            )
            write_checks([outcome], scale=self.scale, results=results)
            outcomes.append(outcome)
            if not self.json:
                show(outcome)
        if self.json:
            print_json(
                {
                    "scale": self.scale,
                    "figures": {
                        outcome.spec.name: {
                            "verdict": outcome.verdict,
                            "checks": [claim.row() for claim in outcome.claims],
                            "missing": [config.directory for config in outcome.missing],
                            "files": [str(path) for path in outcome.files],
                        }
                        for outcome in outcomes
                    },
                }
            )
        return 0 if all(outcome.verdict == "pass" for outcome in outcomes) else 1


def show(outcome: Outcome) -> None:
    """Print a figure's verdict, its checks and its files.

    Args:
        outcome: The figure.
    """
    import pandas as pd

    rows = [
        {
            "claim": claim.claim,
            "measured": claim.measured,
            "interval": f"[{claim.low:.3g}, {claim.high:.3g}]",
            "bound": f"{claim.sign} {claim.bound:g}",
            "seeds": claim.seeds,
            "verdict": claim.verdict,
        }
        for claim in outcome.claims
    ]
    if rows:
        print_table(pd.DataFrame(rows), title=f"{outcome.spec.name}: {outcome.verdict}")
    if outcome.missing:
        print_lines([f"{outcome.spec.name}: {len(outcome.missing)} runs are missing."])
    print_lines((str(path) for path in outcome.files), bullet="  ")
