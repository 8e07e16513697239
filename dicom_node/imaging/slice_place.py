"""Where a slice lies, read from the first bytes of its file: a viewer asks that of hundreds of files at once.

Plain headers are walked element by element without parsing values. Whatever is not plain (a sequence of undefined
length before the position, big endian, deflated) is read by the parser, which takes ten times as long.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydicom import dcmread

from dicom_node.imaging.elements import number, numbers, quiet

_HEAD: Final = 16 * 1024
_IMPLICIT: Final = b"1.2.840.10008.1.2"
_UNLIKE: Final = (b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99")
_SYNTAX: Final = b"\x02\x00\x10\x00UI"
_NUMBER: Final = (0x0020, 0x0013)
_POSITION: Final = (0x0020, 0x0032)
_LONG_VRS: Final = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
_KEYWORDS: Final = ["ImagePositionPatient", "InstanceNumber"]


class _NotPlainError(Exception):
    """The header needs the parser."""


@dataclass(frozen=True)
class SlicePlace:
    """Position of the first voxel in mm (LPS) and the instance number, as far as the file says them."""

    position: tuple[float, float, float] | None
    number: float | None


def slice_place(path: Path) -> SlicePlace:
    """Where the slice lies; nothing known of a file that cannot be read, which is told of when it is shown."""
    try:
        with path.open("rb") as file:
            return _walked(file.read(_HEAD))
    except OSError:
        return SlicePlace(None, None)
    except (_NotPlainError, struct.error, ValueError):
        return _parsed(path)


def _walked(head: bytes) -> SlicePlace:
    found: dict[tuple[int, int], bytes] = {}
    for tag, value in _elements(head):
        if tag > _POSITION:
            break
        if tag in (_NUMBER, _POSITION):
            found[tag] = value
    else:
        raise _NotPlainError
    at = [float(part) for part in found.get(_POSITION, b"").split(b"\\") if part.strip(b" \0")]
    count = found.get(_NUMBER, b"").strip(b" \0")
    return SlicePlace((at[0], at[1], at[2]) if len(at) == 3 else None, float(count) if count else None)


def _elements(head: bytes) -> Iterator[tuple[tuple[int, int], bytes]]:
    """The elements of the data set, as far as the head holds them (PS3.5 7.1)."""
    if head[128:136] != b"DICM\x02\x00\x00\x00":
        raise _NotPlainError
    at = 144 + int(struct.unpack_from("<L", head, 140)[0])
    syntax = _syntax(head[:at])
    if syntax in _UNLIKE:
        raise _NotPlainError
    while True:
        group, element = struct.unpack_from("<HH", head, at)
        if syntax == _IMPLICIT:
            start, (length,) = at + 8, struct.unpack_from("<L", head, at + 4)
        elif head[at + 4 : at + 6] in _LONG_VRS:
            start, (length,) = at + 12, struct.unpack_from("<L", head, at + 8)
        else:
            start, (length,) = at + 8, struct.unpack_from("<H", head, at + 6)
        if (group, element) <= _POSITION and start + length > len(head):
            raise _NotPlainError
        yield (group, element), head[start : start + length]
        at = start + length


def _syntax(meta: bytes) -> bytes:
    """The transfer syntax that the file meta information names (PS3.10 7.1)."""
    at = meta.find(_SYNTAX)
    if at < 0:
        raise _NotPlainError
    (length,) = struct.unpack_from("<H", meta, at + 6)
    return meta[at + 8 : at + 8 + length].rstrip(b"\0 ")


def _parsed(path: Path) -> SlicePlace:
    with suppress(Exception), quiet():
        ds = dcmread(path, stop_before_pixels=True, specific_tags=_KEYWORDS)
        at = numbers(ds, "ImagePositionPatient")
        place = (at[0], at[1], at[2]) if at and len(at) == 3 else None
        return SlicePlace(place, number(ds, "InstanceNumber"))
    return SlicePlace(None, None)
