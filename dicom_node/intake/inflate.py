"""Bounded inflation of deflated data sets (PS3.5 A.5): the head for a look, the rest only counted."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

_HEAD: Final = 4 << 20  # bytes kept; UIDs stand in the first kilobytes
_STEP: Final = 1 << 20
_SLICE: Final = 1 << 16


class InflateError(Exception):
    """The bytes are not a complete deflate stream."""


class TooLargeError(Exception):
    """The stream holds more than is accepted; `limit` in bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"inflates to more than {limit} bytes")
        self.limit = limit


def inflate_head(data: memoryview, *, limit: int = 256 << 20) -> tuple[bytes, bool]:
    """Return the first 4 MiB of the inflated stream, and whether that is all of it.

    Runs through the whole stream, so that what is kept is known to be complete and to inflate to at
    most `limit` bytes, in a few MiB of memory. Raises `InflateError` or `TooLargeError`.
    """
    head = bytearray()
    total = 0
    for chunk in _inflate(data):
        total += len(chunk)
        head += chunk[: max(_HEAD - len(head), 0)]
        if total > limit:
            raise TooLargeError(limit)
    return bytes(head), total == len(head)


def _inflate(data: memoryview) -> Iterator[bytes]:
    """The inflated stream in chunks of at most 1 MiB. The input goes in by slices: what a call does not
    consume is copied, and copying all of it each time would take quadratic time."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for start in range(0, len(data), _SLICE):
            pending: bytes | memoryview = data[start : start + _SLICE]
            while not stream.eof:
                chunk = stream.decompress(pending, _STEP)
                yield chunk
                pending = stream.unconsumed_tail
                if not pending and len(chunk) < _STEP:
                    break
    except zlib.error as exc:
        raise InflateError("not a deflate stream") from exc
    if not stream.eof:
        raise InflateError("the deflate stream is cut off")
