"""The file head written in front of a received data set (PS3.10 7.1), so that every stored instance is a DICOM file."""

from __future__ import annotations

import struct
from typing import Final

from dicom_node.network.presentation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.network.received import ReceivedInstance, StoreRequest

_PREAMBLE: Final = bytes(128) + b"DICM"


def part10_header(received: ReceivedInstance | StoreRequest) -> bytes:
    """Return preamble and file meta group; the data set follows byte for byte as received.

    The meta group is Explicit VR Little Endian whatever the data set is in.
    """
    group = b"".join(
        (
            _element(0x0001, b"OB", b"\x00\x01"),
            _element(0x0002, b"UI", _uid(received.sop_class_uid)),
            _element(0x0003, b"UI", _uid(received.sop_instance_uid)),
            _element(0x0010, b"UI", _uid(received.transfer_syntax_uid)),
            _element(0x0012, b"UI", _uid(IMPLEMENTATION_CLASS_UID)),
            _element(0x0013, b"SH", _text(IMPLEMENTATION_VERSION_NAME)),
            _element(0x0016, b"AE", _text(received.association.calling_ae)),
        )
    )
    return _PREAMBLE + _element(0x0000, b"UL", struct.pack("<L", len(group))) + group


def _element(element: int, vr: bytes, value: bytes) -> bytes:
    """One element of group 0002."""
    if vr == b"OB":
        return struct.pack("<HH2sHL", 0x0002, element, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", 0x0002, element, vr, len(value)) + value


def _uid(uid: str) -> bytes:
    """A UID, padded to even length with NUL (PS3.5 9.1)."""
    value = uid.encode("ascii")
    return value + b"\x00" * (len(value) % 2)


def _text(text: str) -> bytes:
    """A string, padded to even length with a blank (PS3.5 6.2)."""
    value = text.encode("ascii")
    return value + b" " * (len(value) % 2)
