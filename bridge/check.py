"""A claim, the number that decides it, and the bound that was fixed before the run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import pandas as pd


@dataclass(frozen=True)
class Check:
    """One verdict."""

    law: str
    """The law or finding that is tested."""
    claim: str
    """What should hold, in a sentence."""
    measured: float
    """The number that decides."""
    bound: float
    """What it is compared with; fixed in code before the run."""
    relation: Literal["<=", ">="] = "<="
    """How `measured` must stand to `bound`."""
    seeds: int = 1
    """How many seeds it comes from."""
    stderr: float = 0.0
    """Standard error of `measured`; a claim fails only if it is violated by more than two of them."""
    note: str = ""
    """What a sceptic should know: the worst tensor, the reason of a failure."""

    @property
    def passed(self) -> bool:
        """Whether the claim held; a number that is not finite never passes."""
        if not abs(self.measured) < float("inf"):
            return False
        slack = 2 * self.stderr
        below, above = self.measured - slack <= self.bound, self.measured + slack >= self.bound
        return below if self.relation == "<=" else above


def checks_table(checks: Iterable[Check]) -> pd.DataFrame:
    """Checks as a table.

    Args:
        checks: The checks.

    Returns:
        Columns law, claim, measured, stderr (nan if none), bound, verdict (pass or fail), seeds, note.
    """
    rows = [
        {
            "law": check.law,
            "claim": check.claim,
            "measured": check.measured,
            "stderr": check.stderr or float("nan"),
            "bound": f"{check.relation} {check.bound:g}",
            "verdict": "pass" if check.passed else "fail",
            "seeds": check.seeds,
            "note": check.note,
        }
        for check in checks
    ]
    return pd.DataFrame(rows, columns=["law", "claim", "measured", "stderr", "bound", "verdict", "seeds", "note"])
