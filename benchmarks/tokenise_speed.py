"""How fast shards are written: text to shards on disk on one core, over tiktoken's own batch encoding of that text."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from io import StringIO
from itertools import count
from pathlib import Path

import numpy as np
from rich.console import Console

from benchmarks.common import interleave, ratio, write
from empirics.data.corpus import python_sources
from empirics.data.shards import prepare
from empirics.data.tokenizer import encoding

CHARACTERS = 4_000_000


def main(*, rounds: int = 7, out: Path) -> None:
    """Time both on the same files, in turn, by the clock and by processor time; reading, hashing and writing count.

    tiktoken's `encode_ordinary_batch` gets one thread and its texts in memory, and stops at lists of tokens.
    """
    texts, size = [], 0
    for text in python_sources():
        texts.append(text)
        size += len(text)
        if size >= CHARACTERS:
            break
    cpu: dict[str, list[float]] = {"ours": [], "tiktoken": []}
    with tempfile.TemporaryDirectory() as folder:
        for number, text in enumerate(texts):
            Path(folder, f"{number:05d}.txt").write_text(text)
        shards, encoder = map(Path(folder).joinpath, (f"out-{number}" for number in count())), encoding()

        def ours() -> None:
            prepare(f"text:{folder}", next(shards), workers=1, console=Console(file=StringIO()))

        def theirs() -> None:
            encoder.encode_ordinary_batch(texts, num_threads=1)

        arms = {"ours": timed(ours, cpu["ours"]), "tiktoken": timed(theirs, cpu["tiktoken"])}
        seconds = interleave(arms, rounds=rounds)
    tokens = sum(map(len, encoder.encode_ordinary_batch(texts, num_threads=1)))
    spent = {name: np.array(values[1:]) for name, values in cpu.items()}  # without interleave's untimed round
    results = {
        "tokens_per_second_ours": round(tokens / float(np.median(seconds["ours"]))),
        "tokens_per_second_tiktoken": round(tokens / float(np.median(seconds["tiktoken"]))),
        "rate_over_tiktoken": ratio(seconds["tiktoken"], seconds["ours"]),
        "rate_over_tiktoken_by_processor_time": ratio(spent["tiktoken"], spent["ours"]),
    }
    settings = {"documents": len(texts), "characters": size, "tokens": tokens, "rounds": rounds, "workers": 1}
    write(out, "tokenise_speed", settings=settings, results=results)


def timed(work: Callable[[], None], spent: list[float]) -> Callable[[], None]:
    """Work that also notes the processor time of all its threads."""

    def run() -> None:
        before = time.process_time()
        work()
        spent.append(time.process_time() - before)

    return run
