"""Progress of one or many runs: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

PLAIN_EVERY = 10.0  # seconds between two plain lines about the same run


class Display:
    """A context manager that shows how far runs are.

    Args:
        console: Where to; standard error if omitted.

    Example:
        >>> with Display(console=Console(force_terminal=False, file=__import__("sys").stdout)) as display:
        ...     display.update("digits", 50, 310, 1.37)
        ...     display.close("digits", "finished")
        digits: 50/310 steps, loss 1.370
        digits: finished
    """

    def __init__(self, *, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._tasks: dict[str, TaskID] = {}
        self._printed: dict[str, float] = {}
        self._bars: Progress | None = None
        if self._console.is_terminal:
            columns = (
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TimeRemainingColumn(),
            )
            self._bars = Progress(TextColumn("{task.description}"), *columns, console=self._console)

    def __enter__(self) -> Display:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def update(self, name: str, done: int, steps: int, loss: float | None = None, *, unit: str = "steps") -> None:
        """Show that a run has come so far.

        Args:
            name: The run.
            done: Steps done.
            steps: Steps in all.
            loss: Latest loss, in nats; None where there is none.
            unit: What is counted, or what is going on where there is no loss.
        """
        text = unit if loss is None else f"loss {loss:.3f}"
        if self._bars is not None:
            self._show(name, done, steps, text)
        elif time.monotonic() - self._printed.get(name, -PLAIN_EVERY) >= PLAIN_EVERY:
            self._printed[name] = time.monotonic()
            self._print(f"{name}: {done}/{steps} {unit}" + ("" if loss is None else f", {text}"))

    def close(self, name: str, text: str) -> None:
        """Say how a run ended; its bar goes.

        Args:
            name: The run.
            text: What became of it.
        """
        if self._bars is not None and name in self._tasks:
            self._bars.remove_task(self._tasks.pop(name))
        self._print(f"{name}: {text}")

    def overall(self, done: int, runs: int, failed: int) -> None:
        """Show how far a sweep is, in a bar of its own; without a terminal its runs' own lines do.

        Args:
            done: Runs that are over.
            runs: Runs in all.
            failed: Runs among them that failed or diverged.
        """
        if self._bars is not None:
            self._show("all runs", done, runs, f"{failed} failed or diverged" if failed else "")

    def follow(self, name: str) -> Callable[[int, int, float], None]:
        """A `progress` argument for `train`.

        Args:
            name: The run.

        Returns:
            A function that updates the display.
        """
        return lambda done, steps, loss: self.update(name, done, steps, loss)

    def _show(self, name: str, done: int, total: int, note: str) -> None:
        if self._bars is not None:
            if name not in self._tasks:
                self._tasks[name] = self._bars.add_task(name, total=total, completed=done, note=note)
            self._bars.update(self._tasks[name], completed=done, note=note)

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)
