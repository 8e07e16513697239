"""Stored slices to a volume: sorted by position, rescaled slice by slice, padding remembered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset

from dicom_node.errors import Reason, SkipSeriesError, UnreadableInstanceError
from dicom_node.imaging.assembly import AssemblyPolicy, PlannedVolume, assemble
from dicom_node.imaging.elements import stored, tag_of
from dicom_node.imaging.eligibility import check_series
from dicom_node.imaging.evidence import Evidence, LeftOut
from dicom_node.imaging.headers import InstanceHeader, header_of
from dicom_node.imaging.parsing import read_dataset
from dicom_node.imaging.pixels import (
    Cells,
    Mask,
    Padding,
    PixelFormat,
    UndecodablePixelsError,
    padding_of,
    read_cells,
)
from dicom_node.imaging.source_rules import CT_IMAGE
from engine.volume import IntensityUnit, Volume


@dataclass(frozen=True, eq=False)
class SourceSlice:
    """One slice of the source, as it will be needed to derive the slice that replaces it.

    dataset        as parsed, without pixel data
    slope, intercept   real = slope * stored + intercept, this slice's own
    padding_cells  the 16-bit cells of the padding pixels in raster order, None when there are none
    native_share   bytes of the decoded pixels per byte in the file (the compression ratio)
    frame          number of the frame in a multi-frame instance, from 1; None in a single-frame one
    """

    path: Path
    header: InstanceHeader
    dataset: FileDataset = field(repr=False)
    layout: PixelFormat
    slope: float
    intercept: float
    padding: Padding | None
    padding_cells: NDArray[np.uint16] | None
    native_share: float
    frame: int | None = None


@dataclass(frozen=True, eq=False)
class SourceVolume:
    """One volume of a series; `slices[i]` is `volume.array[i]`, sorted along the slice normal.

    label  what tells it from the other volumes of its series, ASCII, empty for an only one
    """

    slices: tuple[SourceSlice, ...]
    volume: Volume
    label: str = ""


@dataclass(frozen=True, eq=False)
class SourceSeries:
    """A series as the volumes it holds, in the order they are worked on; what none holds is left out."""

    volumes: tuple[SourceVolume, ...]
    evidence: Evidence

    @property
    def slices(self) -> tuple[SourceSlice, ...]:
        """The slices of all volumes, volume by volume."""
        return tuple(piece for part in self.volumes for piece in part.slices)

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """Instances of the source from which nothing is derived, each with its reason."""
        return self.evidence.left_out

    @property
    def volume(self) -> Volume:
        """The volume of a series that holds one; raises `ValueError` where it holds several."""
        (only,) = self.volumes
        return only.volume

    @property
    def series_instance_uid(self) -> str:
        """The Series Instance UID of the source."""
        return self.volumes[0].slices[0].header.series_instance_uid

    @property
    def study_instance_uid(self) -> str:
        """The Study Instance UID of the source."""
        return self.volumes[0].slices[0].header.study_instance_uid

    @property
    def is_ct(self) -> bool:
        """Whether the slices are CT Images, in Hounsfield units."""
        return self.volumes[0].slices[0].header.sop_class_uid == CT_IMAGE


def read_series(paths: Sequence[Path], policy: AssemblyPolicy | None = None) -> SourceSeries:
    """Read the instances of one series and assemble their volumes.

    With a policy the series is judged as `check_series` does, and what that leaves out is not read. Without
    one only assembly is asked: usable rescale, regular grids of at least two slices. Raises
    `UnreadableInstanceError`, `UndecodablePixelsError`, `SkipSeriesError` or `HoldSeriesError`.
    """
    read = [_read_slice(path) for path in paths]
    if not read:
        raise SkipSeriesError(Reason.TOO_FEW_SLICES, "No instance.")
    headers = [source.header for source, _ in read]
    bare = AssemblyPolicy(minimum_slices=2)
    plan = assemble(headers, bare) if policy is None else check_series(headers, policy)
    return SourceSeries(tuple(fill_volume(planned, read) for planned in plan.volumes), plan.evidence)


def fill_volume(planned: PlannedVolume, read: Sequence[tuple[SourceSlice, Cells]]) -> SourceVolume:
    """Put the pixels of the planned slices into one array."""
    first = read[planned.members[0]][0]
    shape = (len(planned.members), first.layout.rows, first.layout.columns)
    array, valid = np.empty(shape, np.float32), np.ones(shape, np.bool_)
    slices = []
    for position, index in enumerate(planned.members):
        source, cells = read[index]
        array[position] = real_values(cells, source)
        mask = source.padding.mask(cells, source.layout) if source.padding is not None else None
        slices.append(_remember_padding(source, cells, mask))
        if mask is not None:
            valid[position] = ~mask
    unit = IntensityUnit.HU if first.header.sop_class_uid == CT_IMAGE else IntensityUnit.ARBITRARY
    volume = Volume(array, planned.stack.affine, unit, None if valid.all() else valid)
    return SourceVolume(tuple(slices), volume, planned.label)


def real_values(cells: Cells, source: SourceSlice) -> NDArray[np.float32]:
    """Return slope * stored + intercept, computed in double precision; (rows, columns)."""
    stored_values = source.layout.to_stored(cells).astype(np.float64)
    return (stored_values * source.slope + source.intercept).astype(np.float32)


def _read_slice(path: Path) -> tuple[SourceSlice, Cells]:
    """Parse and decode one file, then let go of its pixel data."""
    ds = read_dataset(path, pixels=True)
    header = header_of(ds)
    layout = header.pixels
    if not layout.is_supported or header.number_of_frames > 1:
        raise SkipSeriesError(Reason.UNSUPPORTED_PIXELS, f"SOP instance {header.sop_instance_uid}.")
    encoded = stored(ds, "PixelData")
    if not encoded:
        raise UnreadableInstanceError(f"No pixel data in SOP instance {header.sop_instance_uid}.")
    try:
        cells = read_cells(ds, layout)
    except UndecodablePixelsError as exc:
        raise UndecodablePixelsError(f"SOP instance {header.sop_instance_uid}. {exc.detail}") from exc
    del ds[tag_of("PixelData")]
    slope, intercept = rescale_of(header)
    source = SourceSlice(
        path=path,
        header=header,
        dataset=ds,
        layout=layout,
        slope=slope,
        intercept=intercept,
        padding=padding_of(ds, layout),
        padding_cells=None,
        native_share=cells.nbytes / len(encoded),
    )
    return source, cells


def rescale_of(header: InstanceHeader) -> tuple[float, float]:
    """Slope and intercept, 1 and 0 where an MR slice states neither (PS3.3 C.11.1)."""
    slope, intercept = header.rescale
    if slope is None and intercept is None and header.sop_class_uid != CT_IMAGE:
        return 1.0, 0.0
    if slope is None or intercept is None or not np.isfinite([slope, intercept]).all() or slope == 0:
        raise SkipSeriesError(Reason.BAD_RESCALE, f"SOP instance {header.sop_instance_uid}.")
    return slope, intercept


def _remember_padding(source: SourceSlice, cells: Cells, mask: Mask | None) -> SourceSlice:
    """Keep the padding cells themselves: they return to the file bit by bit."""
    if mask is None or not mask.any():
        return source
    return replace(source, padding_cells=cells[mask])
