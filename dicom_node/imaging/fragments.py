"""Where each frame of a multi-frame instance lies in its file, found without decoding anything.

Native frames follow each other. Encapsulated ones are one fragment each, or are told apart by the basic
offset table (PS3.5 A.4).
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from typing import BinaryIO, Final

from dicom_node.imaging.parsing import PixelPlace
from dicom_node.imaging.pixels import PixelFormat, UndecodablePixelsError

_ITEM: Final = 0xE000FFFE  # (FFFE,E000) as a little endian word
_DELIMITER: Final = 0xE0DDFFFE
_HEAD: Final = 8
_MOST_FRAGMENTS: Final = 1_000_000


def frame_places(place: PixelPlace, layout: PixelFormat, count: int) -> list[PixelPlace]:
    """Return where each of `count` frames lies; raises `UndecodablePixelsError` where they cannot be found."""
    if not place.encapsulated:
        row = max(layout.frame_bytes // max(layout.rows, 1), 2)  # less than that is filling
        if not 0 <= place.length - count * layout.frame_bytes < row:
            raise UndecodablePixelsError(f"{place.length} bytes of pixel data for {count} frames.")
        size = layout.frame_bytes
        return [_part(place, place.offset + number * size, size) for number in range(count)]
    offsets, fragments = _fragments(place)
    starts = _frame_starts(offsets, fragments, count)
    ends = [*starts[1:], fragments[-1][0] + _HEAD + fragments[-1][1]]
    return [
        replace(_part(place, place.offset + start, end - start), bare=True)
        for start, end in zip(starts, ends, strict=True)
    ]


def _part(place: PixelPlace, offset: int, length: int) -> PixelPlace:
    """A stretch of the pixel data as a place of its own."""
    if place.inflated is None:
        return replace(place, offset=offset, length=length)
    start = offset - place.offset
    return replace(place, offset=offset, length=length, inflated=place.inflated[start : start + length])


def _fragments(place: PixelPlace) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
    """The basic offset table, and (offset of the item, length of its value) of each fragment behind it."""
    try:
        with place.path.open("rb") as file:
            source: BinaryIO = file if place.inflated is None else BytesIO(place.inflated)
            base = place.offset if place.inflated is None else 0
            items = list(_items(source, base, place.length))
            if not items:
                raise UndecodablePixelsError("The pixel data hold no fragment.")
            (first, size), *fragments = items
            source.seek(base + first + _HEAD)
            table = source.read(size // 4 * 4)
    except OSError as exc:
        raise UndecodablePixelsError(f"The file cannot be read ({type(exc).__name__}).") from None
    if not fragments:
        raise UndecodablePixelsError("The pixel data hold no fragment.")
    return struct.unpack(f"<{len(table) // 4}L", table), fragments


def _items(source: BinaryIO, base: int, length: int) -> Iterator[tuple[int, int]]:
    """Offset and length of every item up to the delimiter, the basic offset table first."""
    offset = 0
    for _ in range(_MOST_FRAGMENTS):
        source.seek(base + offset)
        head = source.read(_HEAD)
        if len(head) < _HEAD:
            raise UndecodablePixelsError("The pixel data are cut off.")
        tag, size = struct.unpack("<LL", head)
        if tag == _DELIMITER:
            return
        if tag != _ITEM or offset + _HEAD + size > length:
            raise UndecodablePixelsError("The pixel data are no sequence of fragments.")
        yield offset, size
        offset += _HEAD + size
    raise UndecodablePixelsError(f"More than {_MOST_FRAGMENTS} fragments.")


def _frame_starts(offsets: tuple[int, ...], fragments: list[tuple[int, int]], count: int) -> list[int]:
    """Offset of the first item of each frame."""
    begin = [offset for offset, _ in fragments]
    if len(begin) == count:
        return begin
    if count == 1:
        return begin[:1]
    starts = [begin[0] + offset for offset in offsets]
    known = all(begin[bisect_right(begin, start) - 1] == start for start in starts)
    if len(starts) != count or not known or starts != sorted(set(starts)):
        raise UndecodablePixelsError(f"{len(begin)} fragments cannot be told apart into {count} frames.")
    return starts
