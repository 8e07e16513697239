"""A stored Part 10 file on its way out: what its file meta says, and its data set as bytes, never decoded.

The file meta is read by hand, because a sender reads one for every instance: group 0002 in Explicit VR
Little Endian (PS3.10 7.1), everything behind it is the data set and goes out as it lies there.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from dicom_node.errors import Reason, ReasonedError, UnreadableInstanceError

_PREFIX: Final = b"DICM"
_PREAMBLE: Final = 128
_FIRST: Final = _PREAMBLE + len(_PREFIX)
_STANDARD_START: Final = _PREFIX + b"\x02\x00\x00\x00UL\x04\x00"
_META_GROUP: Final = 0x0002
_MEDIA_STORAGE_SOP_CLASS: Final = 0x0002
_MEDIA_STORAGE_SOP_INSTANCE: Final = 0x0003
_TRANSFER_SYNTAX: Final = 0x0010
_LONG_VRS: Final = frozenset({b"OB", b"OW", b"UN", b"UT", b"SQ", b"UC", b"UR", b"OD", b"OF", b"OL", b"OV"})
_HEAD: Final = 64 * 1024  # file meta with every optional element stays far below

DigestScope = Literal["file", "data set"]


class SourceChangedError(ReasonedError):
    """The bytes of a stored file are not those its digest was made of; they do not leave this node."""


@dataclass(frozen=True)
class Outgoing:
    """One Part 10 file to send; the UIDs are those of its file meta.

    `digest`: SHA-256 in hexadecimal that the bytes must have to leave, over `digest_scope`; None sends
    what is there.
    """

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    digest: str | None = None
    digest_scope: DigestScope = "file"


def outgoing(path: Path) -> Outgoing:
    """Describe a file for sending from its file meta alone. Raises `UnreadableInstanceError`."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as exc:
        raise UnreadableInstanceError(f"{type(exc).__name__} while reading it.") from exc
    found, _ = _file_meta(memoryview(head))
    return Outgoing(
        path,
        _uid(found, _MEDIA_STORAGE_SOP_CLASS),
        _uid(found, _MEDIA_STORAGE_SOP_INSTANCE),
        _uid(found, _TRANSFER_SYNTAX),
    )


def data_set_offset(head: memoryview) -> int:
    """Where the data set begins in a file of which `head` is the beginning. Raises `UnreadableInstanceError`."""
    if head[_PREAMBLE : len(_STANDARD_START) + _PREAMBLE] == _STANDARD_START:
        # The group length stands first and says it all (PS3.10 7.1, type 1).
        end = len(_STANDARD_START) + _PREAMBLE + 4
        return end + int.from_bytes(head[end - 4 : end], "little")
    return _file_meta(head)[1]


class FileBuffer:
    """A buffer for one stored file after another: small files lie in it whole, large ones pass through.

    `load` proves the digest before it returns, so no byte of a changed file is ever handed out. Memory is
    `capacity` bytes, whatever the size of the files.
    """

    def __init__(self, capacity: int = 4 * 1024 * 1024) -> None:
        self._memory = bytearray(capacity)
        self._view = memoryview(self._memory)
        self._descriptor: int | None = None
        self._filled = 0
        self._size = 0
        self._offset = 0

    def load(self, item: Outgoing) -> int:
        """Take the next file; returns the length of its data set.

        Raises `UnreadableInstanceError` or `SourceChangedError`.
        """
        self.close()
        try:
            self._open(item.path)
            self._offset = data_set_offset(self._view[: self._filled])
            if item.digest is not None and self._digest(item.digest_scope) != item.digest:
                raise SourceChangedError(Reason.SOURCE_CHANGED, f"Instance {item.sop_instance_uid}.")
        except OSError as exc:
            raise UnreadableInstanceError(f"{type(exc).__name__} while reading it.") from exc
        length = self._size - self._offset
        if length <= 0 or length % 2:
            raise UnreadableInstanceError("Its data set is empty or has an odd number of bytes.")
        return length

    def chunks(self) -> Iterator[memoryview]:
        """The data set from its first byte, in pieces that are valid until the next one is asked for.

        Raises `UnreadableInstanceError` when the file cannot be read any more.
        """
        yield self._view[self._offset : self._filled]
        position = self._filled
        while position < self._size:
            try:
                count = self._fill(position)
            except OSError as exc:
                raise UnreadableInstanceError(f"{type(exc).__name__} while reading it.") from exc
            position += count
            yield self._view[:count]

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._size = os.fstat(self._descriptor).st_size
        self._filled = self._fill(0)

    def _fill(self, position: int) -> int:
        """Read from a position of the file until the buffer is full or the file ends."""
        if self._descriptor is None:
            raise OSError("the file is closed")
        filled, wanted = 0, min(len(self._memory), self._size - position)
        while filled < wanted:
            count = os.preadv(self._descriptor, [self._view[filled:wanted]], position + filled)
            if count == 0:
                raise OSError("the file became shorter")
            filled += count
        return filled

    def _digest(self, scope: DigestScope) -> str:
        """SHA-256 over the file or its data set; the beginning lies in the buffer afterwards."""
        start = self._offset if scope == "data set" else 0
        digest = hashlib.sha256(self._view[start : self._filled])
        position = self._filled
        while position < self._size:
            count = self._fill(position)
            digest.update(self._view[:count])
            position += count
        if position > self._filled:
            self._filled = self._fill(0)
        return digest.hexdigest()


def _file_meta(head: memoryview) -> tuple[dict[int, bytes], int]:
    """The values of group 0002 by element number, and where the data set begins."""
    if bytes(head[_PREAMBLE:_FIRST]) != _PREFIX:
        raise UnreadableInstanceError("The file has no complete file meta information.")
    found: dict[int, bytes] = {}
    position = _FIRST
    while int.from_bytes(head[position : position + 2], "little") == _META_GROUP:
        number = int.from_bytes(head[position + 2 : position + 4], "little")
        long = bytes(head[position + 4 : position + 6]) in _LONG_VRS
        start = position + (12 if long else 8)
        length = int.from_bytes(head[start - 4 : start] if long else head[start - 2 : start], "little")
        if start + length > len(head):
            raise UnreadableInstanceError("The file has no complete file meta information.")
        found[number] = bytes(head[start : start + length])
        position = start + length
    return found, position


def _uid(found: dict[int, bytes], name: int) -> str:
    """One UID of the file meta, without padding."""
    value = found.get(name, b"").rstrip(b" \x00")
    if not value or not value.isascii():
        raise UnreadableInstanceError("The file has no complete file meta information.")
    return value.decode("ascii")
