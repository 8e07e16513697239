"""Uncertainty and quality as DICOM objects of their own, beside the derived series and linked to both series.

A Parametric Map (PS3.3 A.75) holds the standard deviation of each enhanced value, a Comprehensive SR on TID
1500 (PS3.16) what was measured. highdicom builds them from stand-ins that carry nobody's name; patient and
study are then copied from the source byte for byte, whatever their character set.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset

from dicom_node.errors import Reason
from dicom_node.imaging.derivation import EXPLICIT_VR_LITTLE_ENDIAN, file_meta
from dicom_node.imaging.derived_writer import DerivedInstance
from dicom_node.imaging.elements import integer, quiet, tag_of
from dicom_node.imaging.encoding import Attributes, copy_standard, encode_file, put_text, value_of
from dicom_node.imaging.parsing import read_dataset
from dicom_node.imaging.provenance import DerivationPolicy, Provenance
from dicom_node.imaging.series_reader import SourceSeries
from dicom_node.imaging.synced_files import sync_directory, told_apart, write_synced
from dicom_node.imaging.uids import UidPlan
from engine.volume import Volume

_IDENTITY: Final = (
    "SpecificCharacterSet",
    "TimezoneOffsetFromUTC",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "ReferringPhysicianName",
    "StudyDescription",
    "StudyInstanceUID",
    "StudyID",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
)
"""What a companion shares with the source beside the whole of group 0010."""


@dataclass(frozen=True)
class VolumeFigures:
    """What was measured on one volume.

    noise_before, noise_after   standard deviations, in the unit of the volume
    """

    label: str
    noise_before: float
    noise_after: float


@dataclass(frozen=True, eq=False)
class CompanionWork:
    """Everything companions are made from.

    uncertainty  one volume for each of `source.volumes`, or None where none was estimated
    derived      the derived instances, in the order of `source.slices` (one per object for Enhanced objects)
    """

    source: SourceSeries
    derived: tuple[DerivedInstance, ...]
    uncertainty: tuple[Volume | None, ...]
    figures: tuple[VolumeFigures, ...]
    provenance: Provenance
    policy: DerivationPolicy
    uids: UidPlan
    directory: Path
    taken_series_numbers: frozenset[int]


@dataclass(frozen=True)
class Companions:
    """What was written, and the reason for what was not, by name."""

    instances: tuple[DerivedInstance, ...]
    notes: dict[str, str]


@dataclass(frozen=True)
class CompanionSeries:
    """The series a companion goes into."""

    kind: str
    series_uid: str
    series_number: int

    @classmethod
    def of(cls, work: CompanionWork, kind: str, taken: set[int]) -> CompanionSeries:
        """Return the series of a kind; its number is the next one free behind that of the derived series."""
        own = integer(read_dataset(work.derived[0].path, pixels=False), "SeriesNumber") or 0
        wanted = own + 1
        while wanted in taken:
            wanted += 1
        return cls(kind, work.uids.companion_series_uid(kind), wanted)


def write_companions(work: CompanionWork, *, uncertainty_map: bool, quality_report: bool) -> Companions:
    """Write what was asked for into the directory of the derived series, synced.

    A companion that cannot be made costs the derived series nothing: the notes say why. Raises `DeriveError`
    when the disk fails.
    """
    from dicom_node.imaging.companion_objects import parametric_maps, quality_reports

    asked: list[tuple[str, Callable[[CompanionWork, CompanionSeries], list[Dataset]]]] = []
    notes: dict[str, str] = {}
    if uncertainty_map and None in work.uncertainty:
        notes["uncertainty_map"] = str(Reason.NO_UNCERTAINTY)
    elif uncertainty_map:
        asked.append(("uncertainty_map", parametric_maps))
    if quality_report:
        asked.append(("quality_report", quality_reports))
    written: list[DerivedInstance] = []
    taken = set(work.taken_series_numbers)
    for kind, build in asked:
        frame = CompanionSeries.of(work, kind, taken)
        taken.add(frame.series_number)
        try:
            with quiet():
                made = [_finished(ds, work) for ds in build(work, frame)]
        except Exception as exc:
            # highdicom refuses values that many archives hold; the text of its errors may quote them.
            notes[kind] = f"{Reason.COMPANION_FAILED} ({type(exc).__name__})"
            continue
        written += _keep(made, work, first=len(work.derived) + len(written))
    return Companions(tuple(written), notes)


def stand_ins(paths: Sequence[Path]) -> list[FileDataset]:
    """Return parsed headers in which nobody is named, for libraries that judge names and dates."""
    found = []
    for path in paths:
        ds = read_dataset(path, pixels=False)
        for tag in [int(key) for key in ds.keys()]:  # noqa: SIM118 - iterating a Dataset converts it
            if tag >> 16 in (0x0010, 0x0012, 0x0032, 0x0040):
                del ds[tag]
        for keyword in _IDENTITY:
            if keyword != "StudyInstanceUID":
                ds.pop(keyword, None)
        ds.PatientName = ds.PatientID = "NOBODY"
        ds.PatientBirthDate = ds.PatientSex = ""
        ds.StudyDate = ds.StudyTime = ds.AccessionNumber = ds.ReferringPhysicianName = ds.StudyID = ""
        found.append(ds)
    return found


def _finished(ds: Dataset, work: CompanionWork) -> Attributes:
    """The object as bytes, with the patient and the study of the source in place of the stand-in's."""
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    parsed: Any = dcmread(io.BytesIO(buffer.getvalue()))
    attributes = copy_standard(parsed, signed=False)
    source = copy_standard(work.source.slices[0].dataset, signed=False)
    shared = {tag_of(keyword) for keyword in _IDENTITY}
    for tag in [tag for tag in attributes if tag >> 16 == 0x0010 and tag not in source]:
        put_back = attributes[tag]
        attributes[tag] = type(put_back)(put_back.vr, b"")
    attributes |= {tag: value for tag, value in source.items() if tag >> 16 == 0x0010 or tag in shared}
    if tag_of("SpecificCharacterSet") not in source:
        attributes.pop(tag_of("SpecificCharacterSet"), None)
    if value_of(attributes, "Modality") != b"SR":
        _set_body_part(attributes, source)
    return attributes


def _set_body_part(attributes: Attributes, source: Attributes) -> None:
    """The body part of the source; an unknown one might be paired, and then the side has to be said."""
    body_part = value_of(source, "BodyPartExamined")
    if body_part and body_part.strip(b" \0"):
        attributes[tag_of("BodyPartExamined")] = source[tag_of("BodyPartExamined")]
    else:
        put_text(attributes, "Laterality", "")


def _keep(objects: Sequence[Attributes], work: CompanionWork, *, first: int) -> list[DerivedInstance]:
    """Write finished objects behind the derived ones."""
    written: list[DerivedInstance] = []
    with told_apart():
        for attributes in objects:
            content = encode_file(attributes, file_meta(attributes))
            position = first + len(written)
            path = work.directory / f"{position + 1:05d}.dcm"
            write_synced(path, content)
            written.append(
                DerivedInstance(
                    path=path,
                    sop_class_uid=_uid(attributes, "SOPClassUID"),
                    sop_instance_uid=_uid(attributes, "SOPInstanceUID"),
                    series_instance_uid=_uid(attributes, "SeriesInstanceUID"),
                    transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
                    digest=hashlib.sha256(content).hexdigest(),
                    size=len(content),
                    position=position,
                )
            )
        sync_directory(work.directory)
    return written


def _uid(attributes: Attributes, keyword: str) -> str:
    return (value_of(attributes, keyword) or b"").decode("ascii").rstrip("\0 ")
