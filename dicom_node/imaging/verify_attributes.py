"""Assertions 8 to 11, 14, 17, 18, 24 to 26 and 28: what is kept, what is changed, what is gone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta

from pydicom.dataset import Dataset

from dicom_node.imaging.derivation import REMOVED
from dicom_node.imaging.elements import canonical, has, is_private, items, stored, tag_of, text, texts, vr_of
from dicom_node.imaging.encoding import is_overlay
from dicom_node.imaging.equipment import EQUIPMENT_IDENTITY, EQUIPMENT_STATE
from dicom_node.imaging.identity import IMAGE_TYPE_TERM, MODEL_NAME
from dicom_node.imaging.provenance import local_time, zone_of
from dicom_node.imaging.source_rules import CT_IMAGE, LOSSY_SYNTAXES, MR_IMAGE
from dicom_node.imaging.verify_model import Pair, SeriesPair, constant, differing

PLANE = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "SliceLocation",
    "GantryDetectorTilt",
    "TableHeight",
    "PatientPosition",
    "PositionReferenceIndicator",
)
PIXEL_LAYOUT = (
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
)
VOI = (
    "WindowCenter",
    "WindowWidth",
    "WindowCenterWidthExplanation",
    "VOILUTFunction",
    "VOILUTSequence",
    "PresentationLUTShape",
)
PIXEL_EXTREMES = (
    "SmallestImagePixelValue",
    "LargestImagePixelValue",
    "SmallestPixelValueInSeries",
    "LargestPixelValueInSeries",
)
TIMES = ("Series", "Content", "InstanceCreation")
CHANGED = frozenset(
    {
        "ImageType",
        "SOPInstanceUID",
        "SeriesInstanceUID",
        "SeriesNumber",
        "SeriesDescription",
        "InstanceNumber",
        "ImageComments",
        "DerivationDescription",
        "DerivationCodeSequence",
        "SourceImageSequence",
        "ReferencedSeriesSequence",
        "RelatedSeriesSequence",
        "ContributingEquipmentSequence",
        "ContentQualification",
        "RescaleType",
        "LossyImageCompression",
        "LossyImageCompressionMethod",
        "LossyImageCompressionRatio",
        "PixelData",
        *(f"{name}Date" for name in TIMES),
        *(f"{name}Time" for name in TIMES),
    }
)
"""Attributes another assertion judges; everything else is equal or, where removed, gone."""

_GONE = frozenset(tag_of(keyword) for keyword in REMOVED)
"""Removed at every depth, so no item of a kept sequence has them either."""
_CLOCK_SLACK = timedelta(hours=2)
"""A scanner's clock and the node's may disagree, over daylight saving time at the worst."""
_ZONE_SLACK = timedelta(hours=26)
"""Without TimezoneOffsetFromUTC nobody knows in which zone the acquisition's times stand."""
_CS = re.compile(r"[A-Z0-9 _]{0,16}")


def image_type_says_derived(series: SeriesPair) -> Iterator[str]:
    """8: DERIVED, PRIMARY or SECONDARY, the source's third value and what followed it, our term."""
    for pair in series.pairs:
        source, derived = texts(pair.source.dataset, "ImageType"), texts(pair.derived.dataset, "ImageType")
        default = "AXIAL" if pair.source.header.sop_class_uid == CT_IMAGE else "OTHER"
        kind = source[2] if len(source) > 2 and source[2] else default
        if derived[:1] != ("DERIVED",):
            yield f"slice {pair.number}: ImageType value 1 is not DERIVED"
        if derived[1:2] not in (("PRIMARY",), ("SECONDARY",)):
            yield f"slice {pair.number}: ImageType value 2 is neither PRIMARY nor SECONDARY"
        if derived[2:3] != (kind,):
            yield f"slice {pair.number}: ImageType value 3 is not the source's"
        if derived[3 : len(source)] != source[3:]:
            yield f"slice {pair.number}: ImageType lost a value of the source"
        if series.policy.image_type_term and IMAGE_TYPE_TERM not in derived[4:]:
            yield f"slice {pair.number}: ImageType lacks {IMAGE_TYPE_TERM}"
        if not all(_CS.fullmatch(value) for value in derived):
            yield f"slice {pair.number}: ImageType holds a value that is no code string"


def frame_of_reference_is_kept(series: SeriesPair) -> Iterator[str]:
    """9: the frame of reference is the same, or absent in both."""
    yield from differing(series, ("FrameOfReferenceUID",))


def plane_is_kept(series: SeriesPair) -> Iterator[str]:
    """10: position, orientation and spacing are equal byte for byte."""
    yield from differing(series, PLANE)


def pixel_layout_is_kept(series: SeriesPair) -> Iterator[str]:
    """11: matrix, bits and sign are equal, padding values too."""
    yield from differing(series, PIXEL_LAYOUT)


def rescale_is_kept(series: SeriesPair) -> Iterator[str]:
    """14: slope and intercept are the slice's own; nothing is added to MR; CT that was in HU says so."""
    yield from differing(series, ("RescaleSlope", "RescaleIntercept"))
    for pair in series.pairs:
        source, derived = pair.source.header, pair.derived.header
        expected = source.rescale_type
        original = source.image_type[:1] == ("ORIGINAL",) and "LOCALIZER" not in source.image_type
        if source.sop_class_uid == CT_IMAGE and original and not source.multi_energy and not expected:
            expected = "HU"
        if derived.rescale_type != expected:
            yield f"slice {pair.number}: RescaleType is not what the rule says"


def presentation_is_kept(series: SeriesPair) -> Iterator[str]:
    """17: windows and look-up tables are equal; pixel extremes of the source are gone."""
    yield from differing(series, VOI)
    for number, piece in enumerate(series.derived, 1):
        for keyword in PIXEL_EXTREMES:
            if has(piece.dataset, keyword):
                yield f"slice {number}: {keyword} describes the source's pixels"


def loss_is_admitted(series: SeriesPair) -> Iterator[str]:
    """18: once lossy, always lossy, with the method and the ratio."""
    for pair in series.pairs:
        lossy_syntax = pair.source.header.transfer_syntax_uid in LOSSY_SYNTAXES
        lossy = pair.source.header.lossy_flag or lossy_syntax
        flag = text(pair.derived.dataset, "LossyImageCompression")
        if lossy and flag != "01":
            yield f"slice {pair.number}: LossyImageCompression is not 01"
        if not lossy and canonical(pair.source.dataset, "LossyImageCompression") != canonical(
            pair.derived.dataset, "LossyImageCompression"
        ):
            yield f"slice {pair.number}: LossyImageCompression differs"
        for keyword in ("LossyImageCompressionMethod", "LossyImageCompressionRatio"):
            stated = stored(pair.source.dataset, keyword)
            if (stated or lossy_syntax) and not stored(pair.derived.dataset, keyword):
                yield f"slice {pair.number}: {keyword} is missing"
            if stated and stored(pair.derived.dataset, keyword) != stated:
                yield f"slice {pair.number}: {keyword} differs"


def equipment_is_ours(series: SeriesPair) -> Iterator[str]:
    """24: the equipment module is ours (or the source's, by policy) and constant in the series."""
    if series.policy.equipment_policy == "inherit":
        yield from differing(series, (*EQUIPMENT_IDENTITY, *EQUIPMENT_STATE))
        return
    yield from constant(series, EQUIPMENT_IDENTITY)
    for number, piece in enumerate(series.derived, 1):
        ds = piece.dataset
        if text(ds, "Manufacturer") != series.policy.manufacturer.strip():
            yield f"slice {number}: Manufacturer is not the node's"
        if text(ds, "ManufacturerModelName") != MODEL_NAME:
            yield f"slice {number}: ManufacturerModelName is not the node's"
        if len(texts(ds, "SoftwareVersions")) != 2:
            yield f"slice {number}: SoftwareVersions does not name node and algorithm"
        if text(ds, "StationName") != (series.policy.station_name or ""):
            yield f"slice {number}: StationName is not the node's"
        for keyword in ("DeviceSerialNumber", "DeviceUID", "UDISequence", *EQUIPMENT_STATE):
            if has(ds, keyword):
                yield f"slice {number}: {keyword} is the scanner's"


def qualification_is_honest(series: SeriesPair) -> Iterator[str]:
    """25: qualified for research or less; synthetic data stay synthetic."""
    for pair in series.pairs:
        source, derived = pair.source.dataset, pair.derived.dataset
        expected = "SERVICE" if text(source, "ContentQualification") == "SERVICE" else "RESEARCH"
        if text(derived, "ContentQualification") != expected:
            yield f"slice {pair.number}: ContentQualification is not {expected}"
        if text(source, "SyntheticData") == "YES" and text(derived, "SyntheticData") != "YES":
            yield f"slice {pair.number}: SyntheticData was lost"


def nothing_foreign_is_left(series: SeriesPair) -> Iterator[str]:
    """26: no private elements, group lengths, signatures, icons, step references, nor overlays but by policy."""
    forbidden = {tag_of(keyword): keyword for keyword in REMOVED}
    for number, piece in enumerate(series.derived, 1):
        for tag in _all_tags(piece.dataset):
            group = tag >> 16
            kept = is_overlay(tag) and series.policy.overlays == "keep"
            if is_private(tag) or tag & 0xFFFF == 0 or (group & 0xFF00 == 0x6000 and not kept):
                yield f"slice {number}: ({group:04X},{tag & 0xFFFF:04X}) has no place here"
            elif tag in forbidden:
                yield f"slice {number}: {forbidden[tag]} has no place here"


def acquisition_is_kept(
    series: SeriesPair, *, judged_elsewhere: frozenset[int] = frozenset()
) -> Iterator[str]:
    """28: every other attribute is equal and none is added; our times are new and one for the series."""
    yield from constant(series, ("SeriesDate", "SeriesTime"))
    for pair in series.pairs:
        inherit = series.policy.equipment_policy == "inherit"
        yield from _unexpected(
            pair, judged_elsewhere, inherit=inherit, overlays=series.policy.overlays == "keep"
        )
        yield from _times(pair, series.verified_at)


def _unexpected(
    pair: Pair, judged_elsewhere: frozenset[int], *, inherit: bool, overlays: bool
) -> Iterator[str]:
    """Attributes that differ, appeared or vanished without a rule that says so."""
    judged = judged_elsewhere | {tag_of(keyword) for keyword in (*CHANGED, *REMOVED)}
    if not inherit:
        judged |= {tag_of(keyword) for keyword in (*EQUIPMENT_IDENTITY, *EQUIPMENT_STATE)}
    source, derived = pair.source.dataset, pair.derived.dataset
    tags = {int(t) for t in source.keys()} | {int(t) for t in derived.keys()}  # noqa: SIM118
    for tag in sorted(tags - judged):
        if is_overlay(tag) and overlays and pair.source.header.sop_class_uid in (CT_IMAGE, MR_IMAGE):
            pass  # kept, so it is equal
        elif is_private(tag) or tag & 0xFFFF == 0 or tag >> 16 & 0xFF00 == 0x6000 or tag == 0xFFFCFFFC:
            continue
        if canonical(source, tag, without=_GONE) != canonical(derived, tag, without=_GONE):
            yield f"slice {pair.number}: ({tag >> 16:04X},{tag & 0xFFFF:04X}) differs"


def _times(pair: Pair, verified_at: datetime) -> Iterator[str]:
    """Dates and times of the object are complete and lie after its acquisition."""
    source, derived = pair.source.dataset, pair.derived.dataset
    offset = text(source, "TimezoneOffsetFromUTC")
    acquired = _moment(text(source, "AcquisitionDate"), text(source, "AcquisitionTime"))
    # Dates of de-identified scans may lie in the future; nothing can lie after those.
    if acquired is not None and acquired > local_time(verified_at, offset).replace(tzinfo=None):
        acquired = None
    slack = _CLOCK_SLACK if zone_of(offset) else _ZONE_SLACK
    for name in TIMES:
        made = _moment(text(derived, f"{name}Date"), text(derived, f"{name}Time"))
        if made is None:
            yield f"slice {pair.number}: {name} date or time is missing"
        elif acquired is not None and made < acquired - slack:
            yield f"slice {pair.number}: {name} time lies before the acquisition"


def _moment(date: str, time: str) -> datetime | None:
    """Date and time as the object states them, to the second; None where either is missing or malformed."""
    try:
        return datetime.strptime(date + time.partition(".")[0], "%Y%m%d%H%M%S")  # noqa: DTZ007 - the object's zone
    except ValueError:
        return None


def _all_tags(ds: Dataset) -> Iterator[int]:
    """Every tag at every depth."""
    for tag in [int(key) for key in ds.keys()]:  # noqa: SIM118 - iterating a Dataset converts it
        yield tag
        if vr_of(ds.get_item(tag)) == "SQ":
            for item in items(ds, tag):
                yield from _all_tags(item)
