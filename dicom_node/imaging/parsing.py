"""Opening a stored instance: one place that turns every parser failure into an error safe to log.

A file is parsed once, up to its pixels; where those lie is remembered, so that they can be read, or handed to
a decoder, without parsing again. Deflated data sets are inflated here, to a limit.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.uid import UID

from dicom_node.errors import UnreadableInstanceError
from dicom_node.imaging.elements import quiet

INFLATED_AT_MOST: Final = 512 << 20
"""Bytes a deflated data set may inflate to."""
_DEFLATED: Final = b"1.2.840.10008.1.2.1.99"
_PLAIN: Final = b"1.2.840.10008.1.2.1\0\0\0"
_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
_IMPLICIT: Final = "1.2.840.10008.1.2"
_META_ENDS_WITHIN: Final = 2048
_PRIVATE_BULK: Final = 1 << 16
"""Bytes from which a private value is not kept in memory; b-values and directions take a few."""
_PIXEL_DATA: Final = (0x7FE0, 0x0010)
_UNDEFINED: Final = 0xFFFFFFFF
_LONG_VRS: Final = (b"OB", b"OW", b"UN")


@dataclass(frozen=True)
class PixelPlace:
    """Where the pixel data of an instance lie.

    offset, length  of the value in the file; up to the end of the file for encapsulated pixel data
    encapsulated    whether the length was undefined (PS3.5 A.4)
    vr              of the value, empty in Implicit VR
    bare            whether these are the fragments of one frame alone, without an offset table
    swapped         whether the words of the value are big endian
    inflated        the value itself, where the data set was deflated
    """

    path: Path
    offset: int
    length: int
    encapsulated: bool
    vr: str = ""
    swapped: bool = False
    bare: bool = False
    inflated: bytes | None = field(default=None, repr=False)

    def read(self) -> bytes:
        """Return the stored bytes of the value; raises `UnreadableInstanceError`."""
        if self.inflated is not None:
            return self.inflated
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                return file.read(self.length)
        except OSError as exc:
            raise UnreadableInstanceError(f"The file cannot be read ({type(exc).__name__}).") from exc


def read_dataset(path: Path, *, pixels: bool) -> FileDataset:
    """Parse a Part 10 file without converting its values; without `pixels` stop before the pixel data.

    Raises `UnreadableInstanceError`, which names the kind of failure and never a value: the parser's own
    messages may quote one.
    """
    return _parse(path, pixels=pixels)[0]


def read_instance(path: Path) -> tuple[FileDataset, PixelPlace | None]:
    """Parse a Part 10 file up to its pixels and say where they lie, None where there are none.

    Raises `UnreadableInstanceError`, as `read_dataset` does.
    """
    return _parse(path, pixels=False)


def _parse(path: Path, *, pixels: bool) -> tuple[FileDataset, PixelPlace | None]:
    """Parse one file; the place of its pixels is looked for only where they are not parsed."""
    try:
        with quiet(), path.open("rb") as file:
            deflated = _DEFLATED in file.read(_META_ENDS_WITHIN)
            file.seek(0)
            source: BinaryIO = BytesIO(_inflated(file.read())) if deflated else file
            ds = dcmread(source, stop_before_pixels=not pixels)
            _drop_private_bulk(ds)
            syntax = str(ds.file_meta.TransferSyntaxUID)
            place = None if pixels else _pixel_place(source, path, syntax, deflated=deflated)
            if deflated:
                ds.file_meta.TransferSyntaxUID = UID(_DEFLATED.decode())
    except UnreadableInstanceError:
        raise
    except OSError as exc:
        raise UnreadableInstanceError(f"The file cannot be read ({type(exc).__name__}).") from exc
    except Exception as exc:
        # A damaged file makes the parser raise whatever it stumbles over; the text stays out (no `from`).
        raise UnreadableInstanceError(f"The parser failed ({type(exc).__name__}).") from None
    if not syntax or len(ds) == 0:
        raise UnreadableInstanceError("The data set is empty or names no transfer syntax.")
    return ds, place


def _drop_private_bulk(ds: FileDataset) -> None:
    """Forget large private values: derived objects carry none, and a series of them would fill the memory."""
    for tag in [
        key for key, element in ds._dict.items() if key.is_private and _size(element) > _PRIVATE_BULK
    ]:
        del ds._dict[tag]


def _size(element: object) -> int:
    """Bytes of an element as parsed, 0 of a sequence."""
    value = getattr(element, "value", None)
    return len(value) if isinstance(value, bytes) else 0


def transfer_syntax(ds: FileDataset) -> str:
    """Return the transfer syntax the file declares."""
    return str(ds.file_meta.TransferSyntaxUID)


def _inflated(content: bytes) -> bytes:
    """The file with its data set inflated and declared plain (PS3.5 A.5), at most `INFLATED_AT_MOST` bytes."""
    if content[128:136] != b"DICM\x02\x00\x00\x00" or len(content) < 144:
        raise UnreadableInstanceError("The file meta information states no length.")
    end = 144 + int(struct.unpack("<L", content[140:144])[0])
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    body = stream.decompress(content[end:], INFLATED_AT_MOST)
    if not stream.eof:
        short = "is cut off" if len(body) < INFLATED_AT_MOST else "inflates to more than is accepted"
        raise UnreadableInstanceError(f"The deflated data set {short}.")
    return content[:end].replace(_DEFLATED, _PLAIN) + body


def _pixel_place(source: BinaryIO, path: Path, syntax: str, *, deflated: bool) -> PixelPlace | None:
    """Read the head of the element the parser stopped at (PS3.5 7.1)."""
    head = source.read(12)
    order = ">" if syntax == _BIG_ENDIAN else "<"
    if len(head) < 8 or struct.unpack(order + "HH", head[:4]) != _PIXEL_DATA:
        return None
    if syntax == _IMPLICIT:
        size, (length,) = 8, struct.unpack("<L", head[4:8])
    elif head[4:6] in _LONG_VRS:
        size, (length,) = 12, struct.unpack(order + "L", head[8:12])
    else:
        return None
    offset = source.tell() - len(head) + size
    vr = "" if size == 8 else head[4:6].decode("ascii")
    encapsulated = length == _UNDEFINED
    left = source.seek(0, 2) - offset
    if deflated:
        source.seek(offset)
        content = source.read(min(length, left))
        return PixelPlace(path, offset, len(content), encapsulated, vr, inflated=content)
    swapped = syntax == _BIG_ENDIAN and head[4:6] == b"OW"
    return PixelPlace(
        path, offset, left if encapsulated else min(length, left), encapsulated, vr, swapped=swapped
    )
