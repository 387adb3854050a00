"""One writer a directory: a lock file that says who holds it and that the kernel releases when its process dies."""

from __future__ import annotations

import fcntl
import json
import os
import socket
from pathlib import Path

from theory.errors import InputError


class LockedError(InputError):
    """Another process writes the directory."""


class Lock:
    """Hold a directory's lock until `release`; a dead process's lock file is simply taken over.

    Args:
        folder: The directory; must exist.

    Raises:
        LockedError: If another process, or this one, holds it; says which.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "lock"
        while True:
            self._file = open(self.path, "a+")  # noqa: SIM115 - open for as long as the lock is held
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                self._file.seek(0)
                holder = self._file.read() or "another process"
                self._file.close()
                raise LockedError(f"{folder} is being written by {holder}: wait for it or end it first.") from None
            if self._is_current():
                break
            self._file.close()  # its last holder removed the file between our open and our lock
        self._file.truncate(0)
        self._file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        self._file.flush()

    def release(self) -> None:
        """Remove the lock file and let go."""
        if not self._file.closed:
            self.path.unlink(missing_ok=True)
            self._file.close()

    def _is_current(self) -> bool:
        try:
            return os.fstat(self._file.fileno()).st_ino == self.path.stat().st_ino
        except FileNotFoundError:
            return False
