"""Stored slices to a volume: sorted by position, rescaled slice by slice, padding remembered."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset

from dicom_node.errors import Reason, SkipSeriesError, UnreadableInstanceError
from dicom_node.imaging.assembly import AssemblyPolicy, PlannedVolume, assemble
from dicom_node.imaging.decoders import Decoders, Frame, read_cells, require_bytes
from dicom_node.imaging.elements import stored
from dicom_node.imaging.eligibility import check_series
from dicom_node.imaging.encoding import is_overlay
from dicom_node.imaging.evidence import Evidence, LeftOut
from dicom_node.imaging.headers import InstanceHeader, header_of
from dicom_node.imaging.parsing import PixelPlace, read_instance
from dicom_node.imaging.pixels import (
    Cells,
    Mask,
    Padding,
    PixelFormat,
    padding_of,
)
from dicom_node.imaging.source_rules import CT_IMAGE
from engine.volume import IntensityUnit, Volume

_BIT_POSITION = 0x0102  # OverlayBitPosition, in every overlay group
_EXACT = 2.0**24 - 2.0**16
"""Intercepts up to this keep the sum with a 16-bit number exact in single precision."""


@dataclass(frozen=True, eq=False)
class SourceSlice:
    """One slice of the source, as it will be needed to derive the slice that replaces it.

    dataset        as parsed, without pixel data
    slope, intercept   real = slope * stored + intercept, this slice's own
    padding_cells  the 16-bit cells of the padding pixels in raster order, None when there are none
    native_share   bytes of the decoded pixels per byte in the file (the compression ratio)
    overlay_bits   bits of the cells that belong to an embedded overlay (PS3.5 8.1.2), None where none is declared
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
    overlay_bits: NDArray[np.uint16] | None = None
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


def read_series(
    paths: Sequence[Path], policy: AssemblyPolicy | None = None, *, decoders: Decoders | None = None
) -> SourceSeries:
    """Read the instances of one series and assemble their volumes.

    With a policy the series is judged as `check_series` does, and what that leaves out is not read. Without
    one only assembly is asked: usable rescale, regular grids of at least two slices. Each file is parsed
    once; pixels go straight into their volume, compressed ones by way of `decoders` (processes of its own
    where none are given). Raises `UnreadableInstanceError`, `UndecodablePixelsError`, `SkipSeriesError` or
    `HoldSeriesError`.
    """
    if not paths:
        raise SkipSeriesError(Reason.TOO_FEW_SLICES, "No instance.")
    parsed = [_parse(path) for path in paths]
    headers = [instance.header for instance in parsed]
    bare = AssemblyPolicy(minimum_slices=2)
    plan = assemble(headers, bare) if policy is None else check_series(headers, policy)
    with ExitStack() as stack:
        pool = decoders if decoders is not None else stack.enter_context(Decoders())
        frames = {index: _frame(parsed[index]) for part in plan.volumes for index in part.members}
        require_room(list(frames.values()), policy or bare)
        volumes = []
        for planned in plan.volumes:
            slices = [_source_slice(parsed[index]) for index in planned.members]
            chosen = [frames[index] for index in planned.members]
            volumes.append(fill_volume(planned, slices, chosen, pool))
    return SourceSeries(tuple(volumes), plan.evidence)


@dataclass(frozen=True, eq=False)
class _Parsed:
    """One instance before its pixels are read."""

    path: Path
    header: InstanceHeader
    dataset: FileDataset
    place: PixelPlace | None


def _parse(path: Path) -> _Parsed:
    dataset, place = read_instance(path)
    return _Parsed(path, header_of(dataset), dataset, place)


def _frame(instance: _Parsed) -> Frame:
    """The pixels of a single-frame instance."""
    header, name = instance.header, f"SOP instance {instance.header.sop_instance_uid}."
    if instance.place is None or instance.place.length == 0:
        raise UnreadableInstanceError(f"No pixel data in {name}")
    return Frame(instance.place, header.transfer_syntax_uid, header.pixels, name)


def require_room(frames: Sequence[Frame], policy: AssemblyPolicy) -> None:
    """Refuse frames whose bytes are not there, and more voxels than are taken, before memory is asked for."""
    for frame in frames:
        require_bytes(frame)
    voxels = sum(frame.layout.rows * frame.layout.columns for frame in frames)
    if voxels > policy.most_voxels:
        raise SkipSeriesError(Reason.TOO_LARGE, f"{voxels} voxels of at most {policy.most_voxels}.")


def fill_volume(
    planned: PlannedVolume, slices: list[SourceSlice], frames: Sequence[Frame], decoders: Decoders
) -> SourceVolume:
    """Put the pixels of the planned slices into one array; `frames[i]` holds those of `slices[i]`."""
    shape = (len(slices), slices[0].layout.rows, slices[0].layout.columns)
    array = np.empty(shape, np.float32)
    padded = any(source.padding is not None for source in slices)
    valid = np.ones(shape, np.bool_) if padded else None

    def deliver(position: int, cells: Cells) -> None:
        source = slices[position]
        real_values(cells, source, out=array[position])
        if has_embedded_overlay(source.dataset):
            slices[position] = source = replace(source, overlay_bits=source.layout.foreign_bits(cells))
        if source.padding is not None and valid is not None:
            mask = source.padding.mask(cells, source.layout)
            np.logical_not(mask, out=valid[position])
            slices[position] = _remember_padding(source, cells, mask)

    compressed = {}
    for position, frame in enumerate(frames):
        if frame.place.encapsulated:
            compressed[position] = frame
        else:
            deliver(position, read_cells(frame, decoders))
    decoders.decode_each(compressed, deliver)
    if valid is not None and valid.all():
        valid = None
    unit = IntensityUnit.HU if slices[0].header.sop_class_uid == CT_IMAGE else IntensityUnit.ARBITRARY
    return SourceVolume(tuple(slices), Volume(array, planned.stack.affine, unit, valid), planned.label)


def has_embedded_overlay(ds: Dataset) -> bool:
    """Whether an overlay lies in unused bits of the pixels: a position other than 0 (PS3.3 C.9.2.1.2)."""
    positions = [tag for tag in ds.keys() if is_overlay(tag) and tag & 0xFFFF == _BIT_POSITION]  # noqa: SIM118
    return any((stored(ds, tag) or b"").strip(b"\0") for tag in positions)


def real_values(
    cells: Cells, source: SourceSlice, *, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Return slope * stored + intercept, as computed in double precision; (rows, columns).

    Whole numbers below 2^24 are exact in single precision, so the usual slope of 1 needs no double.
    """
    stored_values = source.layout.to_stored(cells)
    slope, intercept = source.slope, source.intercept
    result = np.empty(cells.shape, np.float32) if out is None else out
    if slope == 1.0 and intercept.is_integer() and abs(intercept) < _EXACT:
        np.add(stored_values, np.float32(intercept), out=result, dtype=np.float32)
    else:
        scaled = np.multiply(stored_values, slope, dtype=np.float64)
        scaled += intercept
        result[...] = scaled
    return result


def _source_slice(instance: _Parsed) -> SourceSlice:
    """What will be needed to derive the slice, before its pixels are looked at."""
    header, place = instance.header, instance.place
    layout = header.pixels
    if not layout.is_supported or header.number_of_frames > 1:
        raise SkipSeriesError(Reason.UNSUPPORTED_PIXELS, f"SOP instance {header.sop_instance_uid}.")
    slope, intercept = rescale_of(header)
    padding = padding_of(instance.dataset, layout)
    require_free_values(padding, header)
    encoded = place.length if place is not None and place.encapsulated else layout.frame_bytes
    return SourceSlice(
        path=instance.path,
        header=header,
        dataset=instance.dataset,
        layout=layout,
        slope=slope,
        intercept=intercept,
        padding=padding,
        padding_cells=None,
        native_share=layout.frame_bytes / max(encoded, 1),
    )


def require_free_values(padding: Padding | None, header: InstanceHeader) -> None:
    """Refuse padding that takes every stored value: nothing could be written that is none."""
    if padding is not None and padding.nearest_outside(header.pixels) == (None, None):
        detail = f"The padding takes every value. SOP instance {header.sop_instance_uid}."
        raise SkipSeriesError(Reason.UNSUPPORTED_PIXELS, detail)


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
