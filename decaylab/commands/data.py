"""decaylab data: tokenise a corpus once, for every later run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from decaylab.output import print_json, print_lines


@dataclass(frozen=True)
class Data:
    """Tokenise a corpus once, in parallel, into uint16 shards (nanoGPT's format) with an index. A killed one continues.

    Runs read them by --set data.source=bin:DIR, or by the corpus's name where --out is left out.
    """

    source: Annotated[str, tyro.conf.Positional]
    """openwebtext, wikitext, fineweb-edu (through the package datasets), parquet:DIR (column text), text:DIR (*.txt,
    *.py, *.jsonl, *.jsonl.xz; memory: one file) or python (the interpreter's own sources)."""
    out: Path | None = None
    """Folder for the shards; for the named corpora the cache by default."""
    vocab_size: int = 50257
    """Number of token ids: 50257 is GPT-2's vocabulary, less its first merges."""
    heldout_every: int | None = None
    """One document in so many, by the hash of its text, is held out; by default 2000 for named corpora, else 20."""
    shard_tokens: int = 100_000_000
    """Tokens in a shard; what was tokenised after the last whole shard is lost when the command is stopped."""
    tokens: int | None = None
    """Stop when there are so many training tokens; all documents by default. A larger number continues."""
    workers: int | None = None
    """Threads that tokenise; as many as processors by default."""
    streaming: bool = True
    """Read a named corpus over the network as needed; with --no-streaming from the cache of datasets."""
    verify: bool = False
    """Read the finished shards again and compare their hashes."""
    json: bool = False
    """Print JSON."""

    def run(self) -> int:
        """Tokenise.

        Returns:
            Exit code 0.

        Raises:
            InputError: If the source cannot be read or is empty, or the folder holds something else.
        """
        from empirics.data.cache import prepared
        from empirics.data.hub import TEXTS
        from empirics.data.index import check_files
        from empirics.data.shards import prepare
        from theory.errors import InputError

        if self.out is None and self.source not in TEXTS:
            raise InputError(f"--out must be given: only {', '.join(TEXTS)} have a place in the cache.")
        folder = self.out or prepared(self.source, self.vocab_size)
        index = prepare(
            self.source,
            folder,
            vocab_size=self.vocab_size,
            heldout_every=self.heldout_every,
            shard_tokens=self.shard_tokens,
            tokens=self.tokens,
            workers=self.workers,
            streaming=self.streaming,
        )
        if self.verify:
            check_files(folder, index, contents=True)
        train, val, used = index.tokens("train"), index.tokens("val"), f"bin:{folder}"
        if self.json:
            counts = {"documents": index.consumed, "train_tokens": train, "val_tokens": val}
            print_json(
                {"folder": str(folder), **counts, "shards": len(index.shards), "hash": index.hash, "source": used}
            )
        else:
            print_lines(
                [
                    f"{folder}: {train} training and {val} held-out tokens of {index.consumed} documents in "
                    f"{len(index.shards)} shards, hash {index.hash[:8]}",
                    f"train on them: --set data.source={used} data.vocab_size={self.vocab_size}",
                ]
            )
        return 0
