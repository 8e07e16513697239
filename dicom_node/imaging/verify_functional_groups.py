"""What assertions 8, 14, 19 to 22 and 28 mean where functional groups say it (PS3.3 C.7.6.16)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydicom.dataset import Dataset

from dicom_node.imaging.codes import SMOOTHING, SOURCE_IMAGE, SOURCE_SERIES, concept_of
from dicom_node.imaging.derivation import REMOVED
from dicom_node.imaging.elements import (
    Canonical,
    canonical,
    canonical_item,
    integer,
    is_private,
    items,
    stored,
    tag_of,
    text,
    texts,
)
from dicom_node.imaging.multiframe import ENHANCED_CT, FRAME_TYPES, PER_FRAME, SHARED
from dicom_node.imaging.verify_model import Pair, SeriesPair, differing

_STATEMENT = re.compile(rb"\S+ \S+ sha256:[0-9a-f]{12} strength=")
_DERIVATION = "DerivationImageSequence"
_CODE_STRING = re.compile(r"[A-Z0-9 _]{0,16}")


def source_uid(ds: Dataset) -> str:
    """Return the SOP instance that the first frame names last as its source."""
    for group in items(ds, PER_FRAME)[:1]:
        for item in items(group, _DERIVATION)[-1:]:
            for image in items(item, "SourceImageSequence")[:1]:
                return text(image, "ReferencedSOPInstanceUID")
    return ""


def types_say_derived(objects: SeriesPair) -> Iterator[str]:
    """8: DERIVED, PRIMARY, the source's third value, FILTERED in CT; in the object and in every frame."""
    for pair in objects.pairs:
        is_ct = pair.source.header.sop_class_uid == ENHANCED_CT
        for number, (before, after) in enumerate(_types(pair)):
            where = f"object {pair.number}" + (f", frame type {number}" if number else "")
            if after[:2] != ("DERIVED", "PRIMARY"):
                yield f"{where}: not DERIVED and PRIMARY"
            kind = before[2] if len(before) > 2 and before[2] else ("VOLUME" if is_ct else "OTHER")
            contrast = "FILTERED" if is_ct else (before[3] if len(before) > 3 and before[3] else "NONE")
            if after[2:4] != (kind, contrast):
                yield f"{where}: values 3 and 4 are not the source's"
            if not all(_CODE_STRING.fullmatch(value) for value in after):
                yield f"{where}: holds a value that is no code string"


def _types(pair: Pair) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """ImageType of the object, then every FrameType, source and derived."""
    yield texts(pair.source.dataset, "ImageType"), texts(pair.derived.dataset, "ImageType")
    for before, after in _groups(pair):
        for keyword in FRAME_TYPES:
            for one, other in zip(items(before, keyword), items(after, keyword), strict=True):
                yield texts(one, "FrameType"), texts(other, "FrameType")


def _groups(pair: Pair) -> Iterator[tuple[Dataset, Dataset]]:
    """Shared groups, then those of each frame."""
    for keyword in (SHARED, PER_FRAME):
        yield from zip(items(pair.source.dataset, keyword), items(pair.derived.dataset, keyword), strict=True)


def rescale_is_kept(frames: SeriesPair) -> Iterator[str]:
    """14: slope, intercept and type are each frame's own."""
    yield from differing(frames, ("RescaleSlope", "RescaleIntercept", "RescaleType"))


def derivation_is_described(objects: SeriesPair) -> Iterator[str]:
    """19: every frame says in ASCII what was done, behind what the source said."""
    for pair in objects.pairs:
        shared = [
            canonical_item(i) for g in items(pair.source.dataset, SHARED) for i in items(g, _DERIVATION)
        ]
        frames = zip(
            items(pair.source.dataset, PER_FRAME), items(pair.derived.dataset, PER_FRAME), strict=False
        )
        for number, (before, after) in enumerate(frames, 1):
            said = [canonical_item(item) for item in items(after, _DERIVATION)]
            expected = [*shared, *(canonical_item(item) for item in items(before, _DERIVATION))]
            if said[:-1] != expected:
                yield f"object {pair.number}, frame {number}: the derivations are not the source's and one more"
            value = next(
                (stored(i, "DerivationDescription") or b"" for i in items(after, _DERIVATION)[-1:]), b""
            )
            if not _STATEMENT.search(value) or not value.isascii() or len(value) > 1024:
                yield f"object {pair.number}, frame {number}: no algorithm, version and digest"


def derivation_is_coded(objects: SeriesPair) -> Iterator[str]:
    """20: our derivation item holds one code, Smoothing."""
    for pair in objects.pairs:
        for number, item in enumerate(_own_items(pair), 1):
            if [concept_of(code) for code in items(item, "DerivationCodeSequence")] != [SMOOTHING]:
                yield f"object {pair.number}, frame {number}: the derivation code is not Smoothing"


def source_frames_are_named(objects: SeriesPair) -> Iterator[str]:
    """21: every frame names the frame of its number in the source object, with its purpose."""
    for pair in objects.pairs:
        expected = (pair.source.header.sop_class_uid, pair.source.header.sop_instance_uid)
        for number, item in enumerate(_own_items(pair), 1):
            found = [
                (
                    (text(image, "ReferencedSOPClassUID"), text(image, "ReferencedSOPInstanceUID")),
                    integer(image, "ReferencedFrameNumber"),
                    [concept_of(code) for code in items(image, "PurposeOfReferenceCodeSequence")],
                    text(image, "SpatialLocationsPreserved"),
                )
                for image in items(item, "SourceImageSequence")
            ]
            if found != [(expected, number, [SOURCE_IMAGE], "YES")]:
                yield f"object {pair.number}, frame {number}: does not name its source frame"


def evidence_is_listed(objects: SeriesPair) -> Iterator[str]:
    """22: the source object stands under its study and series, and the source series is related."""
    for pair in objects.pairs:
        header, ds = pair.source.header, pair.derived.dataset
        wanted = (header.series_instance_uid, header.sop_instance_uid)
        listed = {
            (text(series, "SeriesInstanceUID"), text(instance, "ReferencedSOPInstanceUID"))
            for series in items(ds, "ReferencedSeriesSequence")
            for instance in items(series, "ReferencedInstanceSequence")
        }
        evidence = {
            (text(series, "SeriesInstanceUID"), text(instance, "ReferencedSOPInstanceUID"))
            for study in items(ds, "SourceImageEvidenceSequence")
            if text(study, "StudyInstanceUID") == header.study_instance_uid
            for series in items(study, "ReferencedSeriesSequence")
            for instance in items(series, "ReferencedSOPSequence")
        }
        if wanted not in listed or wanted not in evidence:
            yield f"object {pair.number}: the source object is not listed as evidence"
        related = [
            (
                text(item, "SeriesInstanceUID"),
                [concept_of(c) for c in items(item, "PurposeOfReferenceCodeSequence")],
            )
            for item in items(ds, "RelatedSeriesSequence")
        ]
        if related != [(header.series_instance_uid, [SOURCE_SERIES])]:
            yield f"object {pair.number}: RelatedSeriesSequence does not name the source series"


def groups_are_kept(objects: SeriesPair) -> Iterator[str]:
    """28: every functional group but frame type and derivation is equal, value by value."""
    for pair in objects.pairs:
        for keyword in (SHARED, PER_FRAME):
            if len(items(pair.source.dataset, keyword)) != len(items(pair.derived.dataset, keyword)):
                yield f"object {pair.number}: {keyword} has another number of items"
                return
        for number, (before, after) in enumerate(_groups(pair)):
            if _comparable(before) != _comparable(after):
                yield f"object {pair.number}: the functional groups of item {number} differ"


def _comparable(group: Dataset) -> dict[int, Canonical | None]:
    """A set of functional groups without what another assertion judges and what no derived object carries."""
    without = {tag_of(keyword) for keyword in (*FRAME_TYPES, _DERIVATION, *REMOVED)}
    tags = {int(tag) for tag in group.keys()}  # noqa: SIM118 - iterating a Dataset converts it
    gone = frozenset(tag_of(keyword) for keyword in REMOVED)
    found = {tag: canonical(group, tag, without=gone) for tag in tags - without if not is_private(tag)}
    for keyword in FRAME_TYPES:
        for item in items(group, keyword):
            inside = dict(canonical_item(item, without=gone))
            inside.pop(tag_of("FrameType"), None)
            found |= inside
    return found


def _own_items(pair: Pair) -> Iterator[Dataset]:
    """The last derivation item of each frame; an empty data set where a frame has none."""
    for group in items(pair.derived.dataset, PER_FRAME):
        yield next(iter(items(group, _DERIVATION)[-1:]), Dataset())
