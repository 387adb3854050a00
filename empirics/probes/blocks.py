"""Means of a stream with standard errors that know about its memory, in bounded space."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BLOCKS = 32
"""Most blocks kept; between half as many and all of them carry the standard error."""


class BlockMeans:
    """Mean and standard error of each column of a stream of rows, from means over blocks of equal length.

    When there are `BLOCKS` blocks, neighbours are merged and blocks become twice as long: once they are longer than
    the stream's memory, the spread of their means is honest (Flyvbjerg and Petersen, J. Chem. Phys. 91, 461, 1989).

    Args:
        columns: Length of a row.
        device: Where rows are.

    Example:
        >>> means = BlockMeans(1)
        >>> for value in (1.0, 2.0, 3.0):
        ...     means.add(torch.tensor([value], dtype=torch.float64), torch.ones(1, dtype=torch.float64))
        >>> means.mean().item(), round(means.stderr().item(), 4)
        (2.0, 0.5774)
    """

    def __init__(self, columns: int, device: torch.device | str = "cpu") -> None:
        self.sums = torch.zeros(2, BLOCKS, columns, dtype=torch.float64, device=device)
        self.length, self.rows = 1, 0

    def add(self, values: Tensor, weights: Tensor) -> None:
        """Take one row.

        Args:
            values: Its values, float64, 0 where there is none.
            weights: 1 where there is one, else 0.
        """
        if self.rows == BLOCKS * self.length:
            self.sums[:, : BLOCKS // 2] = self.sums.unflatten(1, (BLOCKS // 2, 2)).sum(2)
            self.sums[:, BLOCKS // 2 :] = 0
            self.length *= 2
        block = self.rows // self.length
        self.sums[0, block] += values
        self.sums[1, block] += weights
        self.rows += 1

    def mean(self) -> Tensor:
        """Of every column; nan where there was no value."""
        totals, counts = self.sums.sum(1)
        return totals / counts

    def stderr(self) -> Tensor:
        """Of every mean, by the ratio estimator over blocks; nan for fewer than two blocks with values."""
        totals, counts = self.sums
        blocks = (counts > 0).sum(0)
        deviations = totals - self.mean() * counts
        spread = deviations.square().sum(0) * blocks / (blocks - 1)
        return torch.where(blocks > 1, spread.sqrt() / counts.sum(0), torch.nan)

    def state_dict(self) -> dict[str, Tensor | int]:
        """Everything it holds, not copied."""
        return {"sums": self.sums, "length": self.length, "rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict` of as many columns."""
        self.sums.copy_(state["sums"])
        self.length, self.rows = state["length"], state["rows"]
