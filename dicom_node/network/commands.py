"""Command sets of the messages the acceptor serves itself, decoded and encoded without the library.

Always Implicit VR Little Endian, group 0000 (PS3.7 6.3.1, Annex E). Only what has to be answered is looked
at; UIDs are judged before anything else sees them.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Final

from dicom_node.network.status import Status, StoreResponse
from dicom_node.network.wire import AbortReason, ProtocolViolationError

C_STORE_RQ: Final = 0x0001
C_ECHO_RQ: Final = 0x0030
C_CANCEL_RQ: Final = 0x0FFF
RESPONSE: Final = 0x8000
NO_DATA_SET: Final = 0x0101
LARGEST_COMMAND: Final = 16 * 1024  # bytes; a C-STORE-RQ has about 300

_HEADER: Final = struct.Struct("<HHL")
_P_DATA: Final = struct.Struct(">BxLLBB")
_US: Final = struct.Struct("<H")
_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)*")


@dataclass(frozen=True)
class Command:
    """A decoded command set. UIDs without padding, empty when absent; `fault` is the status it deserves."""

    field: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    has_data: bool
    fault: Status | None = None


def decode_command(data: bytes | bytearray) -> Command:
    """Decode a command set.

    Raises `ProtocolViolationError` where the elements cannot even be told apart or the message cannot be
    answered for want of an id.
    """
    values, orderly = _elements(data)
    field, message = _number(values, 0x0100), _number(values, 0x0110)
    kind = _number(values, 0x0800)
    if field is None or message is None or kind is None:
        raise _invalid("a command without field, message id or data set type")
    command = Command(
        field=field,
        message_id=message,
        sop_class_uid=_text(values.get(0x0002, b"")),
        sop_instance_uid=_text(values.get(0x1000, b"")),
        has_data=kind != NO_DATA_SET,
    )
    fault = _fault(command) if orderly else Status.PROCESSING_FAILURE
    return command if fault is None else Command(**{**vars(command), "fault": fault})


def _fault(command: Command) -> Status | None:
    """What is wrong with a command that could be read."""
    if command.field == C_ECHO_RQ:
        return None
    if command.field != C_STORE_RQ:
        return Status.UNRECOGNIZED_OPERATION
    if not command.sop_class_uid or not command.sop_instance_uid:
        return Status.PROCESSING_FAILURE
    if not is_uid(command.sop_instance_uid):
        return Status.INVALID_INSTANCE
    return None if is_uid(command.sop_class_uid) else Status.SOP_CLASS_NOT_SUPPORTED


def is_uid(text: str) -> bool:
    """Whether this is a UID as far as PS3.5 9.1 goes; leading zeros are common and let through."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def _elements(data: bytes | bytearray) -> tuple[dict[int, bytes], bool]:
    """Element numbers and values of group 0000, and whether order and group length are right."""
    values: dict[int, bytes] = {}
    position, last, orderly = 0, -1, True
    while position < len(data):
        if position + _HEADER.size > len(data):
            raise _invalid("a command element is cut off")
        group, element, length = _HEADER.unpack_from(data, position)
        position += _HEADER.size
        if group != 0 or length > len(data) - position:
            raise _invalid("a command element reaches behind the end")
        orderly = orderly and element > last
        last = element
        values[element] = bytes(data[position : position + length])
        position += length
    stated = values.get(0x0000, b"")
    return values, orderly and len(stated) == 4 and int.from_bytes(stated, "little") == len(data) - 12


def _number(values: dict[int, bytes], element: int) -> int | None:
    """A value of VR US."""
    value = values.get(element, b"")
    return _US.unpack(value)[0] if len(value) == 2 else None


def _text(value: bytes) -> str:
    """A UID without its padding; what is not ASCII stays wrong for `is_uid`."""
    return value.rstrip(b"\x00 ").decode("ascii", "replace")


def encode_response(command: Command, response: StoreResponse) -> bytes:
    """The command set that answers a request (PS3.7 9.3.1.2, 9.3.5.2)."""
    sop_class, sop_instance = (
        _padded(uid) if is_uid(uid) else b"" for uid in (command.sop_class_uid, command.sop_instance_uid)
    )
    elements = [
        (0x0002, sop_class) if sop_class else None,
        (0x0100, _US.pack(command.field | RESPONSE)),
        (0x0120, _US.pack(command.message_id)),
        (0x0800, _US.pack(NO_DATA_SET)),
        (0x0900, _US.pack(int(response.status))),
        None if response.offending is None else (0x0901, _tag(response.offending)),
        (0x0902, _comment(response.comment)) if response.comment else None,
        (0x1000, sop_instance) if sop_instance and command.field == C_STORE_RQ else None,
    ]
    body = b"".join(_HEADER.pack(0, one[0], len(one[1])) + one[1] for one in elements if one is not None)
    return _HEADER.pack(0, 0x0000, 4) + struct.pack("<L", len(body)) + body


def command_pdus(context_id: int, command: bytes, max_length: int) -> bytes:
    """The command set as P-DATA-TF PDUs that the peer can take; nearly always one (PS3.8 9.3.5)."""
    size = len(command) if max_length == 0 else max(max_length - 6, 2)
    pieces = [command[start : start + size] for start in range(0, len(command), size)]
    return b"".join(
        _P_DATA.pack(0x04, len(piece) + 6, len(piece) + 2, context_id, 3 if piece is pieces[-1] else 1)
        + piece
        for piece in pieces
    )


def _padded(uid: str) -> bytes:
    value = uid.encode("ascii")
    return value + b"\x00" * (len(value) % 2)


def _tag(tag: int) -> bytes:
    return struct.pack("<HH", tag >> 16, tag & 0xFFFF)


def _comment(text: str) -> bytes:
    value = text[:64].encode("ascii", "replace")
    return value + b" " * (len(value) % 2)


def _invalid(what: str) -> ProtocolViolationError:
    return ProtocolViolationError(AbortReason.INVALID_PARAMETER, what)
