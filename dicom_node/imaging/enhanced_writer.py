"""Enhanced volumes back to multi-frame objects: every frame returns to its number, and the file to the disk."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dicom_node.errors import DeriveError, Reason
from dicom_node.imaging.derivation import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    DerivationPolicy,
    Provenance,
    file_meta,
    series_identity,
)
from dicom_node.imaging.derived_writer import (
    DerivedInstance,
    padding_mask,
    put_pixels,
    require_same_shapes,
    to_cells,
)
from dicom_node.imaging.elements import text
from dicom_node.imaging.encoding import encode_file
from dicom_node.imaging.enhanced_derivation import derive_enhanced_attributes
from dicom_node.imaging.neighbours import series_numbers_of
from dicom_node.imaging.parsing import read_dataset
from dicom_node.imaging.pixels import Cells
from dicom_node.imaging.series_reader import SourceSeries, SourceSlice
from dicom_node.imaging.synced_files import sync_directory, told_apart, write_synced
from dicom_node.imaging.uids import UidPlan
from engine.volume import Volume

Parameters = Mapping[str, str | int | float | bool]


@dataclass(frozen=True, eq=False)
class _Frame:
    """One frame on its way back: its source, its new pixels, and what was used on its volume."""

    piece: SourceSlice
    cells: Cells
    provenance: Provenance


def derive_enhanced_series(
    source: SourceSeries,
    enhanced: Sequence[Volume],
    *,
    provenance: Provenance,
    policy: DerivationPolicy,
    uids: UidPlan,
    directory: Path,
    neighbours: Sequence[Path] = (),
    taken_series_numbers: frozenset[int] = frozenset(),
    parameters: Sequence[Parameters] = (),
) -> tuple[DerivedInstance, ...]:
    """Write one derived object per source object into `directory`, synced.

    Arguments, guarantees and errors are those of `derive_series`.
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
        for path, frames in _by_object(source, enhanced, provenance, parameters).items():
            ds = read_dataset(path, pixels=False)
            first = frames[0].piece
            attributes = derive_enhanced_attributes(
                ds,
                signed=first.layout.signed,
                native_share=first.native_share,
                identity=identity,
                provenances=[frame.provenance for frame in frames],
                policy=policy,
                uids=uids,
            )
            pixels = np.stack([frame.cells for frame in frames])
            put_pixels(attributes, pixels, first.layout)
            content = encode_file(attributes, file_meta(attributes))
            target = directory / f"{len(written) + 1:05d}.dcm"
            write_synced(target, content)
            written.append(
                DerivedInstance(
                    path=target,
                    sop_class_uid=text(ds, "SOPClassUID"),
                    sop_instance_uid=uids.instance_uid(text(ds, "SOPInstanceUID")),
                    series_instance_uid=uids.series_uid,
                    transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
                    digest=hashlib.sha256(content).hexdigest(),
                    size=len(content),
                    position=len(written),
                )
            )
    sync_directory(directory)
    return tuple(written)


def _by_object(
    source: SourceSeries, enhanced: Sequence[Volume], provenance: Provenance, parameters: Sequence[Parameters]
) -> dict[Path, list[_Frame]]:
    """The frames of each source object in their order; every one of them is there."""
    objects: dict[Path, dict[int, _Frame]] = {}
    for number, (part, volume) in enumerate(zip(source.volumes, enhanced, strict=True)):
        used = replace(provenance, parameters=parameters[number]) if parameters else provenance
        for index, piece in enumerate(part.slices):
            cells = to_cells(volume.array[index], piece, padding_mask(part, index))
            objects.setdefault(piece.path, {})[piece.frame or 0] = _Frame(piece, cells, used)
    for frames in objects.values():
        if sorted(frames) != list(range(1, len(frames) + 1)):
            raise DeriveError(Reason.INTERNAL_ERROR, "A frame belongs to no volume, or to two.")
    return {
        path: [objects[path][number] for number in sorted(objects[path])] for path in source_objects(source)
    }


def source_objects(source: SourceSeries) -> list[Path]:
    """Return the files of a series of Enhanced objects in the order in which derived objects are written."""
    names = {piece.path: piece.header.sop_instance_uid.partition(":")[0] for piece in source.slices}
    return sorted(names, key=lambda path: (names[path], path))
