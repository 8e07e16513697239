"""What stands on either side of a verification: files, parsed slices, neighbours, volumes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dicom_node.errors import HoldSeriesError, SkipSeriesError
from dicom_node.imaging.assembly import AssemblyPolicy, assemble
from dicom_node.imaging.elements import quiet
from dicom_node.imaging.headers import InstanceHeader, header_of
from dicom_node.imaging.parsing import read_instance
from dicom_node.imaging.verify_model import Pair, Slice


def files_of(where: Path | Sequence[Path]) -> list[Path]:
    """The files of a folder at any depth, or the files themselves."""
    if isinstance(where, Path):
        return sorted(path for path in where.rglob("*") if path.is_file())
    return list(where)


def read_slice(path: Path) -> Slice:
    """Parse one file up to its pixels."""
    ds, place = read_instance(path)
    with quiet():
        meta = ds.file_meta
        return Slice(
            header=header_of(ds),
            dataset=ds,
            place=place,
            meta_class_uid=str(meta.get("MediaStorageSOPClassUID", "")),
            meta_instance_uid=str(meta.get("MediaStorageSOPInstanceUID", "")),
        )


def other_series(found: Sequence[tuple[Path, Slice]], homes: set[str]) -> tuple[InstanceHeader, ...]:
    """Other series of the same study beside the source."""
    studies = {p.header.study_instance_uid for _, p in found if p.header.series_instance_uid in homes}
    return tuple(
        p.header
        for _, p in found
        if p.header.series_instance_uid not in homes and p.header.study_instance_uid in studies
    )


def by_volume(pairs: Sequence[Pair]) -> tuple[tuple[Pair, ...], ...]:
    """The pairs by the volume of the source they belong to; all in one where the source is none."""
    if not pairs:
        return ()
    try:
        plan = assemble(
            [pair.source.header for pair in pairs], AssemblyPolicy(minimum_slices=2, released=True)
        )
    except (SkipSeriesError, HoldSeriesError):
        return (tuple(pairs),)
    found = [tuple(pairs[index] for index in volume.members) for volume in plan.volumes]
    known = {pair.number for volume in found for pair in volume}
    return (*found, *((pair,) for pair in pairs if pair.number not in known))
