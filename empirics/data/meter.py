"""How far tokenising is: a bar on a terminal, a line per shard elsewhere."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from empirics.data.index import Index


class Meter:
    """A context manager that shows documents, tokens and tokens per second.

    Args:
        folder: What is being prepared.
        index: What is there already.
        total: Documents of the source, if known.
        console: Where to; standard error if omitted.
    """

    def __init__(self, folder: Path, index: Index, total: int | None, *, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._folder, self._began = folder, time.monotonic()
        self._there = sum(shard.tokens for shard in index.shards)
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("documents, {task.fields[tokens]:.1f}M tokens, {task.fields[rate]:.2f}M/s"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        hidden = not self._console.is_terminal
        self._bar = Progress(TextColumn("Tokenising"), *columns, console=self._console, disable=hidden)
        self._task = self._bar.add_task("", total=total, completed=index.consumed, tokens=self._there / 1e6, rate=0.0)

    def __enter__(self) -> Meter:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def update(self, documents: int, tokens: int) -> None:
        """Show that tokenising has come so far.

        Args:
            documents: Documents done.
            tokens: Tokens done.
        """
        self._bar.update(self._task, completed=documents, tokens=tokens / 1e6, rate=self._rate(tokens) / 1e6)

    def shard(self, index: Index) -> None:
        """Say that a shard is finished; only where there is no bar.

        Args:
            index: The new index.
        """
        tokens = sum(shard.tokens for shard in index.shards)
        if not self._console.is_terminal:
            shards, done = len(index.shards), f"{index.consumed} documents, {tokens} tokens"
            line = f"{self._folder}: {shards} shards, {done}, {self._rate(tokens) / 1e6:.2f}M tokens/s"
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _rate(self, tokens: int) -> float:
        return (tokens - self._there) / max(time.monotonic() - self._began, 1e-9)
