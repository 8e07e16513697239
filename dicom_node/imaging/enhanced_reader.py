"""Enhanced multi-frame objects to volumes: every frame is a slice with a geometry and a rescale of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from dicom_node.errors import Reason, SkipSeriesError, UnreadableInstanceError
from dicom_node.imaging.assembly import AssemblyPolicy, assemble
from dicom_node.imaging.decoders import Decoders, Frame
from dicom_node.imaging.elements import text
from dicom_node.imaging.eligibility import check_series
from dicom_node.imaging.fragments import frame_places
from dicom_node.imaging.multiframe import dimensions_of, frame_header, frames_of
from dicom_node.imaging.parsing import PixelPlace, read_instance, transfer_syntax
from dicom_node.imaging.pixels import PixelFormat, padding_of
from dicom_node.imaging.series_reader import (
    SourceSeries,
    SourceSlice,
    fill_volume,
    require_free_values,
    require_room,
    rescale_of,
)

_LONGEST_VALUE = 0xFFFFFFFE  # bytes of native pixel data, PS3.5 7.1.1


def read_enhanced_series(
    paths: Sequence[Path], policy: AssemblyPolicy | None = None, *, decoders: Decoders | None = None
) -> SourceSeries:
    """Read the Enhanced objects of one series and assemble the volumes of their frames.

    Every frame belongs to a volume, or the series is not taken: a derived object has the frames of its
    source, and one that was not enhanced must not say that it was. Pixels go straight into their volume.
    Raises what `read_series` raises.
    """
    read = [pair for path in paths for pair in _read_object(path)]
    headers = [source.header for source, _ in read]
    if policy is None:
        policy = AssemblyPolicy(minimum_slices=2, odd_slices="refuse")
        plan = assemble(headers, policy)
    else:
        plan = check_series(headers, replace(policy, odd_slices="refuse"))
    with ExitStack() as stack:
        pool = decoders if decoders is not None else stack.enter_context(Decoders())
        require_room([read[index][1] for part in plan.volumes for index in part.members], policy)
        volumes = []
        for planned in plan.volumes:
            chosen = [read[index] for index in planned.members]
            slices, frames = [source for source, _ in chosen], [frame for _, frame in chosen]
            volumes.append(fill_volume(planned, slices, frames, pool))
    return SourceSeries(tuple(volumes), plan.evidence)


def _read_object(path: Path) -> Iterator[tuple[SourceSlice, Frame]]:
    """The frames of one object, and where their pixels lie."""
    ds, place = read_instance(path)
    uid = text(ds, "SOPInstanceUID")
    if place is None or place.length == 0:
        raise UnreadableInstanceError(f"No pixel data in SOP instance {uid}.")
    flats, dimensions = frames_of(ds), dimensions_of(ds)
    headers = [frame_header(flat, dimensions) for flat in flats]
    layout = headers[0].pixels
    if not layout.is_supported:
        raise SkipSeriesError(Reason.UNSUPPORTED_PIXELS, f"SOP instance {uid}.")
    native = len(flats) * layout.frame_bytes
    if native > _LONGEST_VALUE:
        raise SkipSeriesError(Reason.TOO_LARGE, f"{native} bytes of pixels in one object.")
    frames = object_frames(place, transfer_syntax(ds), layout, count=len(flats), uid=uid)
    for number, (flat, header, frame) in enumerate(zip(flats, headers, frames, strict=True), 1):
        slope, intercept = rescale_of(header)
        padding = padding_of(flat, layout)
        require_free_values(padding, header)
        source = SourceSlice(
            path=path,
            header=header,
            dataset=flat,
            layout=layout,
            slope=slope,
            intercept=intercept,
            padding=padding,
            padding_cells=None,
            native_share=native / place.length if place.encapsulated else 1.0,
            frame=number,
        )
        yield source, frame


def object_frames(
    place: PixelPlace, syntax: str, layout: PixelFormat, *, count: int, uid: str = ""
) -> list[Frame]:
    """Return every frame of an object, to be decoded one by one; raises `UndecodablePixelsError`."""
    return [
        Frame(part, syntax, layout, f"SOP instance {uid}, frame {number}.")
        for number, part in enumerate(frame_places(place, layout, count), 1)
    ]
