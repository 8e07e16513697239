"""16-bit cells, stored values and real values of one slice, and which of them are padding.

cell    the 16 bits of a pixel as they lie in the file (PS3.5 8.1.1), here always uint16
stored  the value in the low BitsStored bits below HighBit, sign-extended when the pixels are signed
real    slope * stored + intercept: Hounsfield units in CT (PS3.3 C.11.1.1.2)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset
from pydicom.pixels.decoders.base import get_decoder
from pydicom.tag import BaseTag

from dicom_node.errors import Reason, ReasonedError
from dicom_node.imaging.elements import integer, quiet, tag_of, text, word
from dicom_node.imaging.parsing import transfer_syntax

Cells = NDArray[np.uint16]  # (rows, columns)
Stored = NDArray[np.int16] | NDArray[np.uint16]  # (rows, columns)
Mask = NDArray[np.bool_]  # (rows, columns)

_DECODER_NEEDS = (
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "PixelData",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
)


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
        """Whether the pixels are 16-bit single-sample greyscale with their bits where they can be."""
        return (
            self.samples == 1
            and self.photometric in ("MONOCHROME1", "MONOCHROME2")
            and self.bits_allocated == 16
            and 1 <= self.bits_stored <= self.high_bit + 1 <= 16
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

    def to_stored(self, cells: Cells) -> Stored:
        """Mask off the bits above HighBit (old overlays live there) and extend the sign."""
        up, down = 15 - self.high_bit, 16 - self.bits_stored
        shifted = (cells << np.uint16(up)).view(self._dtype)
        return shifted >> self._dtype(down)  # arithmetic for int16: extends the sign

    def to_cells(self, stored: NDArray[np.int32]) -> Cells:
        """Put stored values back below HighBit; the sign fills the bits above it."""
        lift = self.high_bit + 1 - self.bits_stored
        return (stored.astype(self._dtype) << self._dtype(lift)).view(np.uint16)

    def signed_cells(self, cells: Cells) -> NDArray[np.int32]:
        """The 16 bits of each cell as a number in the sign of the pixels."""
        return cells.view(self._dtype).astype(np.int32)


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
        whole = layout.signed_cells(cells)
        stored = layout.to_stored(cells).astype(np.int32)
        return self._holds(whole) | self._holds(stored)

    def _holds(self, values: NDArray[np.int32]) -> Mask:
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
    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:  # how pydicom says that it does not know the syntax at all
        return False


_STRICT_DECODERS = {
    "1.2.840.10008.1.2.5": "pylibjpeg",
    "1.2.840.10008.1.2.4.80": "pyjpegls",
    "1.2.840.10008.1.2.4.81": "pyjpegls",
}
"""Where one decoder refuses a damaged frame that another fills with garbage, only the strict one is asked."""


def decoder_options(syntax: str) -> dict[str, Any]:
    """Return how pydicom's decoder of a transfer syntax is to be called.

    Unused bits are handled below HighBit by `PixelFormat`, not by shifting to BitsStored.
    """
    strict = _STRICT_DECODERS.get(syntax, "")
    known = strict in get_decoder(syntax).available_plugins
    return {"raw": True, "correct_unused_bits": False, "decoding_plugin": strict if known else ""}


def pixel_view(ds: Dataset) -> Dataset:
    """Return the few elements a decoder needs, so that it converts none of the data set's own."""
    return Dataset(
        {tag: ds.get_item(tag) for keyword in _DECODER_NEEDS if (tag := BaseTag(tag_of(keyword))) in ds}
    )


def read_cells(ds: FileDataset, layout: PixelFormat) -> Cells:
    """Decode the pixel data of one slice, (rows, columns), native byte order.

    Raises `UndecodablePixelsError`; decoders see a copy of the few elements they need, so the data set
    stays as it was parsed.
    """
    view = pixel_view(ds)
    try:
        with quiet():
            syntax = transfer_syntax(ds)
            array, _ = get_decoder(syntax).as_array(view, index=0, **decoder_options(syntax))
    except Exception as exc:
        # Decoder plug-ins raise whatever their libraries raise; the text may quote header values.
        raise UndecodablePixelsError(f"The decoder failed ({type(exc).__name__}).") from None
    if array.shape != (layout.rows, layout.columns) or array.dtype.itemsize != 2:
        raise UndecodablePixelsError("The decoded frame has another shape than the header states.")
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    return np.ascontiguousarray(native).view(np.uint16)
