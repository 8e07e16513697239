"""Walks an encoded data set element by element without decoding it (PS3.5 7.1 to 7.5).

Iterative, so that no nesting can exhaust the stack; every length is checked against the bytes that are
there before anything is skipped. Values are looked at only for the tags asked for, at the top level.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

UNDEFINED: Final = 0xFFFFFFFF
PIXEL_DATA: Final = 0x7FE00010

_ITEM: Final = 0xFFFEE000
_ITEM_END: Final = 0xFFFEE00D
_SEQUENCE_END: Final = 0xFFFEE0DD
# VRs whose explicit form has two reserved bytes and a length of 32 bits (PS3.5 7.1.2).
_LONG_VRS: Final = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
_SEQUENCE_VRS: Final = frozenset({b"SQ", b"UN", b""})
_VALUE_CAP: Final = 1024  # bytes; no value asked for is longer than 64
_LEVEL_BYTES: Final = 16  # a sequence and its item take at least so many
_LAST_DESCRIBING: Final = 0x0028  # groups up to this say whose image it is and how it is made


class MalformedDataSetError(Exception):
    """The bytes are not a data set in the transfer syntax they claim. Quotes positions, never values."""


@dataclass(frozen=True)
class ScanLimits:
    """How much of a data set is believed: nesting of sequences, and elements in all."""

    depth: int = 16
    elements: int = 1_000_000


@dataclass(frozen=True)
class Encoding:
    """How elements are written: VR explicit or not, byte order; deflated bytes have been inflated before."""

    explicit: bool = True
    big_endian: bool = False


@dataclass
class _Scan:
    """The walk itself: position, nesting, what was found."""

    data: memoryview
    encoding: Encoding
    wanted: Collection[int]
    limits: ScanLimits
    found: dict[int, bytes] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)
    position: int = 0
    # One entry for each open item or sequence of undefined length: (is a sequence, VR explicit inside).
    nesting: list[tuple[bool, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        order = ">" if self.encoding.big_endian else "<"
        self._tag = struct.Struct(order + "HH")
        self._short = struct.Struct(order + "H")
        self._long = struct.Struct(order + "L")
        self._suspicious = self.limits.depth * _LEVEL_BYTES  # less holds no nesting that is too deep

    def run(self, *, complete: bool) -> dict[int, bytes]:
        """Walk to the end, to encapsulated pixels, or, of an incomplete data set, to where it is cut."""
        end = len(self.data)
        for _ in range(self.limits.elements):
            if self.position == end and not self.nesting:
                return self.found
            try:
                if not self._step():
                    return self.found
            except (struct.error, _TruncatedError) as exc:
                if complete:
                    raise MalformedDataSetError(f"cut off at byte {self.position} of {end}") from exc
                return self.found
        raise MalformedDataSetError("too many elements")

    def _step(self) -> bool:
        """Take one element, item or delimiter; False when nothing after it matters."""
        start = self.position
        group, element = self._tag.unpack_from(self.data, start)
        tag = group << 16 | element
        in_sequence, explicit = self.nesting[-1] if self.nesting else (False, self.encoding.explicit)
        if group == 0xFFFE or in_sequence:
            self._delimiter(tag, explicit=explicit, in_sequence=in_sequence)
            return True
        vr, length, value = self._header(start, explicit=explicit)
        if not self.nesting and group in (0x0000, 0x0002):
            raise MalformedDataSetError(f"group {group:04X} inside a data set")
        if not self.nesting and (group <= _LAST_DESCRIBING or tag == PIXEL_DATA):
            if tag in self.seen:  # two values are none
                raise MalformedDataSetError(f"({group:04X},{element:04X}) occurs twice")
            self.seen.add(tag)
        if length == UNDEFINED:
            if tag == PIXEL_DATA and not self.nesting:
                return False
            # A UN of undefined length holds implicit VR little endian, whatever surrounds it (PS3.5 6.2.2).
            self._open(is_sequence=True, explicit=explicit and vr != b"UN", position=value)
            return True
        self._skip(value, length)
        if (length >= self._suspicious or self.nesting) and vr in _SEQUENCE_VRS:
            self._look_into(value, length, explicit=explicit and vr != b"UN", is_sequence=True)
        if not self.nesting and tag in self.wanted:
            self.found[tag] = bytes(self.data[value : value + min(length, _VALUE_CAP)])
        return True

    def _header(self, start: int, *, explicit: bool) -> tuple[bytes, int, int]:
        """VR, length and position of the value of the element at `start`."""
        if not explicit:
            return b"", self._long.unpack_from(self.data, start + 4)[0], start + 8
        vr = bytes(self.data[start + 4 : start + 6])
        if len(vr) < 2:
            raise _TruncatedError
        if vr in _LONG_VRS:
            return vr, self._long.unpack_from(self.data, start + 8)[0], start + 12
        if not (vr.isalpha() and vr.isupper()):
            raise MalformedDataSetError(f"no VR at byte {start + 4}")
        return vr, self._short.unpack_from(self.data, start + 6)[0], start + 8

    def _delimiter(self, tag: int, *, explicit: bool, in_sequence: bool) -> None:
        """Take an item or the end of an item or of a sequence."""
        length = self._long.unpack_from(self.data, self.position + 4)[0]
        value = self.position + 8
        if in_sequence and tag == _ITEM:
            if length == UNDEFINED:
                self._open(is_sequence=False, explicit=explicit, position=value)
            else:
                self._skip(value, length)
                self._look_into(value, length, explicit=explicit, is_sequence=False)
            return
        if not self.nesting or tag != (_SEQUENCE_END if in_sequence else _ITEM_END):
            raise MalformedDataSetError(f"unexpected delimiter or element at byte {self.position}")
        self.nesting.pop()
        self.position = value

    def _open(self, *, is_sequence: bool, explicit: bool, position: int) -> None:
        """Go one level down. An item and its sequence count as one level together."""
        if len(self.nesting) >= 2 * self.limits.depth:
            raise MalformedDataSetError("nested too deeply")
        self.nesting.append((is_sequence, explicit))
        self.position = position

    def _skip(self, value: int, length: int) -> None:
        """Go behind a value that has to be there in full."""
        if value + length > len(self.data):
            raise _TruncatedError
        self.position = value + length

    def _starts_with_item(self, value: int, length: int) -> bool:
        """Whether a value looks like the items of a sequence."""
        return length >= 8 and self._tag.unpack_from(self.data, value) == (0xFFFE, 0xE000)

    def _look_into(self, value: int, length: int, *, explicit: bool, is_sequence: bool) -> None:
        """Look for deep nesting behind stated lengths; what else is odd in there does no harm here."""
        if is_sequence and not self._starts_with_item(value, length):
            return
        inside = _Inside(self, explicit, len(self.nesting) + 1)
        try:
            inside.walk(value, value + length, is_sequence=is_sequence)
        except struct.error:
            return


@dataclass
class _Inside:
    """A look into a value of stated length: only its nesting is of interest."""

    scan: _Scan
    explicit: bool
    depth: int  # open items and sequences around the value, itself included

    def walk(self, position: int, end: int, *, is_sequence: bool) -> None:
        """Go through everything that could still be nested too deeply."""
        levels = [(end, is_sequence)]
        for _ in range(self.scan.limits.elements):
            if not levels:
                return
            end, in_sequence = levels[-1]
            if position + 8 > end:
                position = end
                levels.pop()
                continue
            group, element = self.scan._tag.unpack_from(self.scan.data, position)
            if group == 0xFFFE and element != 0xE000:
                position += 8
                levels.pop()
                continue
            value, length, nested = self._element(position, in_sequence=in_sequence)
            last = end if length == UNDEFINED else value + length
            if last > end:
                return
            position = value if nested else last
            if nested and self._may_be_too_deep(len(levels), last - value):
                levels.append((last, not in_sequence))
            elif nested and length == UNDEFINED:
                return
            elif nested:
                position = last
        raise MalformedDataSetError("too many elements")

    def _element(self, position: int, *, in_sequence: bool) -> tuple[int, int, bool]:
        """Where a value begins, its length, and whether it holds items or elements itself."""
        if in_sequence:
            return position + 8, self.scan._long.unpack_from(self.scan.data, position + 4)[0], True
        try:
            vr, length, value = self.scan._header(position, explicit=self.explicit)
        except (MalformedDataSetError, _TruncatedError):
            return position, UNDEFINED - 1, False
        holds = length == UNDEFINED or (
            vr in _SEQUENCE_VRS
            and value + 8 <= len(self.scan.data)
            and self.scan._starts_with_item(value, length)
        )
        return value, length, holds

    def _may_be_too_deep(self, levels: int, size: int) -> bool:
        """Whether a level more could break the limit; raises when it does."""
        most = 2 * self.scan.limits.depth
        if self.depth + levels > most:
            raise MalformedDataSetError("nested too deeply")
        return self.depth + levels + 2 * (size // _LEVEL_BYTES) >= most


class _TruncatedError(Exception):
    """A length points behind the end of the bytes."""


def scan_elements(
    data: memoryview,
    encoding: Encoding,
    wanted: Collection[int],
    *,
    complete: bool = True,
    limits: ScanLimits | None = None,
) -> dict[int, bytes]:
    """Return the raw values of the top-level elements `wanted` that are present.

    The walk covers the whole data set and stops only at encapsulated pixel data. Raises
    `MalformedDataSetError` when a length, a delimiter or a VR is impossible, at limits, when the pixel data or
    an element that describes the image or whose it is occur twice, and, if `complete`, when the bytes end
    inside an element.
    """
    scan = _Scan(data.cast("B") if data.format != "B" else data, encoding, wanted, limits or ScanLimits())
    return scan.run(complete=complete)
