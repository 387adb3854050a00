"""Token windows for language models: one pass, or drawn with replacement, in a seeded order that any step can enter."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from empirics.data import hub
from empirics.data.cache import cached, default_cache, prepared
from empirics.data.corpus import folder, python_sources
from empirics.data.index import Shards, Tokens, open_folder, parts, read_index
from empirics.data.ranks import share
from empirics.data.shards import prepare
from empirics.data.sources import documents
from empirics.data.tokenizer import GPT2_VOCABULARY, tokenise
from empirics.lock import LockedError
from theory.errors import InputError, require, whole
from theory.serialize import serializable

FOLDERS = ("text", "parquet", "bin")
DRAWS = 5  # stream of random numbers
PATIENCE = 1.0  # seconds


@serializable
@dataclass(frozen=True)
class TextData:
    """Which text, in which tokens and in which order."""

    source: str = "python"
    """python (the interpreter's own sources), text:DIR (*.txt, *.py, *.jsonl, *.jsonl.xz), parquet:DIR (column text;
    becomes shards in the cache), bin:DIR (shards that `decaylab data` wrote, or nanoGPT's train.bin and val.bin), or
    openwebtext, wikitext or fineweb-edu, prepared by `decaylab data` in the cache."""
    packages: bool = False
    """Add the sources of the installed packages to source python."""
    vocab_size: int = 1024
    """Number of token ids: 256 bytes, GPT-2's first merges, end of text; 50257 is GPT-2's own."""
    block_size: int = 64
    """Tokens a window feeds to the model."""
    heldout_every: int = 20
    """One document in so many is held out for validation."""
    val_windows: int = 512
    """Held-out windows that a validation reads, spread evenly over the held-out documents."""
    order_seed: int = 0
    """Seed of the order in which windows are visited."""
    replacement: bool = False
    """Draw windows as nanoGPT does instead of visiting each once: at any token, for as many steps as wanted. Windows of
    one step begin at different tokens, on however many processes, but may overlap; those of other steps may be the same
    again."""

    def __post_init__(self) -> None:
        kind, _, path = self.source.partition(":")
        known = self.source == "python" or self.source in hub.TEXTS or (kind in FOLDERS and path != "")
        folders = ", ".join(f"'{folder}:DIR'" for folder in FOLDERS)
        require(known, "source", self.source, f"'python', {folders}, {', '.join(map(repr, hub.TEXTS))}")
        require(isinstance(self.replacement, bool), "replacement", self.replacement, "true or false")
        require(not self.packages or kind == "python", "packages", self.packages, "false unless source is 'python'")
        smallest, largest = (1, 2**16) if kind == "bin" else (257, GPT2_VOCABULARY)
        lows = {"vocab_size": smallest, "block_size": 1, "heldout_every": 2, "val_windows": 1, "order_seed": 0}
        for field, low in lows.items():
            object.__setattr__(self, field, whole(field, getattr(self, field), low=low))
        require(self.vocab_size <= largest, "vocab_size", self.vocab_size, f"at most {largest}")

    def open(self, cache: Path | None = None) -> Text:
        """Read or tokenise the corpus.

        Args:
            cache: Folder for tokens; $DECAYLAB_CACHE or ~/.cache/decaylab if omitted.

        Returns:
            The tokens, ready for `batch`.

        Raises:
            InputError: If the source cannot be read, is too small to split, or was not prepared.
        """
        kind, _, path = self.source.partition(":")
        if kind == "bin":
            return Text(self, *open_folder(Path(path), self.vocab_size))
        if kind in hub.TEXTS:
            return Text(self, *open_folder(self._prepared(cache), self.vocab_size))
        if kind == "parquet":
            return Text(self, *open_folder(self._tokenised(cache), self.vocab_size))
        texts = python_sources(packages=self.packages) if kind == "python" else folder(Path(path))
        if len(texts) < self.heldout_every:
            raise InputError(
                f"source = {self.source!r} holds {len(texts)} documents, but heldout_every = {self.heldout_every} "
                "needs at least as many: lower it, or split the text into more files."
            )
        key = hashlib.sha256(f"{self.vocab_size} {self.heldout_every}".encode())
        for text in texts:
            key.update(hashlib.sha256(text.encode()).digest())
        file = (cache or default_cache()) / f"tokens-{key.hexdigest()[:16]}.bin"
        return Text(self, *_unpack(cached(file, lambda: self._tokenise(texts))))

    def _prepared(self, cache: Path | None) -> Path:
        there = prepared(self.source, self.vocab_size, cache)
        if not there.is_dir():
            raise InputError(
                f"source = {self.source!r} with {self.vocab_size} token ids is not prepared, there is no {there}: run "
                f"`decaylab data {self.source} --vocab-size {self.vocab_size}` once, or give bin:DIR."
            )
        return there

    def _tokenised(self, cache: Path | None) -> Path:
        """The folder of shards of these documents, by their files' names and sizes; made, or continued, if need be."""
        found = documents(self.source)
        key = hashlib.sha256(f"{found.fingerprint} {self.vocab_size} {self.heldout_every}".encode()).hexdigest()
        there = (cache or default_cache()) / f"shards-{key[:16]}"
        while (index := read_index(there)) is None or not index.complete:
            try:
                prepare(self.source, there, vocab_size=self.vocab_size, heldout_every=self.heldout_every)
            except LockedError:  # another run or rank is at it
                time.sleep(PATIENCE)
        return there

    def _tokenise(self, texts: list[str]) -> bytes:
        every = self.heldout_every
        heldout = texts[every - 1 :: every]
        train = [text for index, text in enumerate(texts) if index % every != every - 1]
        parts = [tokenise(part, self.vocab_size) for part in (train, heldout)]
        return np.uint64(len(parts[0])).tobytes() + b"".join(part.tobytes() for part in parts)


class Text:
    """An opened corpus; `train` and `heldout` are token streams (uint16), or shards of them."""

    def __init__(self, config: TextData, train: Tokens | Shards, heldout: Tokens | Shards) -> None:
        self.config, self.train, self.heldout = config, train, heldout
        self.window = config.block_size + 1  # inputs and, shifted by one, targets
        for name, tokens in (("training", train), ("held-out", heldout)):
            if self._windows(tokens) == 0:
                raise InputError(
                    f"source = {config.source!r} has {len(tokens)} {name} tokens, "
                    f"fewer than one window of block_size + 1 = {self.window}."
                )

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the training and held-out tokens (of shards: of their hashes, without reading), hexadecimal."""
        if isinstance(self.train, Shards) or isinstance(self.heldout, Shards):
            hashes = (x.hash if isinstance(x, Shards) else "" for x in (self.train, self.heldout))
            return hashlib.sha256(" ".join(hashes).encode()).hexdigest()
        digest = hashlib.sha256(np.uint64(len(self.train)).tobytes())
        digest.update(self.train.data)
        digest.update(self.heldout.data)
        return digest.hexdigest()

    def tokens_per_step(self, batch_size: int) -> int:
        """Tokens that the model is trained on in one step.

        Args:
            batch_size: Windows a step.

        Returns:
            batch_size * block_size.
        """
        return batch_size * self.config.block_size

    def check(self, steps: int, batch_size: int) -> None:
        """Make sure that a run fits into one pass; with replacement, that a batch fits into the corpus.

        Args:
            steps: Length of the run.
            batch_size: Windows a step.

        Raises:
            InputError: If it does not; says how many tokens are missing.
        """
        wanted, there = whole("steps", steps) * whole("batch_size", batch_size, low=1), self._windows(self.train)
        if self.config.replacement:
            starts = self._windows(self.train, stride=1)
            require(batch_size <= starts, "batch_size", batch_size, f"at most {starts}, where a window can begin")
        elif wanted > there:
            raise InputError(
                f"steps * batch_size = {wanted} is not allowed: one pass over {self.config.source!r} has {there} "
                f"windows of {self.window} tokens, so {(wanted - there) * self.window} tokens are missing (data."
                "replacement=true would draw windows that may come again)."
            )

    def batch(self, step: int, batch_size: int) -> tuple[Tensor, Tensor]:
        """The windows of one step, a pure function of configuration and step.

        Args:
            step: Step index, from 0.
            batch_size: Windows a step.

        Returns:
            Inputs and targets (the inputs shifted by one token), int64, shape (batch_size, block_size) each.

        Raises:
            InputError: If the pass is over before this step, or a token id is beyond the vocabulary.
        """
        return self.part(step, batch_size, rank=0, world=1)

    def part(self, step: int, batch_size: int, *, rank: int, world: int) -> tuple[Tensor, Tensor]:
        """The windows of one step that one of many processes trains on.

        No two processes see the same tokens in one pass. With replacement no two see the same window in one step; they
        may see the same tokens.

        Args:
            step: Step index, from 0.
            batch_size: Windows a step, of all processes together.
            rank: This process, from 0.
            world: Number of processes; divides batch_size. See `empirics.data.ranks.share`.

        Returns:
            As from `batch`, shape (batch_size / world, block_size): ranks in order give the whole batch.

        Raises:
            InputError: As `batch`, or if the batch cannot be divided.
        """
        self.check(step + 1, batch_size)
        mine = share(batch_size, rank=rank, world=world)
        if self.config.replacement:  # a function of seed and step alone: nothing to keep for a resumed run
            rng = np.random.default_rng((self.config.order_seed, step, DRAWS))
            starts = rng.choice(self._windows(self.train, stride=1), batch_size, replace=False)  # within one step
            return self._pairs(self.train, starts[mine], stride=1)
        return self._pairs(self.train, self._order[step * batch_size :][:batch_size][mine])

    def validation(self, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The held-out windows, always the same, spread evenly over the held-out documents.

        Args:
            batch_size: Windows a batch; the last batch may be smaller.

        Yields:
            Inputs and targets, as from `batch`.
        """
        there = self._windows(self.heldout)
        count = min(self.config.val_windows, there)
        chosen = np.arange(count) * there // count
        for start in range(0, count, whole("batch_size", batch_size, low=1)):
            yield self._pairs(self.heldout, chosen[start : start + batch_size])

    def fresh(self, visited: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Training windows that a run has not visited: the same distribution as those it was trained on, but unseen.

        Args:
            visited: Windows visited so far, steps * batch_size.
            batch_size: Windows a batch; the last batch may be smaller.

        Yields:
            Inputs and targets of the next `val_windows` windows (fewer at the end of the corpus; none with replacement,
            where no window is sure to be unseen), as from `batch`.
        """
        if self.config.replacement:
            return
        chosen = self._order[visited : visited + self.config.val_windows]
        for start in range(0, len(chosen), whole("batch_size", batch_size, low=1)):
            yield self._pairs(self.train, chosen[start : start + batch_size])

    @cached_property
    def _order(self) -> NDArray[np.int64]:
        return np.random.default_rng(self.config.order_seed).permutation(self._windows(self.train))

    def _windows(self, tokens: Tokens | Shards, *, stride: int = 0) -> int:
        return sum(self._counts(tokens, stride or self.window))

    def _counts(self, tokens: Tokens | Shards, stride: int) -> list[int]:
        """Windows in each part, one every `stride` tokens; none reaches from one part into the next."""
        return [max(len(part) - self.window, -stride) // stride + 1 for part in parts(tokens)]

    def _pairs(self, tokens: Tokens | Shards, windows: NDArray[np.int64], *, stride: int = 0) -> tuple[Tensor, Tensor]:
        chosen = np.empty((len(windows), self.window), dtype=np.int64)
        arrays, stride = parts(tokens), stride or self.window
        ends = np.cumsum([0, *self._counts(tokens, stride)])
        owner = ends[1:].searchsorted(windows, side="right")
        for number in np.unique(owner):
            here = owner == number
            table = np.lib.stride_tricks.sliding_window_view(arrays[number], self.window)
            chosen[here] = table[(windows[here] - ends[number]) * stride]
        largest, size = int(chosen.max(initial=0)), self.config.vocab_size
        require(largest < size, "vocab_size", size, f"at least {largest + 1}, as the batch has the token {largest}")
        rows = torch.from_numpy(chosen)
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def _unpack(payload: bytes) -> tuple[Tokens, Tokens]:
    split = int(np.frombuffer(payload, np.uint64, count=1)[0])
    tokens = np.frombuffer(payload, np.uint16, offset=8)
    return tokens[:split], tokens[split:]
