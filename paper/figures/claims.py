"""A claim with its seeds: one number a seed, their mean and interval, and a bound fixed before the runs."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.stats import t as student

from bridge.check import Check
from theory.errors import require

SEEDS = 3
"""Fewest seeds with which a claim can pass."""
LEVEL = 0.95
"""Coverage of the intervals."""


@dataclass(frozen=True, kw_only=True)
class Claim(Check):
    """A `Check` from several seeds.

    It passes if their mean meets the bound and, where a null is named, the whole interval lies on the right side of it.
    There is no slack: the error bar is the interval, and it is shown.
    """

    low: float
    """Lower end of the 95 % interval of the mean over seeds (Student's t); of the seeds' range where said so."""
    high: float
    """Upper end."""
    null: float | None = None
    """What would be measured if the effect did not exist; None if the bound itself says it."""
    values: tuple[float, ...] = ()
    """The number of each seed."""

    @property
    def passed(self) -> bool:
        """Whether the claim held; with fewer than three seeds, or a number that is not finite, it never does."""
        if self.seeds < SEEDS or not all(map(math.isfinite, (self.measured, *self.values))):
            return False
        if self.relation == "<=":
            return self.measured <= self.bound and (self.null is None or self.high < self.null)
        return self.measured >= self.bound and (self.null is None or self.low > self.null)

    @property
    def verdict(self) -> str:
        """One of pass, fail and undecided (too few seeds)."""
        return "pass" if self.passed else "fail" if self.seeds >= SEEDS else "undecided"

    @property
    def sign(self) -> str:
        """The relation as it is printed."""
        return {"<=": "≤", ">=": "≥"}[self.relation]

    def row(self) -> dict[str, Any]:
        """The claim as JSON values.

        Returns:
            All fields, and the verdict.
        """
        names = ("law", "claim", "measured", "low", "high", "relation", "bound", "null", "seeds", "note")
        return {name: getattr(self, name) for name in names} | {"values": list(self.values), "verdict": self.verdict}

    def sentence(self, *, digits: int = 3) -> str:
        """The claim with its number, for captions.

        Args:
            digits: Significant digits.

        Returns:
            claim: measured [low, high], bound relation, verdict.
        """
        numbers = [f"{number:.{digits}g}" for number in (self.measured, self.low, self.high, self.bound)]
        verdict = {"pass": "holds", "fail": "FAILS", "undecided": "undecided for lack of seeds"}[self.verdict]
        text = f"{self.claim}: {numbers[0]} [{numbers[1]}, {numbers[2]}], bound {self.sign} {numbers[3]}, {verdict}"
        return f"{text} ({self.note})" if self.note else text


def interval(values: Iterable[float]) -> tuple[float, float, float]:
    """Mean over seeds with its interval.

    Args:
        values: One number a seed.

    Returns:
        Mean and the ends of its 95 % interval (Student's t); nan where there are too few values.

    Example:
        >>> [round(x, 2) for x in interval([1.0, 2.0, 3.0])]
        [2.0, -0.48, 4.48]
    """
    sample = np.array(list(values), dtype=np.float64)
    if len(sample) < 2:
        return (float(sample[0]) if len(sample) else math.nan), math.nan, math.nan
    mean, error = float(sample.mean()), float(sample.std(ddof=1)) / math.sqrt(len(sample))
    reach = float(student.ppf(0.5 + LEVEL / 2, len(sample) - 1)) * error
    return mean, mean - reach, mean + reach


def claim(
    law: str,
    sentence: str,
    values: Iterable[float],
    bound: float,
    relation: Literal["<=", ">="],
    *,
    null: float | None = None,
    note: str = "",
) -> Claim:
    """A claim about the mean over seeds.

    Args:
        law: The law or finding that is tested.
        sentence: What should hold.
        values: One number a seed.
        bound: What the mean is compared with.
        relation: How it must stand to the bound.
        null: What would be measured without the effect; the interval must exclude it.
        note: What a sceptic should know.

    Returns:
        The claim.

    Raises:
        InputError: If the relation is unknown.

    Example:
        >>> claim("over-training", "gain", [0.1, 0.12, 0.11], 0.08, ">=", null=0.0).passed
        True
        >>> claim("over-training", "gain of one seed", [0.1], 0.08, ">=").passed
        False
    """
    require(relation in ("<=", ">="), "relation", relation, "'<=' or '>='")
    numbers = tuple(float(value) for value in values)
    mean, low, high = interval(numbers)
    return Claim(
        law=law,
        claim=sentence,
        measured=mean,
        bound=bound,
        relation=relation,
        seeds=len(numbers),
        note=note,
        low=low,
        high=high,
        null=null,
        values=numbers,
    )
