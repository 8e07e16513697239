"""One node on an SQLite file: a lock that the node holds as long as it lives, and the kernel takes back.

On PostgreSQL several nodes may share a database. SQLite's processes share a machine's time and files, and a second
node would take the first one's associations for lost; it is refused before it touches anything.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from sqlalchemy import make_url

from storage.errors import DatabaseUnavailableError, StoreInUseError


class NodeLock:
    """Held from construction until `release` or the death of the process. Raises `StoreInUseError`."""

    def __init__(self, database_url: str) -> None:
        url = make_url(database_url)
        self._descriptor: int | None = None
        if url.get_backend_name() != "sqlite" or not url.database:
            return
        # Beside the database and never the database itself: closing a second descriptor of a file gives up all
        # POSIX locks of the process on it, SQLite's own among them.
        path = Path(url.database + ".node")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise DatabaseUnavailableError(f"the lock file cannot be opened (errno {exc.errno})") from exc
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(descriptor)
            raise StoreInUseError(holder) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Let another node in."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.close(self._descriptor)
            self._descriptor = None
