"""What an optimizer's groups were told, step by step, kept as the changes only; nothing waits for the device."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from bridge.watch_recipe import Memory, Rates

Row = tuple[tuple[Any, Any, Any], ...]  # of each group: lr, weight_decay, betas or momentum


class RateLog:
    """Rates of every group at every step, and the steps that a gradient scaler skipped inside the optimizer.

    Calls of `optimizer.step` are numbered from 0; steps are the calls that were not skipped.

    Example:
        >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
        >>> log = RateLog()
        >>> for lr in (1.0, 1.0, 0.5):
        ...     optimizer.param_groups[0]["lr"] = lr
        ...     log.read(optimizer)
        ...     log.done(optimizer)
        >>> log.steps, log.of(0).lr.tolist()
        (3, [1.0, 1.0, 0.5])
    """

    def __init__(self) -> None:
        self.calls = 0
        self._rows: list[tuple[int, Row]] = []
        self._fetched = 0  # rows before this one hold plain numbers
        self._found_inf: list[tuple[int, Tensor]] = []
        self._skipped: list[int] = []

    def read(self, optimizer: Optimizer) -> None:
        """Note what the groups say, before a step."""
        row = tuple(
            (_kept(group["lr"]), group.get("weight_decay", 0.0), group.get("betas", group.get("momentum")))
            for group in optimizer.param_groups
        )
        on_device = any(isinstance(lr, Tensor) for lr, *_ in row)
        if on_device or not self._rows or self._rows[-1][1] != row:
            self._rows.append((self.calls, row))

    def done(self, optimizer: Optimizer) -> None:
        """Count a call; a fused optimizer under a gradient scaler may have skipped it, which only the device knows."""
        found_inf = getattr(optimizer, "found_inf", None)
        if isinstance(found_inf, Tensor):
            self._found_inf.append((self.calls, found_inf.detach().clone()))
        self.calls += 1

    def fetch(self) -> None:
        """Turn what is still on the device into plain numbers: waits for it."""
        self._rows[self._fetched :] = [(call, _plain(row)) for call, row in self._rows[self._fetched :]]
        self._fetched = len(self._rows)
        pending, self._found_inf = self._found_inf, []
        if pending:
            flags = torch.stack([flag.reshape(()) for _, flag in pending]).tolist()
            self._skipped += [call for (call, _), flag in zip(pending, flags, strict=True) if flag]

    @property
    def steps(self) -> int:
        """Steps made, as far as is known without waiting."""
        return self.calls - len(self._skipped)

    def step_of(self, call: int) -> int | None:
        """Number of the step that a call made; None if it was skipped. Fetch first."""
        before = bisect_left(self._skipped, call)
        return None if self._skipped[before : before + 1] == [call] else call - before

    def step_near(self, call: int) -> int:
        """Number of the step that a call made, or of the one before it."""
        return max(call - bisect_right(self._skipped, call), 0)

    def of(self, group: int) -> Rates:
        """Rates of a group at the steps that were made; nan before the group was added.

        Args:
            group: Its number in the optimizer.

        Returns:
            Arrays over steps.
        """
        self.fetch()
        calls = np.delete(np.arange(self.calls), self._skipped)
        values = [row[group] if group < len(row) else (np.nan, np.nan, None) for _, row in self._rows]
        index = np.searchsorted([call for call, _ in self._rows], calls, side="right") - 1
        lr, decay = (np.array([value[i] for value in values], dtype=np.float64)[index] for i in (0, 1))
        memory = [value[2] for value in values]
        return Rates(lr, decay, [memory[i] for i in index.tolist()])


def _kept(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _plain(row: Row) -> Row:
    return tuple((float(lr), float(decay), _memory(memory)) for lr, decay, memory in row)


def _memory(value: Any) -> Memory:
    if isinstance(value, (tuple, list)):
        return tuple(float(each) for each in value)
    return None if value is None else float(value)
