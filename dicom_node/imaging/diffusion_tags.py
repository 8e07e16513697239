"""The diffusion b-value and direction of an MR slice: the standard attributes or where each vendor keeps them.

Private places are found by their creator, never by the element number alone (PS3.5 7.8.1).
"""

from __future__ import annotations

import struct

from pydicom.dataset import Dataset

from dicom_node.imaging.elements import items, number, numbers, stored

_STANDARD_FORMS = ("DiffusionBValue",)
_VENDOR_PLACES = (
    ("SIEMENS MR HEADER", 0x0019, 0x0C),
    ("GEMS_PARM_01", 0x0043, 0x39),
    ("Philips Imaging DD 001", 0x2001, 0x03),
    ("Image Private Header", 0x0065, 0x09),
)
_DIRECTION_PLACES = (
    ("SIEMENS MR HEADER", 0x0019, (0x0E,)),
    ("GEMS_ACQU_01", 0x0019, (0xBB, 0xBC, 0xBD)),
    ("Philips MR Imaging DD 001", 0x2005, (0xB0, 0xB1, 0xB2)),
    ("Image Private Header", 0x0065, (0x37,)),
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


def direction(ds: Dataset) -> tuple[float, ...] | None:
    """Return the direction of the diffusion gradient, or None when the slice states none."""
    found = numbers(ds, "DiffusionGradientOrientation")
    if found is not None:
        return found
    for creator, group, places in _DIRECTION_PLACES:
        for block in _blocks(ds, group, creator):
            values = [_all_numbers(stored(ds, group << 16 | block << 8 | place)) for place in places]
            parts = tuple(value for part in values for value in part)
            if len(parts) == 3:
                return parts
    return None


def _all_numbers(value: bytes | None) -> tuple[float, ...]:
    """The numbers of a private element: a vendor's DS, or floats of 4 or 8 bytes."""
    try:
        return tuple(float(part) for part in (value or b"").strip(b" \0").split(b"\\"))
    except ValueError:
        pass
    shapes = {4: "<f", 8: "<d", 12: "<3f", 24: "<3d"}
    shape = shapes.get(len(value or b""))
    return tuple(float(part) for part in struct.unpack(shape, value or b"")) if shape else ()


def _private_number(ds: Dataset, creator: str, group: int, element: int) -> float | None:
    """First value of a private element as a number, from text or from the binary form of its length."""
    for block in _blocks(ds, group, creator):
        return _as_number(stored(ds, group << 16 | block << 8 | element))
    return None


def _blocks(ds: Dataset, group: int, creator: str) -> list[int]:
    """The private blocks that a creator holds in a group (PS3.5 7.8.1)."""
    found = []
    for tag in ds.keys():  # noqa: SIM118 - iterating a Dataset converts it
        if (
            tag >> 16 == group
            and 0x10 <= tag & 0xFFFF <= 0xFF
            and (stored(ds, tag) or b"").strip(b" \0") == creator.encode()
        ):
            found.append(int(tag) & 0xFF)
    return found


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
