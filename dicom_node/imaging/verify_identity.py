"""Assertions 1 to 7 and 27: the right slices, new UIDs, one series, the same study and patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from dicom_node.errors import SkipSeriesError
from dicom_node.imaging.derivation import EXPLICIT_VR_LITTLE_ENDIAN
from dicom_node.imaging.elements import decoded_text, stored
from dicom_node.imaging.geometry import make_stack
from dicom_node.imaging.uids import is_valid_uid
from dicom_node.imaging.verify_model import SeriesPair, Slice, constant, differing

STUDY = (
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "StudyDescription",
    "ReferringPhysicianName",
)
PATIENT = (
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "SpecificCharacterSet",
)


def pairing_is_a_bijection(series: SeriesPair) -> Iterator[str]:
    """1: every source slice has exactly one derived slice."""
    if len(series.derived) != len(series.sources):
        yield f"{len(series.derived)} derived for {len(series.sources)} source slices"
    for number in series.unpaired:
        yield f"slice {number}: its source is not in the series, or another slice's already"


def instances_are_new(series: SeriesPair) -> Iterator[str]:
    """2: SOP Instance UIDs are valid, unique, and neither a source's nor used before."""
    counts = Counter(piece.header.sop_instance_uid for piece in series.derived)
    sources = {piece.header.sop_instance_uid for piece in series.sources}
    for number, piece in enumerate(series.derived, 1):
        uid = piece.header.sop_instance_uid
        if not is_valid_uid(uid):
            yield f"slice {number}: SOPInstanceUID is malformed"
        if counts[uid] > 1:
            yield f"slice {number}: SOPInstanceUID is not unique"
        if uid in sources or uid in series.emitted:
            yield f"slice {number}: SOPInstanceUID is not new"


def series_is_new(series: SeriesPair) -> Iterator[str]:
    """3: one Series Instance UID, and no other series of the study has it."""
    found = {piece.header.series_instance_uid for piece in series.derived}
    if len(found) != 1:
        yield f"{len(found)} Series Instance UIDs"
    taken = {h.series_instance_uid for h in series.others}
    taken |= {piece.header.series_instance_uid for piece in series.sources}
    if found & taken:
        yield "the Series Instance UID belongs to another series of the study"
    if not all(is_valid_uid(uid) for uid in found):
        yield "the Series Instance UID is malformed"


def study_is_kept(series: SeriesPair) -> Iterator[str]:
    """4: the study's attributes are equal byte for byte."""
    yield from differing(series, STUDY)


def patient_is_kept(series: SeriesPair) -> Iterator[str]:
    """5: the patient's attributes are equal byte for byte, and no character was lost to ``?``."""
    yield from differing(series, PATIENT)
    for pair in series.pairs:
        before = (stored(pair.source.dataset, "SeriesDescription") or b"").count(b"?")
        after = (stored(pair.derived.dataset, "SeriesDescription") or b"").count(b"?")
        if after > before:
            yield f"slice {pair.number}: SeriesDescription lost characters"


def class_is_kept(series: SeriesPair) -> Iterator[str]:
    """6: same SOP class and modality; the file meta information agrees with the data set."""
    yield from differing(series, ("SOPClassUID", "Modality"))
    for number, piece in enumerate(series.derived, 1):
        if piece.meta_class_uid != piece.header.sop_class_uid:
            yield f"slice {number}: the file meta names another SOP class"
        if piece.meta_instance_uid != piece.header.sop_instance_uid:
            yield f"slice {number}: the file meta names another SOP instance"
        if piece.header.transfer_syntax_uid != EXPLICIT_VR_LITTLE_ENDIAN:
            yield f"slice {number}: not Explicit VR Little Endian"


def series_is_named(series: SeriesPair) -> Iterator[str]:
    """7: one free SeriesNumber of at least 1, one description of at most 64 characters with our suffix."""
    yield from constant(series, ("SeriesNumber", "SeriesDescription"))
    taken = {h.series_number for h in series.others} | {s.header.series_number for s in series.sources}
    policy = series.policy
    for number, piece in enumerate(series.derived, 1):
        series_number = piece.header.series_number
        if series_number is None or series_number < 1:
            yield f"slice {number}: SeriesNumber is not a positive number"
        elif series_number in taken:
            yield f"slice {number}: SeriesNumber belongs to another series"
        described = decoded_text(piece.dataset, "SeriesDescription")
        if not described.endswith((policy.description_suffix, policy.lone_description)):
            yield f"slice {number}: SeriesDescription does not end with the suffix"
        if len(described) > 64:
            yield f"slice {number}: SeriesDescription is longer than 64 characters"


def order_is_kept(series: SeriesPair) -> Iterator[str]:
    """27: InstanceNumbers as in the source, or 1 to N where the source's cannot be used; same order."""
    if all(_are_unique([pair.source.header.instance_number for pair in volume]) for volume in series.volumes):
        yield from differing(series, ("InstanceNumber",))
    taken = {pair.derived.header.instance_number for pair in series.pairs}
    if any(series.derived[number - 1].header.instance_number in taken for number in series.unpaired):
        yield "InstanceNumbers are not unique"
    for volume in series.volumes:
        if not _are_unique([pair.derived.header.instance_number for pair in volume]):
            yield "InstanceNumbers are missing or not unique"
        if len(volume) < 2:
            continue
        if _order([pair.source for pair in volume]) != _order([pair.derived for pair in volume]):
            yield "the slices lie in another order than their sources"


def _are_unique(numbers: list[int | None]) -> bool:
    """Whether every slice of a volume has a number of its own."""
    return None not in numbers and len(set(numbers)) == len(numbers)


def _order(pieces: list[Slice]) -> tuple[int, ...] | None:
    """Order along the common normal, None where there is none."""
    try:
        return make_stack([piece.header for piece in pieces]).order
    except SkipSeriesError:
        return None
