"""The diffusion b-value of an MR slice: the standard attribute or where each vendor keeps it.

Private places are found by their creator, never by the element number alone (PS3.5 7.8.1).
"""

from __future__ import annotations

import struct

from pydicom.dataset import Dataset

from dicom_node.imaging.elements import items, number, stored

_STANDARD_FORMS = ("DiffusionBValue",)
_VENDOR_PLACES = (
    ("SIEMENS MR HEADER", 0x0019, 0x0C),
    ("GEMS_PARM_01", 0x0043, 0x39),
    ("Philips Imaging DD 001", 0x2001, 0x03),
    ("Image Private Header", 0x0065, 0x09),
)
_GE_OFFSET = 1e9
"""GE adds this to the b-value of some sequences."""


def b_value(ds: Dataset) -> float | None:
    """Return the b-value in s/mm2, or None when the slice does not state one."""
    for keyword in _STANDARD_FORMS:
        found = number(ds, keyword)
        if found is not None:
            return found
    for item in items(ds, "MRDiffusionSequence"):
        found = number(item, "DiffusionBValue")
        if found is not None:
            return found
    for creator, group, element in _VENDOR_PLACES:
        found = _private_number(ds, creator, group, element)
        if found is not None:
            return found - _GE_OFFSET if found >= _GE_OFFSET else found
    return None


def _private_number(ds: Dataset, creator: str, group: int, element: int) -> float | None:
    """First value of a private element as a number, from text or from the binary form of its length."""
    tags = [int(tag) for tag in ds.keys()]  # noqa: SIM118 - iterating a Dataset converts it
    for tag in tags:
        if tag >> 16 != group or not 0x10 <= tag & 0xFFFF <= 0xFF:
            continue
        if (stored(ds, tag) or b"").decode("ascii", "replace").strip(" \0") == creator:
            return _as_number(stored(ds, group << 16 | (tag & 0xFF) << 8 | element))
    return None


def _as_number(value: bytes | None) -> float | None:
    """Text first: a vendor's IS or DS; else a float of 4 or 8 bytes, as Philips and UIH write it."""
    if not value:
        return None
    try:
        return float(value.split(b"\\")[0].strip(b" \0"))
    except ValueError:
        pass
    shapes = {4: "<f", 8: "<d"}
    if len(value) not in shapes:
        return None
    found = float(struct.unpack(shapes[len(value)], value)[0])
    return found if 0 <= found < 1e6 else None
