"""Assertions 19 to 23: what was done is said in words and codes, and every reference leads somewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydicom.dataset import Dataset

from dicom_node.imaging.codes import (
    ACQUISITION_EQUIPMENT,
    PROCESSING_EQUIPMENT,
    SMOOTHING,
    SOURCE_IMAGE,
    SOURCE_SERIES,
    Concept,
    concept_of,
    is_known,
)
from dicom_node.imaging.derivation import REMOVED
from dicom_node.imaging.elements import (
    canonical,
    canonical_item,
    items,
    stored,
    tag_of,
    text,
    vr_of,
)
from dicom_node.imaging.identity import MODEL_NAME
from dicom_node.imaging.references import Reference, reference_of
from dicom_node.imaging.verify_model import Pair, SeriesPair

_STATEMENT = re.compile(rb"\S+ \S+ sha256:[0-9a-f]{12} strength=")
_SAME_PLANE = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns")


def derivation_is_described(series: SeriesPair) -> Iterator[str]:
    """19: algorithm, version and digest in ASCII behind what the source said, at most 1024 characters."""
    for pair in series.pairs:
        before = (stored(pair.source.dataset, "DerivationDescription") or b"").strip(b" \0")
        value = (stored(pair.derived.dataset, "DerivationDescription") or b"").strip(b" \0")
        kept = value.startswith(before + b"; ") if before else True
        added = value[len(before) :] if kept else value
        if not _STATEMENT.search(added) or not added.isascii():
            yield f"slice {pair.number}: DerivationDescription does not name algorithm, version and digest"
        if not kept and len(before) + len(added) < 1024:
            yield f"slice {pair.number}: DerivationDescription lost what the source said"
        if len(value) > 1024:
            yield f"slice {pair.number}: DerivationDescription is longer than 1024 characters"


def derivation_is_coded(series: SeriesPair) -> Iterator[str]:
    """20: the source's codes, then Smoothing; every DCM code we added stands in the table word for word."""
    for pair in series.pairs:
        before = items(pair.source.dataset, "DerivationCodeSequence")
        after = items(pair.derived.dataset, "DerivationCodeSequence")
        if not after or concept_of(after[-1]) != SMOOTHING:
            yield f"slice {pair.number}: the last derivation code is not Smoothing"
        if len(after) != len(before) + 1 or not _starts_with(after, before):
            yield f"slice {pair.number}: the derivation codes are not the source's and one more"
        inherited = set(_concepts(pair.source.dataset))
        for concept in _concepts(pair.derived.dataset):
            if concept not in inherited and not is_known(concept):
                yield f"slice {pair.number}: code {concept.value} is not in the table with that meaning"


def source_image_is_named(series: SeriesPair) -> Iterator[str]:
    """21: exactly one source image, the slice at the same place, with its purpose."""
    for pair in series.pairs:
        found = items(pair.derived.dataset, "SourceImageSequence")
        if len(found) != 1:
            yield f"slice {pair.number}: {len(found)} source images"
            continue
        item = found[0]
        if text(item, "ReferencedSOPClassUID") != pair.source.header.sop_class_uid:
            yield f"slice {pair.number}: the source image has another SOP class"
        if _purposes(item) != (SOURCE_IMAGE,):
            yield f"slice {pair.number}: the source image lacks its purpose"
        if text(item, "SpatialLocationsPreserved") != "YES":
            yield f"slice {pair.number}: SpatialLocationsPreserved is not YES"
        if any(canonical(pair.source.dataset, k) != canonical(pair.derived.dataset, k) for k in _SAME_PLANE):
            yield f"slice {pair.number}: the source image lies elsewhere"
        yield from _related_series(pair)


def _related_series(pair: Pair) -> Iterator[str]:
    """The source series is named once, with its purpose."""
    header = pair.source.header
    found = [
        (text(item, "StudyInstanceUID"), text(item, "SeriesInstanceUID"), _purposes(item))
        for item in items(pair.derived.dataset, "RelatedSeriesSequence")
    ]
    if found != [(header.study_instance_uid, header.series_instance_uid, (SOURCE_SERIES,))]:
        yield f"slice {pair.number}: RelatedSeriesSequence does not name the source series"


def references_are_listed(series: SeriesPair) -> Iterator[str]:
    """22: ReferencedSeriesSequence lists exactly what is referred to, each under its series."""
    mates = {piece.header.sop_instance_uid for piece in series.sources}
    for pair in series.pairs:
        listed = _listed(pair.derived.dataset)
        known = _listed(pair.source.dataset) | dict.fromkeys(mates, pair.source.header.series_instance_uid)
        referred = {reference.sop_instance_uid for reference in _referred(pair.derived.dataset)}
        for uid in referred:
            if uid in known and listed.get(uid) != known[uid]:
                yield f"slice {pair.number}: a referenced instance is not listed under its series"
        if set(listed) - referred:
            yield f"slice {pair.number}: an instance is listed that nothing refers to"


def contributors_are_listed(series: SeriesPair) -> Iterator[str]:
    """23: the source's contributors unchanged, then the source's equipment, then the node, last and once."""
    for pair in series.pairs:
        before = items(pair.source.dataset, "ContributingEquipmentSequence")
        after = items(pair.derived.dataset, "ContributingEquipmentSequence")
        if len(after) != len(before) + 2 or not _starts_with(after, before):
            yield f"slice {pair.number}: contributing equipment is not the source's and two more"
            continue
        source_item, own = after[-2], after[-1]
        derived_before = pair.source.header.image_type[:1] == ("DERIVED",)
        purpose = PROCESSING_EQUIPMENT if derived_before else ACQUISITION_EQUIPMENT
        if _purposes(source_item) != (purpose,):
            yield f"slice {pair.number}: the source's equipment has another purpose"
        if _purposes(own) != (PROCESSING_EQUIPMENT,) or text(own, "ManufacturerModelName") != MODEL_NAME:
            yield f"slice {pair.number}: the last contributor is not the node"
        if sum(text(item, "ManufacturerModelName") == MODEL_NAME for item in after) != 1:
            yield f"slice {pair.number}: the node contributed more than once"
        if not all(text(item, "Manufacturer") for item in (source_item, own)):
            yield f"slice {pair.number}: a contributor has no manufacturer"


def _starts_with(after: tuple[Dataset, ...], before: tuple[Dataset, ...]) -> bool:
    """Whether the items of the source come first and unchanged."""
    gone = frozenset(tag_of(keyword) for keyword in REMOVED)
    first = [canonical_item(item, without=gone) for item in after[: len(before)]]
    return first == [canonical_item(item, without=gone) for item in before]


def _purposes(item: Dataset) -> tuple[Concept, ...]:
    """The purposes of a reference."""
    return tuple(concept_of(code) for code in items(item, "PurposeOfReferenceCodeSequence"))


def _referred(ds: Dataset) -> tuple[Reference, ...]:
    """What the object refers to as images."""
    return tuple(
        reference_of(item)
        for keyword in ("SourceImageSequence", "ReferencedImageSequence")
        for item in items(ds, keyword)
    )


def _listed(ds: Dataset) -> dict[str, str]:
    """SOP Instance UID to Series Instance UID of ReferencedSeriesSequence."""
    return {
        text(instance, "ReferencedSOPInstanceUID"): text(item, "SeriesInstanceUID")
        for item in items(ds, "ReferencedSeriesSequence")
        for instance in items(item, "ReferencedInstanceSequence")
    }


def _concepts(ds: Dataset) -> Iterator[Concept]:
    """Every code triplet at every depth."""
    if text(ds, "CodeValue"):
        yield concept_of(ds)
    for tag in [int(key) for key in ds.keys()]:  # noqa: SIM118 - iterating a Dataset converts it
        if vr_of(ds.get_item(tag)) == "SQ":
            for item in items(ds, tag):
                yield from _concepts(item)
