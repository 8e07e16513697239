"""Cells, stored values and real values of one slice, and which of them are padding.

cell    the 8 or 16 bits of a pixel as they lie in the file (PS3.5 8.1.1), here always in a uint16
stored  the value in the low BitsStored bits below HighBit, sign-extended when the pixels are signed
real    slope * stored + intercept: Hounsfield units in CT (PS3.3 C.11.1.1.2)
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import get_decoder

from dicom_node.errors import Reason, ReasonedError
from dicom_node.imaging.elements import integer, quiet, text, word
from dicom_node.imaging.parsing import PixelPlace

Cells = NDArray[np.uint16]  # (rows, columns)
Stored = NDArray[np.int16] | NDArray[np.uint16]  # (rows, columns)
Mask = NDArray[np.bool_]  # (rows, columns)

_BIG_ENDIAN = "1.2.840.10008.1.2.2"
_NATIVE = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99", _BIG_ENDIAN})


class UndecodablePixelsError(ReasonedError):
    """The pixel data of a slice is truncated, damaged or in a form no decoder here understands."""

    def __init__(self, detail: str) -> None:
        super().__init__(Reason.DECODE_ERROR, detail)


@dataclass(frozen=True)
class PixelFormat:
    """How the pixels of a slice are laid out (PS3.3 C.7.6.3)."""

    rows: int
    columns: int
    samples: int
    photometric: str = field(repr=False)
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool

    @property
    def is_supported(self) -> bool:
        """Whether the pixels are single-sample greyscale of 8 or 16 bits with their bits where they can be."""
        return (
            self.samples == 1
            and self.photometric in ("MONOCHROME1", "MONOCHROME2")
            and self.bits_allocated in (8, 16)
            and 1 <= self.bits_stored <= self.high_bit + 1 <= self.bits_allocated
            and self.rows > 0
            and self.columns > 0
        )

    @property
    def minimum(self) -> int:
        """Smallest stored value."""
        return -(1 << (self.bits_stored - 1)) if self.signed else 0

    @property
    def maximum(self) -> int:
        """Largest stored value."""
        return (1 << (self.bits_stored - (1 if self.signed else 0))) - 1

    @property
    def _dtype(self) -> type[np.int16] | type[np.uint16]:
        return np.int16 if self.signed else np.uint16

    @property
    def is_whole(self) -> bool:
        """Whether the stored value fills its cell: there is nothing to mask off."""
        return self.bits_stored == self.bits_allocated == 16

    def to_stored(self, cells: Cells) -> Stored:
        """Mask off the bits above HighBit (old overlays live there) and extend the sign."""
        if self.is_whole:
            return self._signed(cells)
        if not self.signed and self.high_bit + 1 == self.bits_stored:
            return cells & np.uint16(self.maximum)
        up, down = 15 - self.high_bit, 16 - self.bits_stored
        shifted = cells << np.uint16(up)
        if self.signed:
            return shifted.view(np.int16) >> np.int16(down)  # arithmetic: extends the sign
        return shifted >> np.uint16(down)

    def to_cells(self, stored: NDArray[np.int32]) -> Cells:
        """Put stored values back below HighBit; the sign fills the bits of the cell above it."""
        lift = self.high_bit + 1 - self.bits_stored
        lifted = (stored.astype(self._dtype) << self._dtype(lift)).view(np.uint16)
        return lifted if self.bits_allocated == 16 else lifted & np.uint16(0xFF)

    def foreign_bits(self, cells: Cells) -> Cells:
        """The bits of the cells that the stored values say nothing about: an overlay drawn into them."""
        return cells ^ self.to_cells(self.to_stored(cells).astype(np.int32))

    def signed_cells(self, cells: Cells) -> Stored:
        """The whole cells as numbers in the sign of the pixels."""
        if self.bits_allocated == 8 and self.signed:
            return cells.astype(np.uint8).view(np.int8).astype(np.int16)
        return self._signed(cells)

    def _signed(self, cells: Cells) -> Stored:
        return cells.view(np.int16) if self.signed else cells

    @property
    def frame_bytes(self) -> int:
        """Length of one uncompressed frame."""
        return self.rows * self.columns * self.bits_allocated // 8


@dataclass(frozen=True)
class Padding:
    """The stored values that mean "nothing was measured here" (PS3.3 C.7.5.1.1.2), both ends included.

    Writers disagree on whether the value is meant below HighBit or as a whole cell, and some pad with a
    value that BitsStored cannot hold; a pixel that matches either way is padding.
    """

    low: int
    high: int

    def mask(self, cells: Cells, layout: PixelFormat) -> Mask:
        """Return which pixels are padding."""
        found = self._holds(layout.signed_cells(cells))
        return found if layout.is_whole else found | self._holds(layout.to_stored(cells))

    def _holds(self, values: Stored) -> Mask:
        if self.low == self.high:
            return np.asarray(values == self.low, np.bool_)
        return (values >= self.low) & (values <= self.high)

    def nearest_outside(self, layout: PixelFormat) -> tuple[int | None, int | None]:
        """The stored values right below and right above the padding, where BitsStored has them."""
        below = self.low - 1 if layout.minimum <= self.low - 1 <= layout.maximum else None
        above = self.high + 1 if layout.minimum <= self.high + 1 <= layout.maximum else None
        return below, above


def pixel_format(ds: Dataset) -> PixelFormat:
    """Read the pixel layout; what is missing becomes zero or empty and is never supported."""
    return PixelFormat(
        rows=integer(ds, "Rows") or 0,
        columns=integer(ds, "Columns") or 0,
        samples=integer(ds, "SamplesPerPixel") or 0,
        photometric=text(ds, "PhotometricInterpretation"),
        bits_allocated=integer(ds, "BitsAllocated") or 0,
        bits_stored=integer(ds, "BitsStored") or 0,
        high_bit=integer(ds, "HighBit") or 0,
        signed=integer(ds, "PixelRepresentation") == 1,
    )


def padding_of(ds: Dataset, layout: PixelFormat) -> Padding | None:
    """Read PixelPaddingValue and its RangeLimit in the sign of the pixels, whatever VR they carry."""
    value = word(ds, "PixelPaddingValue", signed=layout.signed)
    if value is None:
        return None
    limit = word(ds, "PixelPaddingRangeLimit", signed=layout.signed)
    ends = (value, value if limit is None else limit)
    return Padding(min(ends), max(ends))


def can_decode(syntax: str) -> bool:
    """Whether a decoder for the transfer syntax is installed."""
    if syntax in _NATIVE:
        return True
    try:
        with quiet():  # pydicom warns of a syntax that is no UID
            return bool(get_decoder(syntax).is_available)
    except RuntimeError:  # pydicom does not know the syntax at all
        return False


def native_cells(place: PixelPlace, syntax: str, layout: PixelFormat) -> Cells:
    """Read uncompressed pixel data, (rows, columns), native byte order; raises `UndecodablePixelsError`.

    Bytes behind the frame (padding to even length, trailing garbage) are ignored, as PS3.5 8.1.1 readers do.
    """
    if syntax not in _NATIVE:
        raise UndecodablePixelsError("The pixel data are not in the form the transfer syntax asks for.")
    content = place.read()
    if len(content) < layout.frame_bytes:
        raise UndecodablePixelsError(f"{len(content)} of {layout.frame_bytes} bytes of pixel data.")
    shape, count = (layout.rows, layout.columns), layout.rows * layout.columns
    if layout.bits_allocated == 16:
        order = ">u2" if syntax == _BIG_ENDIAN else "<u2"
        return np.frombuffer(content, order, count).reshape(shape).astype(np.uint16, copy=False)
    if place.swapped:  # two pixels in each big endian word
        pairs = np.frombuffer(content, np.uint8, len(content) // 2 * 2).reshape(-1, 2)[:, ::-1]
        return pairs.reshape(-1)[:count].reshape(shape).astype(np.uint16)
    return np.frombuffer(content, np.uint8, count).reshape(shape).astype(np.uint16)
