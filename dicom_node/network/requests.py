"""Judges an A-ASSOCIATE-RQ before the library decodes it (PS3.8 9.3.2, PS3.7 Annex D).

Every item has to lie within the one around it, so that no decoder meets a length that overruns. Items of
unknown type are left out, as PS3.8 9.3.1 asks. What cannot be accepted whoever asks is answered here.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from dicom_node.network.status import Rejection
from dicom_node.network.wire import AbortReason, ProtocolViolationError

_FIXED: Final = 68  # bytes in front of the items
_APPLICATION_CONTEXT: Final = b"1.2.840.10008.3.1.1.1"
_ITEM: Final = struct.Struct(">BxH")
_MOST_CONTEXTS: Final = 128
_MOST_ITEMS: Final = 1024  # of the user information; a role for each of 128 contexts and more
_MOST_SYNTAXES: Final = 128
_AE_TITLE: Final = re.compile(rb"[\x20-\x5b\x5d-\x7e]{16}")

_CONTEXT, _USER = 0x20, 0x50
_USER_ITEMS: Final = frozenset(range(0x51, 0x59))


@dataclass(frozen=True)
class Judged:
    """A request without unknown items, and the rejection it gets whoever asks (None: let policy decide)."""

    body: bytes
    rejection: Rejection | None


def judge_request(body: memoryview) -> Judged:
    """Check the body of an A-ASSOCIATE-RQ.

    Raises `ProtocolViolationError` (invalid parameter) for what is not a request at all: items that
    overrun, context ids that are even or given twice, no context, no user information.
    """
    if len(body) < _FIXED:
        raise _invalid("the request is cut off")
    (version,) = struct.unpack_from(">H", body)
    if not version & 1:
        return Judged(bytes(body), Rejection.VERSION_NOT_SUPPORTED)
    kept, application, users = [bytes(body[:_FIXED])], None, 0
    ids: set[int] = set()
    for kind, item in _items(body[_FIXED:], _MOST_CONTEXTS + 16):
        if kind == 0x10:
            application = bytes(item)
        elif kind == _CONTEXT:
            ids.add(_context_id(item, ids))
            kept_item = _context(item)
            kept.append(_ITEM.pack(kind, len(kept_item)) + kept_item)
            continue
        elif kind == _USER:
            users += 1
            kept_item = _user_information(item)
            kept.append(_ITEM.pack(kind, len(kept_item)) + kept_item)
            continue
        else:
            continue
        kept.append(_ITEM.pack(kind, len(item)) + bytes(item))
    if not ids or users != 1:
        raise _invalid("no presentation context or no user information")
    return Judged(b"".join(kept), _rejection(body, application))


def _rejection(body: memoryview, application: bytes | None) -> Rejection | None:
    """What is wrong with the names in the request, if anything."""
    if application is None or application.rstrip(b"\x00 ") != _APPLICATION_CONTEXT:
        return Rejection.APPLICATION_CONTEXT
    called, calling = bytes(body[4:20]), bytes(body[20:36])
    if not _is_title(calling):
        return Rejection.CALLING_AE_UNKNOWN
    return None if _is_title(called) else Rejection.CALLED_AE_UNKNOWN


def _is_title(title: bytes) -> bool:
    """Whether these sixteen bytes are an AE title (PS3.5 6.2), NUL taken for padding at the end."""
    title = title.rstrip(b"\x00").ljust(16)
    return bool(_AE_TITLE.fullmatch(title)) and not title.isspace()


def _context_id(item: memoryview, known: set[int]) -> int:
    """The id of a presentation context: odd and new."""
    if len(item) < 4:
        raise _invalid("a presentation context is cut off")
    number = item[0]
    if number % 2 == 0 or number in known or len(known) >= _MOST_CONTEXTS:
        raise _invalid("presentation context ids")
    return int(number)


def _context(item: memoryview) -> bytes:
    """A presentation context with one abstract syntax and at least one transfer syntax."""
    kept, counts = [bytes(item[:4])], {0x30: 0, 0x40: 0}
    for kind, inner in _items(item[4:], _MOST_SYNTAXES):
        if kind in counts:
            counts[kind] += 1
            kept.append(_ITEM.pack(kind, len(inner)) + bytes(inner))
    if counts[0x30] != 1 or not counts[0x40]:
        raise _invalid("a presentation context without its syntaxes")
    return b"".join(kept)


def _user_information(item: memoryview) -> bytes:
    """The user information without what nobody knows."""
    return b"".join(
        _ITEM.pack(kind, len(inner)) + bytes(inner)
        for kind, inner in _items(item, _MOST_ITEMS)
        if kind in _USER_ITEMS
    )


def _items(data: memoryview, most: int) -> Iterator[tuple[int, memoryview]]:
    """Type and value of each item; none may reach behind the end."""
    position = 0
    for _ in range(most):
        if position == len(data):
            return
        if position + _ITEM.size > len(data):
            raise _invalid("an item is cut off")
        kind, length = _ITEM.unpack_from(data, position)
        position += _ITEM.size + length
        if position > len(data):
            raise _invalid("an item reaches behind the end")
        yield kind, data[position - length : position]
    if position != len(data):
        raise _invalid("too many items")


def _invalid(what: str) -> ProtocolViolationError:
    return ProtocolViolationError(AbortReason.INVALID_PARAMETER, what)
