"""A folder of token shards and its index: what is in it, and whether it still is. Opening reads no tokens."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from theory.errors import InputError, require

Tokens = NDArray[np.uint16]

INDEX = "index.json"
FORMAT = "decaylab-shards-1"
FOREIGN = {20240520: "llm.c's", 20240801: "llm.c's"}
"""First four bytes, as a number, of token files that have a header and so are not nanoGPT's."""
LOOKED_AT = 1_000_000
"""Tokens of a file without an index that are looked at before training; the others when their batch comes."""


@dataclass(frozen=True)
class Shard:
    """A headerless file of little-endian uint16 token ids, as nanoGPT's train.bin."""

    file: str
    """Its name in the folder, train-00000.bin or val-00000.bin."""
    split: Literal["train", "val"]
    """What it is for."""
    tokens: int
    """How many."""
    largest: int
    """Largest token id."""
    documents: int
    """Documents in it, each followed by end-of-text."""
    sha256: str
    """Of the file."""


@dataclass(frozen=True)
class Index:
    """What a folder of shards was made of, and how far."""

    source: str
    """Where the documents came from."""
    fingerprint: str
    """See `empirics.data.sources.Documents`."""
    encoding: str
    """Name of the encoding."""
    vocab_size: int
    """Number of token ids."""
    heldout_every: int
    """One document in so many, by the hash of its text, is in val."""
    shard_tokens: int
    """A train shard ends with the document that brings it to so many tokens."""
    consumed: int = 0
    """Documents of the source that are in the shards."""
    complete: bool = False
    """Whether all that was asked for is there."""
    limit: int | None = None
    """Train tokens at which it was to end; None: all documents are in, or will be."""
    shards: tuple[Shard, ...] = ()
    """The shards, in order."""

    def of(self, split: str) -> list[Shard]:
        """Shards of a split.

        Args:
            split: train or val.

        Returns:
            Them, in order.
        """
        return [shard for shard in self.shards if shard.split == split]

    def tokens(self, split: str) -> int:
        """Tokens of a split.

        Args:
            split: train or val.

        Returns:
            Their number.
        """
        return sum(shard.tokens for shard in self.of(split))

    @property
    def hash(self) -> str:
        """SHA-256 over the shards' own, hexadecimal: equal for equal tokens in equal shards."""
        return hashlib.sha256(" ".join(f"{shard.file} {shard.sha256}" for shard in self.shards).encode()).hexdigest()

    def to_json(self) -> str:
        """Write it as JSON.

        Returns:
            The text of index.json.
        """
        sums = {"hash": self.hash, "train_tokens": self.tokens("train"), "val_tokens": self.tokens("val")}
        return json.dumps({"format": FORMAT, **sums, **asdict(self)}, indent=1) + "\n"


@dataclass(frozen=True)
class Shards:
    """Opened shards of one split: memory maps, read only where a batch needs them."""

    parts: tuple[Tokens, ...]
    """The tokens of each."""
    hash: str
    """SHA-256 over the shards' own."""

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)


def parts(tokens: Tokens | Shards) -> tuple[Tokens, ...]:
    """The arrays that a stream of tokens consists of.

    Args:
        tokens: One array, or shards.

    Returns:
        Arrays.
    """
    return tokens.parts if isinstance(tokens, Shards) else (tokens,)


def read_index(folder: Path) -> Index | None:
    """Read a folder's index.

    Args:
        folder: The folder.

    Returns:
        The index; None if there is none.

    Raises:
        InputError: If it is damaged.
    """
    path = folder / INDEX
    try:
        tree: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        form = tree.pop("format")
        require(form == FORMAT, "format", form, f"{FORMAT} in {path}")
        shards = tuple(Shard(**shard) for shard in tree.pop("shards"))
        stated = tree.pop("hash")
        del tree["train_tokens"], tree["val_tokens"]
        index = Index(shards=shards, **tree)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} cannot be read as an index of token shards ({error}): prepare it anew.") from None
    if stated != index.hash:
        raise InputError(f"{path} was changed by hand: its hash is not that of its shards; prepare the folder anew.")
    return index


def check_files(folder: Path, index: Index, *, contents: bool = False) -> None:
    """Make sure that every shard is there in its full length.

    Args:
        folder: The folder.
        index: Its index.
        contents: Also read all shards and compare their hashes.

    Raises:
        InputError: If a shard is missing, truncated or altered.
    """
    for shard in index.shards:
        path, wanted = folder / shard.file, 2 * shard.tokens
        again = "remove the folder and run `decaylab data` again"
        if not path.is_file():
            raise InputError(f"{path} is missing, though {INDEX} lists it: {again}.")
        size = path.stat().st_size
        if size != wanted:
            raise InputError(f"{path} has {size} bytes instead of the {wanted} of its {shard.tokens} tokens: {again}.")
        if contents:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != shard.sha256:
                raise InputError(f"{path} is damaged, its SHA-256 is not that in {INDEX}: {again}.")


def open_folder(folder: Path, vocab_size: int) -> tuple[Tokens | Shards, Tokens | Shards]:
    """Map the tokens of a folder: our shards if it has an index, otherwise nanoGPT's train.bin and val.bin.

    Args:
        folder: The folder.
        vocab_size: Number of token ids that the model has.

    Returns:
        Training and held-out tokens.

    Raises:
        InputError: If a file is missing, truncated or no file of tokens, or an id is beyond the vocabulary.
    """
    index = read_index(folder)
    if index is None:
        return map_bin(folder / "train.bin", vocab_size), map_bin(folder / "val.bin", vocab_size)
    if not index.complete:
        raise InputError(f"{folder} is not finished: the `decaylab data` command that began it continues it.")
    check_files(folder, index)
    for shard in index.shards:
        _check_ids(folder / shard.file, shard.largest, vocab_size)
    return _open_split(folder, index, "train"), _open_split(folder, index, "val")


def map_bin(file: Path, vocab_size: int) -> Tokens:
    """Map a headerless file of uint16 tokens; only its first tokens are looked at.

    Args:
        file: The file.
        vocab_size: Number of token ids that the model has.

    Returns:
        The tokens, a memory map.

    Raises:
        InputError: If it cannot be read, is empty or truncated, has a header, or an id is beyond the vocabulary.
    """
    try:
        size = file.stat().st_size
        tokens = np.memmap(file, dtype="<u2", mode="r", shape=(size // 2,)) if size >= 2 else np.empty(0, "<u2")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{file} cannot be read as nanoGPT's uint16 tokens: {reason}.") from None
    if size % 2:
        raise InputError(f"{file} is truncated or no file of uint16 tokens: its {size} bytes are an odd number.")
    if size == 0:
        raise InputError(f"{file} is empty: tokenise the corpus again.")
    first = int.from_bytes(tokens[:2].tobytes(), "little")
    if first in FOREIGN:
        raise InputError(
            f"{file} begins with the header of {FOREIGN[first]} shards; nanoGPT's have none: cut off its 1,024 bytes."
        )
    _check_ids(file, int(tokens[:LOOKED_AT].max()), vocab_size)
    return tokens


def _open_split(folder: Path, index: Index, split: str) -> Shards:
    shards = index.of(split)
    parts = tuple(np.memmap(folder / shard.file, dtype="<u2", mode="r") for shard in shards)
    return Shards(parts, hashlib.sha256(" ".join(shard.sha256 for shard in shards).encode()).hexdigest())


def _check_ids(file: Path, largest: int, vocab_size: int) -> None:
    require(
        largest < vocab_size, "vocab_size", vocab_size, f"at least {largest + 1}, as {file} has the token {largest}"
    )
