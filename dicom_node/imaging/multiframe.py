"""Enhanced multi-frame objects read as what they are made of: one flat data set and one header a frame.

A frame of an Enhanced CT or MR object has its attributes in functional groups, shared or its own (PS3.3
C.7.6.16). Laid out flat, under the names that a classic image uses, it can be judged, sorted and compared
by the rules for classic images. The object itself stays as it was parsed.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.tag import BaseTag

from dicom_node.errors import Reason, SkipSeriesError
from dicom_node.imaging.elements import has, integer, items, little_endian, numbers, tag_of, text, vr_of
from dicom_node.imaging.headers import InstanceHeader, header_of
from dicom_node.imaging.parsing import read_dataset
from dicom_node.imaging.source_rules import CT_IMAGE, MR_IMAGE

ENHANCED_CT: Final = "1.2.840.10008.5.1.4.1.1.2.1"
ENHANCED_MR: Final = "1.2.840.10008.5.1.4.1.1.4.1"
SINGLE_FRAME_CLASSES: Final = {ENHANCED_CT: CT_IMAGE, ENHANCED_MR: MR_IMAGE}
"""Enhanced SOP class to the class whose rules apply to one of its frames."""

SHARED: Final = "SharedFunctionalGroupsSequence"
PER_FRAME: Final = "PerFrameFunctionalGroupsSequence"
FRAME_TYPES: Final = ("MRImageFrameTypeSequence", "CTImageFrameTypeSequence")

_LAID_OUT: Final = (
    "PixelMeasuresSequence",
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelValueTransformationSequence",
    "FrameVOILUTSequence",
    "FrameContentSequence",
    *FRAME_TYPES,
    "MREchoSequence",
    "MRDiffusionSequence",
    "MRTimingAndRelatedParametersSequence",
    "MRModifierSequence",
    "CTReconstructionSequence",
    "CTXRayDetailsSequence",
    "CTAcquisitionDetailsSequence",
    "CardiacSynchronizationSequence",
    "DerivationImageSequence",
)
"""Functional groups whose attributes classic images have at the top level."""

_CLASSIC_NAMES: Final = (
    ("FrameType", "ImageType"),
    ("EffectiveEchoTime", "EchoTime"),
    ("InversionTimes", "InversionTime"),
    ("TemporalPositionIndex", "TemporalPositionIdentifier"),
    ("FrameAcquisitionNumber", "AcquisitionNumber"),
)
_PLACES: Final = frozenset({"InStackPositionNumber", "ImagePositionPatient", "PlanePositionSequence"})
"""Dimensions that number the slices of one volume and tell no volumes apart."""
_NOT_OF_A_FRAME: Final = ("ImagesInAcquisition", "NumberOfFrames", "PixelData", SHARED, PER_FRAME)
_POINTER: Final = tag_of("DimensionIndexPointer")

Elements = dict[BaseTag, RawDataElement | DataElement]


def read_headers(path: Path) -> tuple[InstanceHeader, ...]:
    """Return one header for a classic instance, one a frame for an Enhanced CT or MR object.

    An object that cannot be taken apart has one header, which says why. Raises `UnreadableInstanceError`.
    """
    return headers_of(read_dataset(path, pixels=False))


def headers_of(ds: FileDataset) -> tuple[InstanceHeader, ...]:
    """Return the headers of a parsed instance as `read_headers` does."""
    if not is_enhanced(ds):
        return (header_of(ds),)
    dimensions = dimensions_of(ds)
    try:
        return tuple(frame_header(flat, dimensions) for flat in frames_of(ds))
    except SkipSeriesError as exc:
        return (replace(header_of(ds), undivided=exc.detail),)


def is_enhanced(ds: Dataset) -> bool:
    """Whether the object is Enhanced CT or MR; conversions of classic images are not."""
    return text(ds, "SOPClassUID") in SINGLE_FRAME_CLASSES


def frames_of(ds: FileDataset) -> tuple[FileDataset, ...]:
    """Return every frame of an Enhanced object as a flat data set without pixels, in frame order.

    Raises `SkipSeriesError` MULTI_FRAME where the functional groups do not describe the frames.
    """
    groups = _functional_groups(ds)
    kept_out = {tag_of(keyword) for keyword in _NOT_OF_A_FRAME}
    common: Elements = {BaseTag(tag): ds.get_item(tag) for tag in _tags(ds) if tag not in kept_out}
    for shared in items(ds, SHARED)[:1]:
        common |= _laid_out(shared)
    return tuple(_flat(ds, {**common, **_laid_out(own)}, number) for number, own in enumerate(groups, 1))


def frame_header(flat: FileDataset, dimensions: Sequence[str]) -> InstanceHeader:
    """Return the header of a flat frame: that of a classic image, told apart by its dimension indices too.

    Its SOP instance is written ``UID:FRAME``, its SOP class is that whose rules apply. `dimensions` are those
    of `dimensions_of` the object.
    """
    header = header_of(flat)
    indices = numbers(flat, "DimensionIndexValues") or ()
    told = [
        (f"Dimension {name}", f"{indices[place]:g}" if place < len(indices) else "")
        for place, name in enumerate(dimensions)
        if name not in _PLACES
    ]
    stack = ("StackID", text(flat, "StackID"))
    return replace(
        header,
        sop_class_uid=SINGLE_FRAME_CLASSES[header.sop_class_uid],
        sop_instance_uid=f"{header.sop_instance_uid}:{header.instance_number}",
        number_of_frames=1,
        frame=header.instance_number,
        discriminators=(*header.discriminators, stack, *told, ("SOPInstance", header.sop_instance_uid)),
    )


def dimensions_of(ds: Dataset) -> tuple[str, ...]:
    """Return the keyword of each dimension in their order; a private one is named by its tag."""
    found = []
    for item in items(ds, "DimensionIndexSequence"):
        value = little_endian(item.get_item(_POINTER)) if _POINTER in item else b""
        group, element = struct.unpack("<HH", value) if len(value) == 4 else (0, 0)
        found.append(keyword_for_tag((group, element)) or f"{group:04X}{element:04X}")
    return tuple(found)


def _functional_groups(ds: FileDataset) -> tuple[Dataset, ...]:
    """The per-frame groups, one item a frame."""
    if has(ds, "ConcatenationUID"):
        raise SkipSeriesError(Reason.MULTI_FRAME, "One part of a concatenation.")
    groups, count = items(ds, PER_FRAME), integer(ds, "NumberOfFrames")
    if not groups or len(items(ds, SHARED)) > 1:
        raise SkipSeriesError(Reason.MULTI_FRAME, "It has no usable functional groups.")
    if count != len(groups):
        raise SkipSeriesError(Reason.MULTI_FRAME, f"{count} frames, {len(groups)} functional groups.")
    return groups


def _tags(ds: Dataset) -> list[int]:
    return [int(tag) for tag in ds.keys()]  # noqa: SIM118 - iterating a Dataset converts it


def _laid_out(group: Dataset) -> Elements:
    """A set of functional groups as attributes of its own; a group that classic images know is opened."""
    opened = {tag_of(keyword) for keyword in _LAID_OUT}
    found: Elements = {BaseTag(tag): group.get_item(tag) for tag in _tags(group) if tag not in opened}
    for keyword in _LAID_OUT:
        for item in items(group, keyword)[-1:]:
            found |= {BaseTag(tag): item.get_item(tag) for tag in _tags(item)}
            for direction in items(item, "DiffusionGradientDirectionSequence")[:1]:
                found |= {BaseTag(tag): direction.get_item(tag) for tag in _tags(direction)}
    return found


def _flat(ds: FileDataset, elements: Elements, number: int) -> FileDataset:
    """One frame as one data set, under the names of a classic image."""
    for theirs, classic in _CLASSIC_NAMES:
        found = elements.pop(BaseTag(tag_of(theirs)), None)
        if found is not None:
            elements[BaseTag(tag_of(classic))] = _renamed(found, classic)
    digits = str(number).encode("ascii")
    elements[BaseTag(tag_of("InstanceNumber"))] = _element("InstanceNumber", "IS", digits)
    flat = FileDataset("", elements, file_meta=ds.file_meta, is_implicit_VR=False, is_little_endian=True)
    mixed = text(flat, "VolumetricProperties") == "MIXED"
    if mixed and text(flat, "VolumeBasedCalculationTechnique") in ("", "NONE"):
        # Said of frames that differ in contrast, not in how they were computed (PS3.3 C.8.16.2.1.2).
        elements.pop(BaseTag(tag_of("VolumetricProperties")))
        return FileDataset("", elements, file_meta=ds.file_meta, is_implicit_VR=False, is_little_endian=True)
    return flat


def _renamed(element: RawDataElement | DataElement, keyword: str) -> RawDataElement:
    """The same value under another attribute."""
    value = little_endian(element) if element.VR != "SQ" else b""
    return _element(keyword, vr_of(element), value)


def _element(keyword: str, vr: str, value: bytes) -> RawDataElement:
    """A little endian element as the parser would have left it."""
    return RawDataElement(BaseTag(tag_of(keyword)), vr, len(value), value, 0, False, True)
