"""Which attributes a derived Enhanced CT or MR object carries: the source's, and the rules of change.

One object comes from one object, frame by frame: frame order, dimension indices, stacks and every functional
group stay byte for byte, but for the frame type and one more item of the derivation in each frame. The rules
that classic images share (identity, times, equipment, qualification) are `derivation`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pydicom.dataset import Dataset, FileDataset

from dicom_node.imaging.codes import SMOOTHING, SOURCE_IMAGE, SOURCE_SERIES
from dicom_node.imaging.derivation import REMOVED, Loss, SeriesIdentity, set_common_attributes
from dicom_node.imaging.elements import items, tag_of, text
from dicom_node.imaging.encoding import (
    Attributes,
    append_items,
    copy_standard,
    drop,
    put_bytes,
    put_items,
    put_text,
    value_of,
)
from dicom_node.imaging.multiframe import ENHANCED_CT, FRAME_TYPES, PER_FRAME, SHARED
from dicom_node.imaging.parsing import transfer_syntax
from dicom_node.imaging.provenance import DerivationPolicy, Provenance
from dicom_node.imaging.references import Reference
from dicom_node.imaging.uids import UidPlan

SERIAL_NUMBER: Final = "NONE"
"""A program has none, and the Enhanced General Equipment module demands one (PS3.3 C.7.5.2)."""

_DERIVATION = "DerivationImageSequence"


def derive_enhanced_attributes(
    ds: FileDataset,
    *,
    signed: bool,
    native_share: float,
    identity: SeriesIdentity,
    provenances: Sequence[Provenance],
    policy: DerivationPolicy,
    uids: UidPlan,
) -> Attributes:
    """Return all attributes of the derived object but its pixels; the source stays as it is.

    provenances  one a frame: volumes of one object may have been enhanced with other parameters
    """
    without = frozenset(tag_of(keyword) for keyword in (*REMOVED, PER_FRAME, SHARED))
    attributes = copy_standard(ds, signed=signed, without=without)
    set_common_attributes(
        attributes,
        source_uid=text(ds, "SOPInstanceUID"),
        source_is_derived=text(ds, "ImageType") == "DERIVED",
        loss=Loss(transfer_syntax(ds), native_share, known=text(ds, "LossyImageCompression") == "01"),
        identity=identity,
        provenance=provenances[0],
        policy=policy,
        uids=uids,
    )
    is_ct = text(ds, "SOPClassUID") == ENHANCED_CT
    put_bytes(attributes, "ImageType", frame_type(value_of(attributes, "ImageType"), is_ct=is_ct))
    if policy.equipment_policy == "standard":
        put_text(attributes, "DeviceSerialNumber", SERIAL_NUMBER)
    _set_references(attributes, ds)
    _set_functional_groups(attributes, ds, signed=signed, is_ct=is_ct, provenances=provenances)
    return attributes


def frame_type(value: bytes | None, *, is_ct: bool) -> bytes:
    """DERIVED, PRIMARY, the source's value 3, and FILTERED in CT (PS3.3 C.8.16.1, C.8.15.2.1.1)."""
    source = [part.strip(b" \0") for part in (value or b"").split(b"\\")]
    source += [b""] * (4 - len(source))
    kind = source[2] or (b"VOLUME" if is_ct else b"OTHER")
    contrast = b"FILTERED" if is_ct else source[3] or b"NONE"
    return b"\\".join((b"DERIVED", b"PRIMARY", kind, contrast, *source[4:]))


def _set_references(attributes: Attributes, ds: FileDataset) -> None:
    """The source object as related series, as evidence, and among the instances referred to."""
    study, series = text(ds, "StudyInstanceUID"), text(ds, "SeriesInstanceUID")
    source = Reference(text(ds, "SOPClassUID"), text(ds, "SOPInstanceUID")).as_item()
    related: Attributes = {}
    put_text(related, "StudyInstanceUID", study)
    put_text(related, "SeriesInstanceUID", series)
    put_items(related, "PurposeOfReferenceCodeSequence", [SOURCE_SERIES.as_item()])
    put_items(attributes, "RelatedSeriesSequence", [related])
    listed: Attributes = {}
    put_text(listed, "SeriesInstanceUID", series)
    put_items(listed, "ReferencedInstanceSequence", [source])
    append_items(attributes, "ReferencedSeriesSequence", [listed])
    in_series: Attributes = {}
    put_text(in_series, "SeriesInstanceUID", series)
    put_items(in_series, "ReferencedSOPSequence", [source])
    evidence: Attributes = {}
    put_text(evidence, "StudyInstanceUID", study)
    put_items(evidence, "ReferencedSeriesSequence", [in_series])
    append_items(attributes, "SourceImageEvidenceSequence", [evidence])


def _set_functional_groups(
    attributes: Attributes, ds: FileDataset, *, signed: bool, is_ct: bool, provenances: Sequence[Provenance]
) -> None:
    """Copy every group, mark the frame types, and add the derivation to each frame."""
    source = Reference(text(ds, "SOPClassUID"), text(ds, "SOPInstanceUID"))
    earlier: list[Attributes] = []
    for shared in items(ds, SHARED)[:1]:
        copied = _copied_group(shared, signed=signed, is_ct=is_ct)
        # A group is shared or a frame's own, never both (PS3.3 C.7.6.16.1.1).
        earlier = [_copied(item, signed=signed) for item in items(shared, _DERIVATION)]
        drop(copied, (_DERIVATION,))
        put_items(attributes, SHARED, [copied])
    frames = []
    for number, (group, provenance) in enumerate(zip(items(ds, PER_FRAME), provenances, strict=True), 1):
        copied = _copied_group(group, signed=signed, is_ct=is_ct)
        own = [_copied(item, signed=signed) for item in items(group, _DERIVATION)]
        put_items(copied, _DERIVATION, [*earlier, *own, _derivation(source, number, provenance)])
        frames.append(copied)
    put_items(attributes, PER_FRAME, frames)


def _copied(item: Dataset, *, signed: bool) -> Attributes:
    """The standard attributes of an item without those no derived object carries."""
    return copy_standard(item, signed=signed, without=frozenset(tag_of(keyword) for keyword in REMOVED))


def _copied_group(group: Dataset, *, signed: bool, is_ct: bool) -> Attributes:
    """One item of functional groups, its frame type marked."""
    copied = _copied(group, signed=signed)
    for keyword in FRAME_TYPES:
        marked: list[Attributes] = []
        for item in items(group, keyword):
            attributes = _copied(item, signed=signed)
            put_bytes(attributes, "FrameType", frame_type(value_of(attributes, "FrameType"), is_ct=is_ct))
            marked.append(attributes)
        if marked:
            put_items(copied, keyword, marked)
    return copied


def _derivation(source: Reference, number: int, provenance: Provenance) -> Attributes:
    """What was done to one frame, and from which frame it comes (PS3.3 C.7.6.16.2.6)."""
    image = source.as_item()
    put_text(image, "ReferencedFrameNumber", str(number))
    put_items(image, "PurposeOfReferenceCodeSequence", [SOURCE_IMAGE.as_item()])
    put_text(image, "SpatialLocationsPreserved", "YES")
    item: Attributes = {}
    put_text(item, "DerivationDescription", provenance.description[:1024])
    put_items(item, "DerivationCodeSequence", [SMOOTHING.as_item()])
    put_items(item, "SourceImageSequence", [image])
    return item
