"""Ways to change or spoil an object that several tests use: through the parser, or in its bytes."""

from __future__ import annotations

import struct
from collections.abc import Callable

from pydicom.dataset import FileDataset

Edit = Callable[[FileDataset], None]


def setting(**values: object) -> Edit:
    """Set attributes; None removes one."""

    def edit(ds: FileDataset) -> None:
        for keyword, value in values.items():
            if value is None:
                ds.pop(keyword, None)
            else:
                setattr(ds, keyword, value)

    return edit


def in_lengths(depth: int) -> bytes:
    """Sequences in sequences, explicit little endian, every length stated: `depth` of them."""
    value = b""
    for _ in range(depth):
        item = b"\xfe\xff\x00\xe0" + struct.pack("<L", len(value)) + value
        value = b"\x40\x00\x30\xa7SQ\0\0" + struct.pack("<L", len(item)) + item
    return value
