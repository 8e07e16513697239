"""Enhanced multi-frame objects to volumes: every frame is a slice with a geometry and a rescale of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset
from pydicom.pixels.decoders.base import get_decoder

from dicom_node.errors import Reason, SkipSeriesError, UnreadableInstanceError
from dicom_node.imaging.assembly import AssemblyPolicy, assemble
from dicom_node.imaging.elements import quiet, stored, tag_of, text
from dicom_node.imaging.eligibility import check_series
from dicom_node.imaging.multiframe import dimensions_of, frame_header, frames_of
from dicom_node.imaging.parsing import read_dataset, transfer_syntax
from dicom_node.imaging.pixels import (
    Cells,
    PixelFormat,
    UndecodablePixelsError,
    decoder_options,
    padding_of,
    pixel_view,
)
from dicom_node.imaging.series_reader import SourceSeries, SourceSlice, fill_volume, rescale_of

_LONGEST_VALUE = 0xFFFFFFFE  # bytes of native pixel data, PS3.5 7.1.1


def read_enhanced_series(paths: Sequence[Path], policy: AssemblyPolicy | None = None) -> SourceSeries:
    """Read the Enhanced objects of one series and assemble the volumes of their frames.

    Every frame belongs to a volume, or the series is not taken: a derived object has the frames of its
    source, and one that was not enhanced must not say that it was. Raises what `read_series` raises.
    """
    read = [pair for path in paths for pair in _read_object(path)]
    headers = [source.header for source, _ in read]
    if policy is None:
        plan = assemble(headers, AssemblyPolicy(minimum_slices=2, odd_slices="refuse"))
    else:
        plan = check_series(headers, replace(policy, odd_slices="refuse"))
    volumes = tuple(fill_volume(planned, read) for planned in plan.volumes)
    return SourceSeries(volumes, plan.evidence)


def _read_object(path: Path) -> Iterator[tuple[SourceSlice, Cells]]:
    """The frames of one object with their pixels."""
    ds = read_dataset(path, pixels=True)
    encoded = stored(ds, "PixelData")
    uid = text(ds, "SOPInstanceUID")
    if not encoded:
        raise UnreadableInstanceError(f"No pixel data in SOP instance {uid}.")
    flats, dimensions = frames_of(ds), dimensions_of(ds)
    headers = [frame_header(flat, dimensions) for flat in flats]
    layout = headers[0].pixels
    if not layout.is_supported:
        raise SkipSeriesError(Reason.UNSUPPORTED_PIXELS, f"SOP instance {uid}.")
    native = len(flats) * layout.rows * layout.columns * 2
    if native > _LONGEST_VALUE:
        raise SkipSeriesError(Reason.TOO_LARGE, f"{native} bytes of pixels in one object.")
    cells = read_frames(ds, layout, count=len(flats))
    del ds[tag_of("PixelData")]
    for number, (flat, header, frame) in enumerate(zip(flats, headers, cells, strict=True), 1):
        slope, intercept = rescale_of(header)
        source = SourceSlice(
            path=path,
            header=header,
            dataset=flat,
            layout=layout,
            slope=slope,
            intercept=intercept,
            padding=padding_of(flat, layout),
            padding_cells=None,
            native_share=native / len(encoded),
            frame=number,
        )
        yield source, frame


def read_frames(ds: FileDataset, layout: PixelFormat, *, count: int) -> tuple[Cells, ...]:
    """Decode every frame, (rows, columns) each, native byte order. Raises `UndecodablePixelsError`."""
    view = pixel_view(ds)
    frames: list[Cells] = []
    try:
        with quiet():
            syntax = transfer_syntax(ds)
            for array, _ in get_decoder(syntax).iter_array(view, **decoder_options(syntax)):
                if (
                    array.shape != (layout.rows, layout.columns)
                    or array.dtype.itemsize != 2
                    or len(frames) == count
                ):
                    raise UndecodablePixelsError(
                        "The decoded frames have another shape than the header states."
                    )
                native = array.astype(array.dtype.newbyteorder("="), copy=False)
                frames.append(np.ascontiguousarray(native).view(np.uint16))
    except UndecodablePixelsError:
        raise
    except Exception as exc:
        # Decoder plug-ins raise whatever their libraries raise; the text may quote header values.
        raise UndecodablePixelsError(f"The decoder failed ({type(exc).__name__}).") from None
    if len(frames) != count:
        raise UndecodablePixelsError(f"{len(frames)} frames of pixels for {count}.")
    return tuple(frames)
