"""The durable calls: write all, sync, make folders that last. Everything here raises OSError as it comes,
but for `filesystem`, which turns it into the store's errors."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.errors import SpoolError, SpoolFullError

# EFBIG: the process or the file system allows no larger file, which to a sender is the same as no space.
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def is_full(exc: OSError) -> bool:
    """Whether the error means that no space is left."""
    return exc.errno in _FULL


@contextmanager
def filesystem() -> Iterator[None]:
    """Turn an OSError of the block into `SpoolFullError` or `SpoolError`; no path in the message."""
    try:
        yield
    except OSError as exc:
        name = errno.errorcode.get(exc.errno or 0, str(exc.errno))
        if is_full(exc):
            raise SpoolFullError(f"the storage directory has no space left ({name})") from exc
        raise SpoolError(f"the storage directory failed ({name})") from exc


def write_fully(descriptor: int, data: bytes | bytearray | memoryview) -> None:
    """Write every byte; the system may take fewer at a time."""
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(descriptor, view) :]


def sync_directory(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def durable_mkdir(path: Path) -> None:
    """Have the folder, for its owner alone, with its name durable in its parent.

    A folder that exists is synced all the same: who made it may have died before its own sync.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    sync_directory(path.parent)


def read_back(path: Path, expected: bytes) -> None:
    """Write, sync and read a new file; raise OSError (EIO) when other bytes come back."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        write_fully(descriptor, expected)
        os.fsync(descriptor)
        if os.pread(descriptor, len(expected), 0) != expected:
            raise OSError(errno.EIO, "other bytes came back")
    finally:
        os.close(descriptor)
    sync_directory(path.parent)
