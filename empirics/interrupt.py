"""Ctrl-C and SIGTERM as a request: the run stops at the next step boundary, saves, and says how to resume."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(SystemExit):
    """The run was stopped by the user or the system and has saved its state; exit code 130."""

    def __init__(self, message: str) -> None:
        super().__init__(130)
        self.message = message

    def __str__(self) -> str:
        return self.message


class Request:
    """Whether somebody asked to stop."""

    made = False


@contextmanager
def interruptible() -> Iterator[Request]:
    """Collect the first SIGINT or SIGTERM; a second one acts as usual.

    Outside the main thread signals cannot be caught: there the request is never made.

    Yields:
        The request, to be looked at between steps.
    """
    request = Request()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, frame: FrameType | None) -> None:
        request.made = True
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
