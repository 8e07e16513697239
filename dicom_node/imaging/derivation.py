"""Which attributes a derived classic CT or MR image carries: the source's, and the rules of change.

Everything standard is copied byte for byte, then the rules below are applied, one function per group of
attributes. What the acquisition was (patient, study, geometry, sequence, dose) never changes; what the
object is (series, instance, equipment, derivation, times) is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dicom_node.imaging.codes import SMOOTHING
from dicom_node.imaging.elements import tag_of, text, texts
from dicom_node.imaging.encoding import (
    Attributes,
    append_items,
    copy_standard,
    put_bytes,
    put_text,
    value_of,
)
from dicom_node.imaging.equipment import set_equipment
from dicom_node.imaging.identity import IMAGE_TYPE_TERM
from dicom_node.imaging.provenance import DerivationPolicy, Provenance, local_time
from dicom_node.imaging.references import Reference, set_references
from dicom_node.imaging.series_reader import SourceSeries, SourceSlice, SourceVolume
from dicom_node.imaging.source_rules import CT_IMAGE, LOSSY_SYNTAXES
from dicom_node.imaging.text_values import joined
from dicom_node.imaging.uids import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, UidPlan

__all__ = ["DerivationPolicy", "Provenance", "SeriesIdentity", "derive_attributes", "series_identity"]

COMMENT: Final = "AI noise-reduced, not for primary diagnosis"
EXPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"

REMOVED: Final = (
    "SeriesDescriptionCodeSequence",
    "SmallestImagePixelValue",
    "LargestImagePixelValue",
    "SmallestPixelValueInSeries",
    "LargestPixelValueInSeries",
    "SmallestImagePixelValueInPlane",
    "LargestImagePixelValueInPlane",
    "ReferencedPerformedProcedureStepSequence",
    "PerformedProcedureStepStartDate",
    "PerformedProcedureStepStartTime",
    "PerformedProcedureStepEndDate",
    "PerformedProcedureStepEndTime",
    "PerformedProcedureStepID",
    "PerformedProcedureStepDescription",
    "IconImageSequence",
    "DigitalSignaturesSequence",
    "MACParametersSequence",
    "EncryptedAttributesSequence",
    "OriginalAttributesSequence",
    "InstanceCoercionDateTime",
    "SOPInstanceStatus",
    "SOPAuthorizationDateTime",
    "SOPAuthorizationComment",
    "AuthorizationEquipmentCertificationNumber",
    "ConversionSourceAttributesSequence",
    "AlternateRepresentationSequence",
    "StorageMediaFileSetID",
    "StorageMediaFileSetUID",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    "PixelDataProviderURL",
)
"""What described the source object, its bytes or the step that made it."""

_NEVER_UPGRADED = "SERVICE"
_LOSSY = "01"
_LARGEST_IS = 2**31 - 1
"""Largest value of an integer string (PS3.5 6.2)."""


@dataclass(frozen=True)
class Loss:
    """What the encoding of a source says about loss.

    native_share  bytes of the decoded pixels per byte in the file
    known         whether the source states the loss itself
    """

    transfer_syntax_uid: str
    native_share: float
    known: bool


@dataclass(frozen=True)
class SeriesIdentity:
    """What every instance of the derived series shares.

    description  bytes in the character set of the objects
    processed_at in the time zone of the objects
    instance_numbers  per slice, or None where each keeps its own
    """

    series_uid: str
    series_number: int
    description: bytes
    processed_at: datetime
    instance_numbers: tuple[int, ...] | None
    series_mates: frozenset[str]


def series_identity(
    source: SourceSeries,
    *,
    provenance: Provenance,
    policy: DerivationPolicy,
    uids: UidPlan,
    taken_series_numbers: frozenset[int],
) -> SeriesIdentity:
    """Decide what the derived series is called and numbered, once for all its instances."""
    first = source.slices[0]
    charset = texts(first.dataset, "SpecificCharacterSet")
    description = value_of(_copied(first), "SeriesDescription") or b""
    described = bool(description.strip(b" \0"))
    suffix = policy.description_suffix if described else policy.lone_description
    headers = [s.header for s in source.slices]
    numbers = [h.instance_number for h in headers]
    unique = None not in numbers and all(_are_unique(part) for part in source.volumes)
    return SeriesIdentity(
        series_uid=uids.series_uid,
        series_number=_series_number(first.header.series_number, policy, taken_series_numbers),
        description=joined(description, suffix, limit=64, charset=charset),
        processed_at=local_time(provenance.processed_at, text(first.dataset, "TimezoneOffsetFromUTC")),
        instance_numbers=None if unique else tuple(range(1, len(numbers) + 1)),
        series_mates=frozenset(h.sop_instance_uid for h in headers),
    )


def _are_unique(part: SourceVolume) -> bool:
    """Whether InstanceNumbers tell the slices of one volume apart; two echoes may well share theirs."""
    numbers = {piece.header.instance_number for piece in part.slices}
    return len(numbers) == len(part.slices)


def derive_attributes(
    piece: SourceSlice,
    position: int,
    *,
    identity: SeriesIdentity,
    provenance: Provenance,
    policy: DerivationPolicy,
    uids: UidPlan,
) -> Attributes:
    """Return all attributes of the derived slice but its pixels; the source stays as it is.

    `position` counts the slices of the series from 0.
    """
    attributes = _copied(piece, overlays=policy.overlays == "keep")
    header = piece.header
    is_ct = header.sop_class_uid == CT_IMAGE
    set_common_attributes(
        attributes,
        source_uid=header.sop_instance_uid,
        source_is_derived=header.image_type[:1] == ("DERIVED",),
        loss=Loss(header.transfer_syntax_uid, piece.native_share, known=header.lossy_flag),
        identity=identity,
        provenance=provenance,
        policy=policy,
        uids=uids,
    )
    if identity.instance_numbers is not None:
        put_text(attributes, "InstanceNumber", str(identity.instance_numbers[position]))
    put_bytes(attributes, "ImageType", _image_type(attributes, policy, is_ct=is_ct))
    _set_derivation(attributes, provenance)
    reference = Reference(header.sop_class_uid, header.sop_instance_uid)
    set_references(attributes, piece.dataset, source=reference, series_mates=identity.series_mates)
    if is_ct:
        _set_rescale_type(attributes, piece)
    return attributes


def set_common_attributes(
    attributes: Attributes,
    *,
    source_uid: str,
    source_is_derived: bool,
    loss: Loss,
    identity: SeriesIdentity,
    provenance: Provenance,
    policy: DerivationPolicy,
    uids: UidPlan,
) -> None:
    """Apply the rules that single-frame and multi-frame objects share: what the object is and who made it."""
    _set_identity(attributes, source_uid, identity, uids)
    _set_times(attributes, identity.processed_at)
    set_equipment(
        attributes,
        provenance=provenance,
        policy=policy,
        source_is_derived=source_is_derived,
        processed_at=identity.processed_at.strftime("%Y%m%d%H%M%S.%f"),
    )
    _set_comment(attributes, policy)
    _set_qualification(attributes, policy)
    _set_compression_history(attributes, loss)


def file_meta(attributes: Attributes) -> Attributes:
    """Return the file meta information that belongs to a derived instance (PS3.10 7.1)."""
    meta: Attributes = {}
    put_bytes(meta, "FileMetaInformationVersion", b"\0\1", vr="OB")
    put_bytes(meta, "MediaStorageSOPClassUID", value_of(attributes, "SOPClassUID") or b"")
    put_bytes(meta, "MediaStorageSOPInstanceUID", value_of(attributes, "SOPInstanceUID") or b"")
    put_text(meta, "TransferSyntaxUID", EXPLICIT_VR_LITTLE_ENDIAN)
    put_text(meta, "ImplementationClassUID", IMPLEMENTATION_CLASS_UID)
    put_text(meta, "ImplementationVersionName", IMPLEMENTATION_VERSION_NAME)
    return meta


def _copied(piece: SourceSlice, *, overlays: bool = False) -> Attributes:
    """The standard attributes of the source without those no derived object carries."""
    without = frozenset(tag_of(keyword) for keyword in REMOVED)
    return copy_standard(piece.dataset, signed=piece.layout.signed, without=without, overlays=overlays)


def _series_number(source: int | None, policy: DerivationPolicy, taken: frozenset[int]) -> int:
    """Source number plus the offset, or the next one that is free in the study; from 1 to what IS holds."""
    number = max(1, (source or 0) + policy.series_number_offset)
    if number > _LARGEST_IS - len(taken):
        number = policy.series_number_offset
    while number in taken:
        number += 1
    return number


def _set_identity(attributes: Attributes, source_uid: str, identity: SeriesIdentity, uids: UidPlan) -> None:
    """New instance and series; the study, the patient and the SOP class stay."""
    put_text(attributes, "SOPInstanceUID", uids.instance_uid(source_uid))
    put_text(attributes, "SeriesInstanceUID", identity.series_uid)
    put_text(attributes, "SeriesNumber", str(identity.series_number))
    put_bytes(attributes, "SeriesDescription", identity.description)


def _set_times(attributes: Attributes, when: datetime) -> None:
    """Series, content and instance times are the time of processing, the same in the whole series."""
    date, time = when.strftime("%Y%m%d"), when.strftime("%H%M%S.%f")
    for keyword in ("SeriesDate", "ContentDate", "InstanceCreationDate"):
        put_text(attributes, keyword, date)
    for keyword in ("SeriesTime", "ContentTime", "InstanceCreationTime"):
        put_text(attributes, keyword, time)


def _image_type(attributes: Attributes, policy: DerivationPolicy, *, is_ct: bool) -> bytes:
    """DERIVED, the source's values 2 and 3, what follows them, and our term at value 5 or later.

    An empty value 4 is used up rather than filled: every term there draws a validator's warning.
    """
    source = [part.strip(b" \0") for part in (value_of(attributes, "ImageType") or b"").split(b"\\")]
    source += [b""] * (3 - len(source))
    pixels = source[1] if source[1] in (b"PRIMARY", b"SECONDARY") else b"PRIMARY"
    kind = source[2] or (b"AXIAL" if is_ct else b"OTHER")
    values = [b"DERIVED", pixels, kind, *source[3:]]
    if policy.image_type_term:
        values += [b""] * (4 - len(values))
        values.append(IMAGE_TYPE_TERM.encode("ascii"))
    return b"\\".join(values)


def _set_derivation(attributes: Attributes, provenance: Provenance) -> None:
    """What was done, in words and as a code; earlier derivations stay in front."""
    charset = _charset(attributes)
    before = (value_of(attributes, "DerivationDescription") or b"").strip(b" \0")
    words = provenance.description[: 1024 - 2]
    text_value = words.encode("ascii")
    if before:
        text_value = joined(before + b";", words, limit=1024, charset=charset)
    put_bytes(attributes, "DerivationDescription", text_value)
    append_items(attributes, "DerivationCodeSequence", [SMOOTHING.as_item()])


def _set_comment(attributes: Attributes, policy: DerivationPolicy) -> None:
    """A line for whoever looks at the image, behind what the source said."""
    charset = _charset(attributes)
    if policy.comment:
        comment = (value_of(attributes, "ImageComments") or b"").strip(b" \0")
        said = joined(comment + b";", COMMENT, limit=10240, charset=charset) if comment else COMMENT.encode()
        put_bytes(attributes, "ImageComments", said)


def _charset(attributes: Attributes) -> Sequence[str]:
    """The defined terms of SpecificCharacterSet."""
    value = value_of(attributes, "SpecificCharacterSet") or b""
    return [part.strip() for part in value.decode("ascii", "replace").split("\\")] if value.strip() else []


def _set_qualification(attributes: Attributes, policy: DerivationPolicy) -> None:
    """Research, unless the source was even less (PS3.3 C.8.13.2.1.1)."""
    source = (value_of(attributes, "ContentQualification") or b"").strip(b" \0").decode("ascii", "replace")
    put_text(
        attributes,
        "ContentQualification",
        _NEVER_UPGRADED if source == _NEVER_UPGRADED else policy.content_qualification,
    )


def _set_compression_history(attributes: Attributes, loss: Loss) -> None:
    """Once lossy, always lossy: state it where only the transfer syntax said so (PS3.3 C.7.6.1.1.5)."""
    method = LOSSY_SYNTAXES.get(loss.transfer_syntax_uid)
    if method is None or loss.known:
        return
    put_text(attributes, "LossyImageCompression", _LOSSY)
    put_text(attributes, "LossyImageCompressionMethod", method)
    put_text(attributes, "LossyImageCompressionRatio", f"{loss.native_share:.4g}")


def _set_rescale_type(attributes: Attributes, piece: SourceSlice) -> None:
    """Say HU where the source left it to the rule that original CT images are in HU (PS3.3 C.8.2.1.1.2)."""
    header = piece.header
    original = header.image_type[:1] == ("ORIGINAL",) and "LOCALIZER" not in header.image_type
    if original and not header.multi_energy and header.rescale_type == "":
        put_text(attributes, "RescaleType", "HU")
