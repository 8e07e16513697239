"""Values of a data set as they are stored: bytes first, text and numbers on request, never an exception.

pydicom converts an element the first time it is touched, warns with the value in the text when it does not
like it, and keeps the converted form. Here nothing is converted: the bytes are read, the data set stays as
it was parsed, and what cannot be understood is None or empty.
"""

from __future__ import annotations

import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

_NUMBER_FORMATS = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
_WORD_SIZES = {"US": 2, "SS": 2, "OW": 2, "AT": 2, "UL": 4, "SL": 4, "FL": 4, "OF": 4, "OL": 4} | {
    "FD": 8,
    "OD": 8,
    "OV": 8,
    "UV": 8,
    "SV": 8,
}
_WARNINGS_LOCK = threading.RLock()

Canonical = bytes | tuple[tuple[tuple[int, "Canonical"], ...], ...]
"""A value that compares across encodings: little endian bytes, or the items of a sequence."""


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings: pydicom's carry the offending value, which may name a patient.

    One thread at a time, since the filters of the warnings module belong to the whole process.
    """
    with _WARNINGS_LOCK, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@lru_cache(maxsize=1024)
def tag_of(keyword: str) -> int:
    """Return the tag of a keyword of PS3.6; a keyword that is not there is a mistake in the caller.

    In pydicom's own class, which it looks up without converting.
    """
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return BaseTag(tag)


def element_of(ds: Dataset, attribute: str | int) -> RawDataElement | DataElement | None:
    """Return the element as it was parsed, None when it is absent."""
    return ds.get_item(tag_of(attribute) if isinstance(attribute, str) else attribute)


@lru_cache(maxsize=8192)
def dictionary_vr(tag: int) -> str:
    """Return the VR of PS3.6, ``UN`` for a tag it does not list (ambiguous ones read ``US or SS``)."""
    try:
        return str(dictionary_VR(tag))
    except KeyError:
        return "UN"


def is_private(tag: int) -> bool:
    """Whether the tag lies in an odd group (PS3.5 7.8)."""
    return bool((tag >> 16) & 1)


def vr_of(element: RawDataElement | DataElement) -> str:
    """Return the VR as stored, or the dictionary's where the encoding carries none or says UN."""
    stored = element.VR
    return str(stored) if stored is not None and stored != "UN" else dictionary_vr(int(element.tag))


def has(ds: Dataset, keyword: str) -> bool:
    """Whether the attribute is present, empty or not."""
    return element_of(ds, keyword) is not None


def stored(ds: Dataset, attribute: str | int) -> bytes | None:
    """Return the bytes of a value as stored; None when absent, empty when empty or a sequence."""
    element = element_of(ds, attribute)
    return None if element is None else element_bytes(element)


def element_bytes(element: RawDataElement | DataElement) -> bytes:
    """Return the value bytes of an element that is no sequence.

    pydicom parses a few elements while it reads: empty ones and SpecificCharacterSet. Those are plain
    ASCII and written back with the padding of PS3.5 6.2.
    """
    value = element.value
    if isinstance(value, bytes):
        return value
    if isinstance(element, RawDataElement) or element.is_empty or element.VR == "SQ":
        return b""
    parts = [value] if isinstance(value, (str, int, float)) else list(value or ())
    shape = _NUMBER_FORMATS.get(str(element.VR))
    if shape is not None:
        return struct.pack(f"<{len(parts)}{shape}", *parts)
    text = "\\".join(str(part) for part in parts).encode("ascii", "replace")
    return text + b" " * (len(text) % 2)


def little_endian(element: RawDataElement | DataElement) -> bytes:
    """Return the value bytes in little endian order, whatever the order of the file."""
    value = element_bytes(element)
    size = _WORD_SIZES.get(vr_of(element).split(" ")[0], 1)
    if _is_big_endian(element) and size > 1:
        usable = len(value) - len(value) % size
        swapped = b"".join(value[i : i + size][::-1] for i in range(0, usable, size))
        return swapped + value[usable:]
    return value


def _is_big_endian(element: RawDataElement | DataElement) -> bool:
    # A value of VR UN is little endian in every encoding (PS3.5 6.2.2).
    return isinstance(element, RawDataElement) and not element.is_little_endian and element.VR != "UN"


def texts(ds: Dataset, keyword: str) -> tuple[str, ...]:
    """Return the values of a short code string, stripped; bytes that are not ASCII become ``?``."""
    value = stored(ds, keyword)
    if not value:
        return ()
    return tuple(part.strip(" \0") for part in value.decode("ascii", "replace").replace("�", "?").split("\\"))


def text(ds: Dataset, keyword: str) -> str:
    """Return the first value of a short code string or UID, stripped, empty when there is none."""
    return next(iter(texts(ds, keyword)), "")


def decoded_text(ds: Dataset, keyword: str) -> str:
    """Return free text in its own character set; unreadable characters are replaced, never an error."""
    value = stored(ds, keyword)
    if not value:
        return ""
    with quiet():
        try:
            encodings = convert_encodings(list(texts(ds, "SpecificCharacterSet")) or ["ISO_IR 6"])
            return str(decode_bytes(value, encodings, {0x5C, 0x0A, 0x0D, 0x0C, 0x09})).strip(" \0")
        except (LookupError, ValueError):
            return value.decode("ascii", "replace").strip(" \0")


def numbers(ds: Dataset, keyword: str) -> tuple[float, ...] | None:
    """Return all values as numbers; None when absent, empty or when any of them is none."""
    element = element_of(ds, keyword)
    if element is None:
        return None
    value = little_endian(element)
    shape = _NUMBER_FORMATS.get(vr_of(element))
    try:
        if shape is not None:
            size = struct.calcsize("<" + shape)
            parts = struct.unpack(f"<{len(value) // size}{shape}", value[: len(value) // size * size])
            return tuple(float(part) for part in parts) or None
        if b"_" in value:  # which Python takes for a mark between digits
            return None
        return tuple(float(part) for part in value.strip(b" \0").split(b"\\"))
    except (ValueError, struct.error):
        return None


def number(ds: Dataset, keyword: str) -> float | None:
    """Return the first value as a number, or None."""
    found = numbers(ds, keyword)
    return found[0] if found else None


def integer(ds: Dataset, keyword: str) -> int | None:
    """Return the first value as a whole number of at most 32 bits, or None."""
    found = number(ds, keyword)
    return int(found) if found is not None and found.is_integer() and abs(found) < 2**32 else None


def word(ds: Dataset, keyword: str, *, signed: bool) -> int | None:
    """Return a 16-bit value in the sign of the pixels, whatever VR the writer chose (US or SS)."""
    element = element_of(ds, keyword)
    if element is None:
        return None
    value = element_bytes(element)
    if len(value) < 2:
        return None
    order = ">" if _is_big_endian(element) else "<"
    return int(struct.unpack(order + ("h" if signed else "H"), value[:2])[0])


def items(ds: Dataset, attribute: str | int) -> tuple[Dataset, ...]:
    """Return the items of a sequence, none when it is absent or cannot be parsed."""
    tag = tag_of(attribute) if isinstance(attribute, str) else attribute
    if tag not in ds:
        return ()
    with quiet():
        try:
            value = ds[tag].value
            return tuple(value) if ds[tag].VR == "SQ" and value is not None else ()
        except Exception:
            # The parser of a damaged nested data set raises whatever it stumbles over.
            return ()


def canonical(
    ds: Dataset, attribute: str | int, *, without: frozenset[int] = frozenset()
) -> Canonical | None:
    """Return a value in a form that is equal for equal contents in any uncompressed encoding.

    Inside items, private elements, overlays, group lengths and the tags in `without` are left out, as
    derived objects do not carry them.
    """
    tag = tag_of(attribute) if isinstance(attribute, str) else attribute
    element = element_of(ds, tag)
    if element is None:
        return None
    if vr_of(element) != "SQ":
        return little_endian(element)
    return tuple(canonical_item(item, without=without) for item in items(ds, tag))


def canonical_item(
    item: Dataset, *, without: frozenset[int] = frozenset()
) -> tuple[tuple[int, Canonical], ...]:
    """Return a sequence item as sorted (tag, canonical value) pairs without its private elements."""
    with quiet():  # an item of implicit encoding is looked up again, aloud, for tags that no dictionary lists
        return tuple(_canonical_elements(item, without))


def _canonical_elements(item: Dataset, without: frozenset[int]) -> Iterator[tuple[int, Canonical]]:
    """Yield the pairs of `canonical_item`."""
    for tag in sorted(int(key) for key in item.keys()):  # noqa: SIM118 - iterating a Dataset converts it
        if is_private(tag) or tag & 0xFFFF == 0 or tag >> 16 & 0xFF00 == 0x6000 or tag in without:
            continue
        value = canonical(item, tag, without=without)
        if value is not None:
            yield tag, value
