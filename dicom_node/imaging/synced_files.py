"""Files that are on stable storage when the call returns, and disk trouble told by its kind."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dicom_node.errors import DeriveError, Reason

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def write_synced(path: Path, content: bytes) -> None:
    """Create the file, write all of it and wait until it is on stable storage; never overwrite."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Make the names of the files durable too."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def told_apart() -> Iterator[None]:
    """Turn an `OSError` into a `DeriveError`: NO_SPACE when the disk is full, STORAGE_FAILED otherwise."""
    try:
        yield
    except OSError as exc:
        reason = Reason.NO_SPACE if exc.errno in _NO_SPACE else Reason.STORAGE_FAILED
        raise DeriveError(reason, f"Writing failed ({errno.errorcode.get(exc.errno or 0, '?')}).") from exc
