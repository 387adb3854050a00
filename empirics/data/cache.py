"""Content-addressed files: written atomically, verified on every read, rebuilt if damaged."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable
from pathlib import Path

from empirics.files import write_file

DIGEST_BYTES = 32


def default_cache() -> Path:
    """Where caches live unless told otherwise: $DECAYLAB_CACHE, or ~/.cache/decaylab.

    Returns:
        The folder; it need not exist.
    """
    return Path(os.environ.get("DECAYLAB_CACHE") or Path.home() / ".cache" / "decaylab")


def prepared(name: str, vocab_size: int, cache: Path | None = None) -> Path:
    """Where `decaylab data` puts one of the hub's corpora unless told otherwise, and `TextData` looks for it.

    Args:
        name: Such as openwebtext.
        vocab_size: Number of token ids.
        cache: The cache; $DECAYLAB_CACHE or ~/.cache/decaylab if omitted.

    Returns:
        The folder.
    """
    return (cache or default_cache()) / f"{name}-{vocab_size}"


def cached(path: Path, build: Callable[[], bytes]) -> bytes:
    """Read a payload from `path`, or build it and write it there.

    The file is SHA-256(payload) followed by the payload. A file that cannot be written costs time, not the
    result: it is a warning.

    Args:
        path: The cache file; its name identifies the payload's inputs.
        build: Computes the payload.

    Returns:
        The payload.
    """
    try:
        content = memoryview(path.read_bytes())
    except OSError:
        content = memoryview(b"")
    digest, payload = bytes(content[:DIGEST_BYTES]), content[DIGEST_BYTES:]
    if digest and hashlib.sha256(payload).digest() == digest:
        return bytes(payload)
    built = build()
    try:
        write_atomically(path, hashlib.sha256(built).digest() + built)
    except OSError as error:
        warnings.warn(f"The cache {path} could not be written ({error}); it will be rebuilt next time.", stacklevel=2)
    return built


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that is either complete or absent: temporary name, fsync, rename.

    Args:
        path: Where to write; missing folders are made.
        content: What to write.

    Raises:
        OSError: If the disk is full or the folder not writable; a previous file stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")  # several runs of a sweep may tokenise at once
    try:
        write_file(temporary, content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
