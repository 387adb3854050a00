"""Tokenise a stream of documents once, in parallel, into shards on disk; killed, it goes on behind the last shard."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from rich.console import Console

from empirics.data import hub
from empirics.data.index import INDEX, Index, Shard, Tokens, check_files, read_index
from empirics.data.meter import Meter
from empirics.data.sources import documents
from empirics.data.tokenizer import GPT2_VOCABULARY, encoding
from empirics.files import one_sentence_if_full, sync_folder, write_atomic
from empirics.interrupt import Interrupted, interruptible
from empirics.lock import Lock
from theory.errors import InputError, require, whole

SHARD_TOKENS = 100_000_000
TASK = 2**18
"""Characters that a worker gets at a time: some 50 ms of work."""
Split = Literal["train", "val"]
Encoded = list[tuple[bool, Tokens]]


def heldout_default(source: str) -> int:
    """One document in so many is held out unless told otherwise: nanoGPT's 1 in 2,000 for the hub's corpora.

    Args:
        source: As in `prepare`.

    Returns:
        2,000 for the hub's data sets, 20 elsewhere.
    """
    return 2_000 if source in hub.TEXTS else 20


def prepare(
    source: str,
    folder: Path,
    *,
    vocab_size: int = GPT2_VOCABULARY,
    heldout_every: int | None = None,
    shard_tokens: int = SHARD_TOKENS,
    tokens: int | None = None,
    workers: int | None = None,
    streaming: bool = True,
    console: Console | None = None,
) -> Index:
    """Tokenise a corpus into headerless uint16 shards with an index, for `TextData(source="bin:DIR")` or nanoGPT.

    The shards depend on the documents only, not on the number of workers or on interruptions. Memory does not grow with
    the corpus: shards are written as they come.

    Args:
        source: As in `empirics.data.sources.documents`.
        folder: Where to; one that was begun with the same settings is continued.
        vocab_size: As in `TextData`.
        heldout_every: One document in so many, by the hash of its text, is held out; see `heldout_default`.
        shard_tokens: Tokens in a train shard, rounded up to whole documents.
        tokens: Stop when train has so many; None: all documents. A larger number later continues.
        workers: Threads that tokenise; as many as there are processors if omitted.
        streaming: For the hub: read over the network as needed; otherwise from the cache of `datasets`.
        console: Where progress is shown; standard error if omitted.

    Returns:
        The index.

    Raises:
        InputError: If the source cannot be read or is empty, nothing is held out, or the folder holds something else.
        DiskFullError: If the disk is full; finished shards stay, and the same call continues.
        Interrupted: After Ctrl-C or SIGTERM; exit code 130.
    """
    wanted = whole("tokens", tokens, low=1) if tokens is not None else None
    every = heldout_default(source) if heldout_every is None else heldout_every
    threads = whole("workers", _processors() if workers is None else workers, low=1)
    encoder = encoding(vocab_size)
    stream = documents(source, streaming=streaming)
    asked = Index(
        source=source,
        fingerprint=stream.fingerprint,
        encoding=encoder.name,
        vocab_size=vocab_size,
        heldout_every=whole("heldout_every", every, low=2),
        shard_tokens=whole("shard_tokens", shard_tokens, low=1),
    )
    folder.mkdir(parents=True, exist_ok=True)
    lock = Lock(folder)
    try:
        index = _begin(folder, asked)
        if index.complete and (index.limit is None or (wanted is not None and index.tokens("train") >= wanted)):
            return index
        with (
            one_sentence_if_full(folder),
            interruptible() as stop,
            Meter(folder, index, stream.total(), console=console) as meter,
            closing(_Writer(folder, index)) as writer,
            closing(_encoded(stream.begin(index.consumed), vocab_size, index.heldout_every, threads)) as encoded,
        ):
            for task in encoded:
                for heldout, ids in task:
                    writer.add("val" if heldout else "train", ids)
                    done = writer.tokens("train")
                    reached = wanted is not None and writer.index.tokens("train") + done >= wanted
                    if done >= index.shard_tokens or reached:
                        meter.shard(writer.commit(complete=reached, limit=wanted))
                    if reached:
                        return writer.index
                meter.update(writer.index.consumed + writer.documents, writer.all_tokens)
                if stop.made:
                    kept = f"{writer.index.consumed} documents in {len(writer.index.shards)} shards"
                    raise Interrupted(f"{folder} keeps {kept}: the same command continues it.")
            meter.shard(writer.commit(complete=True, limit=None))
            return writer.index
    finally:
        lock.release()


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _begin(folder: Path, asked: Index) -> Index:
    """The index to continue, written if it is new; leftovers of a killed run are removed."""
    there = read_index(folder)
    if there is None:
        others = [file.name for file in folder.glob("*.bin")]
        if others:
            raise InputError(f"{folder} holds {others[0]} but no {INDEX}: choose another folder for --out.")
    elif there.shards:
        for field in ("fingerprint", "encoding", "heldout_every", "shard_tokens"):
            old, new = getattr(there, field), getattr(asked, field)
            if old != new:
                known = "the documents of source" if field == "fingerprint" else field
                was = f"other ones than {there.source!r} had" if field == "fingerprint" else f"{new}, not {old}"
                raise InputError(
                    f"{folder} was begun with other settings, {known} are {was}: give it the old ones, choose another "
                    "folder for --out, or remove it."
                )
        check_files(folder, there)
    for leftover in folder.glob(".*.bin.tmp"):
        leftover.unlink()
    if there is not None and there.shards:
        return there
    write_atomic(folder / INDEX, asked.to_json())
    return asked


def _encoded(texts: Iterator[str], vocab_size: int, every: int, workers: int) -> Generator[Encoded, None, None]:
    """Tokens of every document and whether it is held out, in order, a task at a time; few tasks are ever in memory."""
    encoder = encoding(vocab_size)
    end = np.array([encoder.eot_token], dtype=np.uint16)

    def work(task: list[str]) -> Encoded:
        found = []
        for text in task:
            heldout = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % every == 0
            ids = encoder.encode_to_numpy(text, disallowed_special=()).astype("<u2")
            found.append((heldout, np.append(ids, end) if len(ids) else ids))
        return found

    waiting: deque[Future[Encoded]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="tokenise")  # tiktoken releases the interpreter's lock
    try:
        for task in _tasks(texts):
            waiting.append(pool.submit(work, task))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _tasks(texts: Iterable[str]) -> Iterator[list[str]]:
    task, size = [], 0
    for text in texts:
        task.append(text)
        size += len(text) + 1  # empty texts count, too, so that no task grows for ever
        if size >= TASK:
            yield task
            task, size = [], 0
    if task:
        yield task


class _Writer:
    """The train and the val shard that are being written, under temporary names until both are whole."""

    def __init__(self, folder: Path, index: Index) -> None:
        self.folder, self.index = folder, index
        self.documents = 0
        self._open: dict[str, _Part] = {}

    def add(self, split: Split, ids: Tokens) -> None:
        """Append a document."""
        self.documents += 1
        if len(ids) == 0:
            return
        if split not in self._open:
            number = len(self.index.of(split))
            self._open[split] = _Part(self.folder, split, f"{split}-{number:05d}.bin")
        self._open[split].add(ids)

    def tokens(self, split: str) -> int:
        """Tokens not yet in a finished shard."""
        return self._open[split].tokens if split in self._open else 0

    @property
    def all_tokens(self) -> int:
        """Tokens so far, finished shards and this one."""
        return sum(shard.tokens for shard in self.index.shards) + self.tokens("train") + self.tokens("val")

    def commit(self, *, complete: bool, limit: int | None) -> Index:
        """Finish both shards and list them in the index, which is written last: it never lists what is not there."""
        parts = [self._open[split] for split in ("train", "val") if split in self._open]
        shards = (*self.index.shards, *(part.shard for part in parts))
        consumed = self.index.consumed + self.documents
        index = replace(self.index, shards=shards, consumed=consumed, complete=complete, limit=limit)
        if complete:
            _check_halves(index)
        for part in parts:
            part.finish()
        sync_folder(self.folder)
        write_atomic(self.folder / INDEX, index.to_json())
        self.index, self.documents, self._open = index, 0, {}
        return index

    def close(self) -> None:
        """Drop what is not finished."""
        for part in self._open.values():
            part.drop()


class _Part:
    """One shard that is being written."""

    def __init__(self, folder: Path, split: Split, name: str) -> None:
        self.path = folder / name
        self.split: Split = split
        self._temporary = folder / f".{name}.tmp"
        self._file = self._temporary.open("wb")
        self._digest = hashlib.sha256()
        self.tokens = self.largest = self.documents = 0

    def add(self, ids: Tokens) -> None:
        self._file.write(ids.data)
        self._digest.update(ids.data)
        self.tokens += len(ids)
        self.documents += 1
        self.largest = max(self.largest, int(ids.max()))

    @property
    def shard(self) -> Shard:
        digest = self._digest.hexdigest()
        return Shard(self.path.name, self.split, self.tokens, self.largest, self.documents, digest)

    def finish(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self.path)

    def drop(self) -> None:
        with suppress(OSError):  # a disk that filled up is still full
            self._file.close()
        self._temporary.unlink(missing_ok=True)


def _check_halves(index: Index) -> None:
    if not index.shards:
        raise InputError(f"source = {index.source!r} holds no text in {index.consumed} documents.")
    halves: tuple[tuple[str, str], ...] = (("val", "smaller"), ("train", "larger"))
    for split, advice in halves:
        allowed = f"{advice}, as none of the {index.consumed} documents fell to {split}"
        require(index.tokens(split) > 0, "heldout_every", index.heldout_every, allowed)
