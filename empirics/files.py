"""Files that are either whole or absent: temporary name, fsync, rename."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class DiskFullError(OSError):
    """The disk is full; what was there before is intact."""


@contextmanager
def one_sentence_if_full(path: Path) -> Iterator[None]:
    """Turn the system's "no space left" into a sentence that names the path.

    Args:
        path: What is being written.

    Raises:
        DiskFullError: If the disk (or the quota) is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        message = (
            f"The disk is full: {path} could not be written; what was saved before is intact, free space and resume."
        )
        raise DiskFullError(error.errno, message) from None


def write_file(path: Path, data: bytes) -> None:
    """Write and fsync a file under its own name, for files inside a folder that is itself renamed into place.

    Args:
        path: File to create.
        data: Its contents.
    """
    with open(path, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_atomic(path: Path, data: bytes | str) -> None:
    """Replace a file in one go: a reader, or a crash at any moment, sees the old or the new contents.

    Args:
        path: File to create or replace.
        data: Its contents; text is written as UTF-8.

    Raises:
        DiskFullError: If the disk is full; the old file stays.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    with one_sentence_if_full(path):
        try:
            write_file(temporary, data.encode() if isinstance(data, str) else data)
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder survive a power failure.

    Args:
        folder: The folder.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
