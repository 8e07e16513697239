"""C-STORE on the wire: the request as slices of what is stored, and the answer from its few elements.

P-DATA-TF PDUs (PS3.8 9.3.5) around a command set in Implicit VR Little Endian (PS3.7 6.3.1, Table 9.3-1
and 9.3-2). Nothing of the data set is copied: a PDU is a header of twelve bytes and a slice.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

P_DATA: Final = 0x04
_C_STORE_RQ: Final = 0x0001
_C_STORE_RSP: Final = 0x8001
_HAS_DATA_SET: Final = 0x0001
_NO_DATA_SET: Final = 0x0101
_COMMAND: Final = 0x01
_LAST: Final = 0x02
_HEADER: Final = struct.Struct(">BxIIBB")
_ELEMENT: Final = struct.Struct("<HHI")
_PDV_OVERHEAD: Final = 6  # length, presentation context id, message control header

# Elements of group 0000.
_CLASS, _FIELD, _ANSWERED, _STATUS, _COMMENT, _INSTANCE = 0x0002, 0x0100, 0x0120, 0x0900, 0x0902, 0x1000


class MessageError(Exception):
    """What the peer sent is not the answer to a C-STORE request; the text holds nothing of its content."""


@dataclass(frozen=True)
class StoreAnswer:
    """A C-STORE-RSP: the message it answers, the status, and what the peer says about it."""

    message_id: int
    status: int
    comment: str
    sop_instance_uid: str


def largest_fragment(max_length: int, *, at_most: int = 1 << 17) -> int:
    """Bytes of a message that one PDU takes, for a peer's maximum length (PS3.8 D.1; 0 is no limit); even."""
    limit = min(max_length, at_most) if max_length else at_most
    return max(limit - _PDV_OVERHEAD, 2) & ~1


def store_command(sop_class_uid: str, sop_instance_uid: str, message_id: int, context_id: int) -> bytes:
    """The C-STORE-RQ command set in its P-DATA-TF PDU."""
    elements = b"".join(
        (
            _text(_CLASS, sop_class_uid),
            _number(_FIELD, _C_STORE_RQ),
            _number(0x0110, message_id),
            _number(0x0700, 0x0000),  # medium priority
            _number(0x0800, _HAS_DATA_SET),
            _text(_INSTANCE, sop_instance_uid),
        )
    )
    command = _ELEMENT.pack(0, 0, 4) + struct.pack("<I", len(elements)) + elements
    return _header(len(command), context_id, _COMMAND | _LAST) + command


def data_pdus(piece: memoryview, *, context_id: int, fragment: int, is_end: bool) -> Iterator[Slices]:
    """A piece of a data set as (header, slice) pairs; the last one ends the message when `is_end`."""
    full = _header(fragment, context_id, 0)
    total = len(piece)
    for start in range(0, total, fragment):
        length = min(fragment, total - start)
        if start + length == total:
            yield _header(length, context_id, _LAST if is_end else 0), piece[start : start + length]
        else:
            yield full, piece[start : start + length]


Slices = tuple[bytes, memoryview]


class AnswerParts:
    """Collects the fragments of one answer from the P-DATA-TF PDUs that bring it."""

    def __init__(self, context_id: int) -> None:
        self._context_id = context_id
        self._command = bytearray()

    def add(self, body: memoryview) -> StoreAnswer | None:
        """Take the body of a PDU; the answer once its last fragment is there. Raises `MessageError`."""
        position, answer = 0, None
        while position < len(body):
            if answer is not None or position + _PDV_OVERHEAD > len(body):
                raise MessageError("something follows the answer")
            length = int.from_bytes(body[position : position + 4], "big")
            end = position + 4 + length
            if length < 2 or end > len(body):
                raise MessageError("a fragment longer than its PDU")
            if body[position + 4] != self._context_id:
                raise MessageError("an answer on another presentation context")
            control = body[position + 5]
            if not control & _COMMAND:
                raise MessageError("a data set where an answer was due")
            self._command += body[position + 6 : end]
            if control & _LAST:
                answer = _answer(memoryview(self._command))
            position = end
        return answer


def _answer(command: memoryview) -> StoreAnswer:
    """Read a C-STORE-RSP."""
    values = dict(_elements(command))
    if _integer(values, _FIELD) != _C_STORE_RSP:
        raise MessageError("another message than a C-STORE answer")
    if _integer(values, 0x0800) != _NO_DATA_SET:
        raise MessageError("an answer with a data set")
    return StoreAnswer(
        message_id=_integer(values, _ANSWERED),
        status=_integer(values, _STATUS),
        comment=_ascii(values.get(_COMMENT, b"")),
        sop_instance_uid=_ascii(values.get(_INSTANCE, b"")),
    )


def _elements(command: memoryview) -> Iterator[tuple[int, bytes]]:
    """Element number and value of a command set."""
    position = 0
    while position < len(command):
        if position + 8 > len(command):
            raise MessageError("a command set that ends early")
        group, number, length = _ELEMENT.unpack_from(command, position)
        position += 8
        if group or position + length > len(command):
            raise MessageError("a command set that ends early")
        yield number, bytes(command[position : position + length])
        position += length


def _integer(values: dict[int, bytes], number: int) -> int:
    value = values.get(number, b"")
    if len(value) != 2:
        raise MessageError(f"(0000,{number:04X}) is missing or malformed")
    return int.from_bytes(value, "little")


def _ascii(value: bytes) -> str:
    return value.decode("ascii", "replace").strip(" \x00")


def _header(length: int, context_id: int, control: int) -> bytes:
    """The header of a P-DATA-TF PDU with one presentation data value of `length` bytes."""
    return _HEADER.pack(P_DATA, length + _PDV_OVERHEAD, length + 2, context_id, control)


def _number(number: int, value: int) -> bytes:
    return _ELEMENT.pack(0, number, 2) + struct.pack("<H", value)


def _text(number: int, uid: str) -> bytes:
    value = uid.encode("ascii")
    value += b"\x00" * (len(value) % 2)
    return _ELEMENT.pack(0, number, len(value)) + value
