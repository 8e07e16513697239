"""Building a data set as bytes: attributes keep the value they were copied with, to the last one.

An `Attributes` maps a tag to one element, encoded Explicit VR Little Endian (PS3.5 7.1.2). Nothing is
decoded on the way, so over-long decimal strings, unknown character sets and odd names survive as they
were, and all text that is added is ASCII, which every DICOM character set begins with.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

from dicom_node.imaging.elements import dictionary_vr, is_private, items, little_endian, tag_of, vr_of

_LONG_LENGTH_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_SHORT_LENGTH_VRS = "AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US"
_KNOWN_VRS = _LONG_LENGTH_VRS | frozenset(_SHORT_LENGTH_VRS.split())  # PS3.5 6.2
_ZERO_PADDED_VRS = frozenset({"UI", "OB", "UN"})
_LONGEST_SHORT = 0xFFFF
_ITEM = b"\xfe\xff\x00\xe0"
_PIXEL_DATA = 0x7FE00010
_TRAILING_PADDING = 0xFFFCFFFC


@dataclass(frozen=True)
class Element:
    """One encoded element: its VR and its value, little endian and of even length."""

    vr: str
    value: bytes


Attributes = dict[int, Element]
"""Tag to element; written in ascending order of the tag."""


def copy_standard(
    ds: Dataset, *, signed: bool, without: frozenset[int] = frozenset(), overlays: bool = False
) -> Attributes:
    """Copy every standard element but the pixels, value by value; items of sequences likewise.

    Left out at every depth: private elements, group lengths, padding after the data set, the tags in
    `without`, and overlays (60xx) unless they are asked for, which stand at the top alone. `signed` decides
    between SS and US where the dictionary leaves it open.
    """
    copied: Attributes = {}
    for tag in sorted(int(key) for key in ds.keys()):  # noqa: SIM118 - iterating a Dataset converts it
        if tag in without or (_is_dropped(tag) and not (overlays and is_overlay(tag))):
            continue
        element = ds.get_item(tag)
        if vr_of(element) == "SQ":
            inner = [copy_standard(item, signed=signed, without=without) for item in items(ds, tag)]
            copied[tag] = sequence_element(inner)
        else:
            copied[tag] = _copy_element(element, signed=signed)
    return copied


def is_overlay(tag: int) -> bool:
    """Whether the tag belongs to an overlay plane (PS3.3 C.9); a group length is none of its attributes."""
    return (tag >> 16) & 0xFF01 == 0x6000 and tag & 0xFFFF != 0


def _is_dropped(tag: int) -> bool:
    """What no derived object carries over (PS3.5 7.2, 7.8; retired overlays)."""
    group = tag >> 16
    return (
        is_private(tag)
        or tag & 0xFFFF == 0
        or group <= 0x0002
        or is_overlay(tag)
        or tag in (_PIXEL_DATA, _TRAILING_PADDING)
    )


def _copy_element(element: RawDataElement | DataElement, *, signed: bool) -> Element:
    """The element with its bytes in little endian order and a VR that can be written."""
    value = little_endian(element)
    vr = _definite_vr(vr_of(element), signed=signed)
    if len(value) > _LONGEST_SHORT and vr not in _LONG_LENGTH_VRS:
        vr = "UN"  # PS3.5 6.2.2: too long for the VR's 16-bit length
    return Element(vr, _even(vr, value))


def _definite_vr(vr: str, *, signed: bool) -> str:
    """Settle the VRs that PS3.6 leaves open."""
    if vr == "US or SS":
        return "SS" if signed else "US"
    if vr in ("OB or OW", "US or OW", "US or SS or OW"):
        return "OW"
    return vr if vr in _KNOWN_VRS else "UN"


def _even(vr: str, value: bytes) -> bytes:
    """Pad to even length (PS3.5 7.1.1)."""
    if len(value) % 2 == 0:
        return value
    return value + (b"\0" if vr in _ZERO_PADDED_VRS else b" ")


def put_bytes(attributes: Attributes, keyword: str, value: bytes, *, vr: str | None = None) -> None:
    """Set an attribute to bytes that are already in the character set of the object."""
    tag = tag_of(keyword)
    chosen = vr or dictionary_vr(tag)
    attributes[tag] = Element(chosen, _even(chosen, value))


def put_text(attributes: Attributes, keyword: str, *values: str) -> None:
    """Set an attribute to ASCII values; raises `UnicodeEncodeError` (a `ValueError`) for anything else."""
    put_bytes(attributes, keyword, "\\".join(values).encode("ascii"))


def put_items(attributes: Attributes, keyword: str, inner: Sequence[Attributes]) -> None:
    """Set a sequence to exactly these items."""
    attributes[tag_of(keyword)] = sequence_element(inner)


def append_items(attributes: Attributes, keyword: str, inner: Sequence[Attributes]) -> None:
    """Add items behind those the sequence has, which stay as they are."""
    present = attributes.get(tag_of(keyword))
    added = sequence_element(inner)
    before = present.value if present is not None else b""
    attributes[tag_of(keyword)] = Element("SQ", before + added.value)


def drop(attributes: Attributes, keywords: Iterable[str]) -> None:
    """Remove attributes that are there."""
    for keyword in keywords:
        attributes.pop(tag_of(keyword), None)


def value_of(attributes: Attributes, keyword: str) -> bytes | None:
    """Return the bytes of an attribute, or None."""
    found = attributes.get(tag_of(keyword))
    return found.value if found is not None else None


def sequence_element(inner: Sequence[Attributes]) -> Element:
    """Encode items with their lengths stated (PS3.5 7.5.2)."""
    parts = []
    for attributes in inner:
        body = encode(attributes)
        parts.append(_ITEM + struct.pack("<L", len(body)) + body)
    return Element("SQ", b"".join(parts))


def encode(attributes: Attributes) -> bytes:
    """Return the data set in Explicit VR Little Endian, elements in ascending order."""
    parts: list[bytes] = []
    for tag in sorted(attributes):
        element = attributes[tag]
        vr = element.vr.encode("ascii")
        head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
        if element.vr in _LONG_LENGTH_VRS:
            head += struct.pack("<HL", 0, len(element.value))
        else:
            head += struct.pack("<H", len(element.value))
        parts += (head, element.value)
    return b"".join(parts)


def encode_file(attributes: Attributes, meta: Attributes) -> bytes:
    """Return a Part 10 file: preamble, file meta information with its length, data set (PS3.10 7.1)."""
    group = encode(meta)
    length = encode({0x00020000: Element("UL", struct.pack("<L", len(group)))})
    return b"".join((b"\0" * 128, b"DICM", length, group, encode(attributes)))
