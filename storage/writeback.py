"""Have the disk begin to write while there is other work to do, so that the sync that follows waits less."""

from __future__ import annotations

import ctypes
from typing import Any, Final

_WRITE: Final = 2  # SYNC_FILE_RANGE_WRITE of <linux/fs.h>: begin, wait for nothing


def _system_call() -> Any:
    """The call of the C library; None on a system that does not have it."""
    try:
        call = ctypes.CDLL(None).sync_file_range
    except (OSError, AttributeError):
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    return call


_sync_file_range: Final = _system_call()


def begin_writeback(descriptor: int) -> None:
    """Send what was written to the file on its way to the disk.

    Promises nothing, and takes no error away from the sync, which alone says what is durable.
    """
    if _sync_file_range is not None:
        _sync_file_range(descriptor, 0, 0, _WRITE)
