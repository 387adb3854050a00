"""When probes measure, and what that costs: a schedule, and a bill in measured seconds."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim import Optimizer

from theory.errors import require, whole


@dataclass(frozen=True)
class Schedule:
    """The steps at which a probe measures: the union of every n steps, log-spaced ones and the last.

    Raises:
        InputError: If a field is not a whole number, or none is given.

    Example:
        >>> schedule = Schedule(every=40, per_decade=3, last=99)
        >>> [step for step in range(100) if schedule.due(step)]
        [0, 1, 2, 5, 10, 22, 40, 46, 80, 99]
    """

    every: int = 0
    """Steps 0, every, 2*every, ...; 0: none of them."""
    per_decade: int = 0
    """Step 0 and the steps nearest to powers of 10^(1/per_decade); 0: none of them."""
    last: int | None = None
    """A step to measure besides: the run's last."""

    def __post_init__(self) -> None:
        for name, low in (("every", 0), ("per_decade", 0), ("last", 0)):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, whole(name, getattr(self, name), low=low))
        given = bool(self.every or self.per_decade or self.last is not None)
        require(given, "schedule", self, "one with every, per_decade or last")

    @staticmethod
    def of(every: int | Schedule) -> Schedule:
        """A schedule as it is, or every so many steps.

        Args:
            every: Either.

        Returns:
            The schedule.

        Raises:
            InputError: If it is a number below 1.
        """
        return every if isinstance(every, Schedule) else Schedule(every=whole("every", every, low=1))

    def due(self, step: int) -> bool:
        """Whether to measure at a step.

        Args:
            step: Number of the step, from 0.

        Returns:
            True at the steps of the schedule.
        """
        return (self.every > 0 and step % self.every == 0) or step == self.last or self._log_spaced(step)

    def _log_spaced(self, step: int) -> bool:
        if not self.per_decade or step == 0:
            return self.per_decade > 0
        below = math.floor(self.per_decade * math.log10(step))
        return any(round(10 ** (power / self.per_decade)) == step for power in (below, below + 1))


@dataclass(frozen=True)
class Item:
    """What one probe cost."""

    probe: str
    """Its name."""
    calls: int
    """How often it did something: hooks and flushes."""
    seconds: float
    """Measured time in it."""
    share: float
    """Of all the time since the bill was opened."""


@dataclass(frozen=True)
class Cost:
    """What the probes cost so far; prints as a table."""

    items: tuple[Item, ...]
    """One a probe."""
    seconds: float
    """Time since the bill was opened."""

    def __str__(self) -> str:
        lines = [f"{'probe':16} {'calls':>8} {'seconds':>10} {'share':>8}"]
        lines += [f"{x.probe:16} {x.calls:8} {x.seconds:10.3f} {x.share:8.2%}" for x in self.items]
        return "\n".join([*lines, f"{'training':16} {'':8} {self.seconds:10.3f} {1:8.0%}"])


@dataclass
class _Account:
    """Seconds known, and pairs of CUDA events whose time is not known yet."""

    calls: int = 0
    seconds: float = 0.0
    events: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = field(default_factory=deque)

    def settle(self) -> None:
        """Add the events that the device has passed; waits for none."""
        while self.events and self.events[0][1].query():
            begin, end = self.events.popleft()
            self.seconds += begin.elapsed_time(end) / 1e3


class Bill:
    """Measured seconds of every probe, as a share of the whole run.

    On a GPU the time is the device's, between two events in its stream, so that nothing waits for it; reading the cost
    does. Reads clocks and nothing else: training is bitwise as without it.

    Args:
        device: Where the model is; cuda is timed by events, all else by the host's clock.

    Example:
        >>> bill = Bill()
        >>> with bill.charge("sum"):
        ...     _ = sum(range(1000))
        >>> [(item.probe, item.calls, item.seconds > 0) for item in bill.cost().items]
        [('sum', 1, True)]
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._cuda = torch.device(device).type == "cuda"
        self._accounts: dict[str, _Account] = {}
        self._busy, self._opened = False, time.perf_counter()

    @contextmanager
    def charge(self, probe: str) -> Iterator[None]:
        """Charge the time inside the block to a probe; a block inside another costs nothing more.

        Args:
            probe: Its name.
        """
        began = self._begin()
        try:
            yield
        finally:
            self._end(probe, began)

    @contextmanager
    def bracket(self, probe: str, optimizer: Optimizer) -> Iterator[None]:
        """Charge to a probe every optimizer hook that is registered inside the block, whenever it runs.

        Args:
            probe: Its name.
            optimizer: The optimizer on which the block registers the probe.

        Example:
            >>> from empirics.probes.rotation import Rotation
            >>> model, bill = torch.nn.Linear(2, 2), Bill()
            >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            >>> with bill.bracket("rotation", optimizer):
            ...     rotation = Rotation(model, optimizer, every=1)
            >>> optimizer.step()
            >>> bill.cost().items[0].calls  # before and after the step
            2
        """
        began: list[Any] = []
        first = lambda *_: began.append(self._begin())
        last = lambda *_: self._end(probe, began.pop())
        optimizer.register_step_pre_hook(first)
        optimizer.register_step_post_hook(first)
        yield
        optimizer.register_step_pre_hook(last)
        optimizer.register_step_post_hook(last)

    def cost(self) -> Cost:
        """The bill so far; waits for the device.

        Returns:
            Calls, seconds and share of every probe, in the order in which they first did something.
        """
        if self._cuda:
            torch.cuda.synchronize()
        elapsed = time.perf_counter() - self._opened
        for account in self._accounts.values():
            account.settle()
        items = (Item(name, x.calls, x.seconds, x.seconds / elapsed) for name, x in self._accounts.items())
        return Cost(tuple(items), elapsed)

    def _begin(self) -> Any:
        """A mark in time; None inside another block."""
        if self._busy:
            return None
        self._busy = True
        return _event() if self._cuda else time.perf_counter()

    def _end(self, probe: str, began: Any) -> None:
        if began is None:
            return
        self._busy = False
        account = self._accounts.setdefault(probe, _Account())
        account.calls += 1
        if self._cuda:
            account.events.append((began, _event()))
            account.settle()
        else:
            account.seconds += time.perf_counter() - began


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event
