"""Enhanced volume to derived files: back to stored values, slice by slice, and onto the disk for good."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dicom_node.errors import DeriveError, Reason
from dicom_node.imaging.derivation import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    DerivationPolicy,
    Provenance,
    derive_attributes,
    file_meta,
    series_identity,
)
from dicom_node.imaging.encoding import Attributes, encode_file, put_bytes
from dicom_node.imaging.neighbours import series_numbers_of
from dicom_node.imaging.pixels import Cells, PixelFormat
from dicom_node.imaging.series_reader import SourceSeries, SourceSlice, SourceVolume
from dicom_node.imaging.synced_files import sync_directory, told_apart, write_synced
from dicom_node.imaging.uids import UidPlan
from engine.volume import Volume


@dataclass(frozen=True)
class DerivedInstance:
    """One derived file.

    digest    SHA-256 of the whole file
    position  index along the slice normal, the order of delivery
    """

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    digest: str
    size: int
    position: int


def derive_series(
    source: SourceSeries,
    enhanced: Sequence[Volume],
    *,
    provenance: Provenance,
    policy: DerivationPolicy,
    uids: UidPlan,
    directory: Path,
    neighbours: Sequence[Path] = (),
    taken_series_numbers: frozenset[int] = frozenset(),
    parameters: Sequence[Mapping[str, str | int | float | bool]] = (),
) -> tuple[DerivedInstance, ...]:
    """Write one derived instance per source slice into `directory`, synced, volume by volume in slice order.

    enhanced              one volume for each of `source.volumes`
    neighbours            an instance of each other series of the study: their numbers are taken
    taken_series_numbers  further numbers the derived series must not have
    parameters            what was used on each volume, instead of the provenance's parameters

    When this returns, files and directory entries are on stable storage. Raises `DeriveError`:
    INTERNAL_ERROR for a volume of another shape, NO_SPACE when the disk is full, STORAGE_FAILED for any
    other failure to write. What was written until then stays in `directory`, which the caller owns.
    """
    require_same_shapes(source, enhanced)
    identity = series_identity(
        source,
        provenance=provenance,
        policy=policy,
        uids=uids,
        taken_series_numbers=taken_series_numbers | series_numbers_of(neighbours),
    )
    written: list[DerivedInstance] = []
    with told_apart():
        for number, (part, volume) in enumerate(zip(source.volumes, enhanced, strict=True)):
            used = replace(provenance, parameters=parameters[number]) if parameters else provenance
            for index, piece in enumerate(part.slices):
                attributes = derive_attributes(
                    piece, len(written), identity=identity, provenance=used, policy=policy, uids=uids
                )
                cells = to_cells(volume.array[index], piece, padding_mask(part, index))
                if policy.overlays == "keep" and piece.overlay_bits is not None:
                    cells = cells ^ piece.overlay_bits
                put_pixels(attributes, cells, piece.layout)
                content = encode_file(attributes, file_meta(attributes))
                path = directory / f"{len(written) + 1:05d}.dcm"
                write_synced(path, content)
                written.append(_instance(path, content, piece, len(written), uids))
        sync_directory(directory)
    return tuple(written)


def require_same_shapes(source: SourceSeries, enhanced: Sequence[Volume]) -> None:
    """One enhanced volume for each of the source's, of its shape."""
    expected = [part.volume.array.shape for part in source.volumes]
    found = [volume.array.shape for volume in enhanced]
    if expected != found:
        raise DeriveError(Reason.INTERNAL_ERROR, f"Shapes {found} for {expected}.")


def put_pixels(attributes: Attributes, cells: Cells, layout: PixelFormat) -> None:
    """Set the pixel data: words little endian, or bytes (PS3.5 A.2)."""
    if layout.bits_allocated == 8:
        put_bytes(attributes, "PixelData", cells.astype(np.uint8).tobytes(), vr="OB")
    else:
        put_bytes(attributes, "PixelData", cells.astype("<u2", copy=False).tobytes(), vr="OW")


def to_cells(real: NDArray[np.float32], piece: SourceSlice, padding: NDArray[np.bool_] | None) -> Cells:
    """Invert this slice's own rescale; (rows, columns) 16-bit cells.

    Round half to even, clip to BitsStored. Padding pixels return bit by bit; a measured pixel that would
    read as padding moves to the nearest stored value that does not.
    """
    layout = piece.layout
    scaled = (real.astype(np.float64) - piece.intercept) / piece.slope
    rounded = np.clip(np.rint(scaled), layout.minimum, layout.maximum).astype(np.int32)
    cells = layout.to_cells(rounded)
    if piece.padding is None:
        return cells
    fallen = piece.padding.mask(cells, layout)
    if fallen.any():
        moved = _moved_out(scaled[fallen], piece)
        cells[fallen] = layout.to_cells(moved)
    if padding is not None and piece.padding_cells is not None:
        cells[padding] = piece.padding_cells
    return cells


def _moved_out(scaled: NDArray[np.float64], piece: SourceSlice) -> NDArray[np.int32]:
    """The stored value just outside the padding that lies nearer to each value."""
    padding, layout = piece.padding, piece.layout
    if padding is None:
        raise DeriveError(Reason.INTERNAL_ERROR, "No padding to move out of.")
    free = [value for value in padding.nearest_outside(layout) if value is not None]
    if not free:
        raise DeriveError(Reason.INTERNAL_ERROR, "The padding leaves no stored value free.")
    middle = (padding.low + padding.high) / 2
    # A value that rounds onto a single padding value goes back to the side it came from.
    moved = np.full(scaled.shape, free[-1], np.int32)
    moved[scaled < middle] = free[0]
    return moved


def padding_mask(part: SourceVolume, index: int) -> NDArray[np.bool_] | None:
    """Which pixels of the slice are padding, None when none is."""
    return None if part.volume.valid is None else ~part.volume.valid[index]


def _instance(
    path: Path, content: bytes, piece: SourceSlice, position: int, uids: UidPlan
) -> DerivedInstance:
    """Describe a written file."""
    return DerivedInstance(
        path=path,
        sop_class_uid=piece.header.sop_class_uid,
        sop_instance_uid=uids.instance_uid(piece.header.sop_instance_uid),
        series_instance_uid=uids.series_uid,
        transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
        digest=hashlib.sha256(content).hexdigest(),
        size=len(content),
        position=position,
    )
