"""What the node asks of one stored instance before it decides about the series: a small frozen header.

No demographics: patients are told apart by a digest, and the description, which people type names into,
stays out of every repr.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import FileDataset

from dicom_node.imaging.diffusion_tags import b_value, direction
from dicom_node.imaging.elements import (
    decoded_text,
    element_of,
    integer,
    items,
    number,
    numbers,
    stored,
    text,
    texts,
)
from dicom_node.imaging.identity import is_derived_by_node
from dicom_node.imaging.parsing import read_dataset, transfer_syntax
from dicom_node.imaging.pixels import PixelFormat, pixel_format

Vector = tuple[float, float, float]

DISCRIMINATORS = (
    "EchoTime",
    "EchoNumbers",
    "TemporalPositionIdentifier",
    "AcquisitionNumber",
    "StackID",
    "InversionTime",
    "FlipAngle",
    "ConvolutionKernel",
    "KVP",
    "ComplexImageComponent",
    "NominalPercentageOfCardiacPhase",
)
"""Attributes that may tell two slices at one position apart; b-value, direction and ImageType are added."""

WEAK_DISCRIMINATORS = ("TriggerTime", "AcquisitionTime")
"""Often meaningless; they count only where they cut the series into whole volumes."""


@dataclass(frozen=True)
class SliceGeometry:
    """Where a slice lies, as stored; None where a value is missing or no number (PS3.3 C.7.6.2)."""

    position: Vector | None
    orientation: tuple[float, ...] | None
    pixel_spacing: tuple[float, float] | None
    slice_thickness_mm: float | None


@dataclass(frozen=True)
class InstanceHeader:
    """The facts about one instance, or one frame of it, that rules, evidence and eligibility need.

    frame      number of the frame of a multi-frame object, from 1; None for a whole instance
    undivided  why a multi-frame object was not taken apart into frames, empty where that is plain
    """

    sop_class_uid: str
    sop_instance_uid: str
    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str
    transfer_syntax_uid: str
    patient_key: str = field(repr=False)
    modality: str
    image_type: tuple[str, ...]
    pixels: PixelFormat
    geometry: SliceGeometry
    rescale: tuple[float | None, float | None]
    rescale_type: str
    instance_number: int | None
    series_number: int | None
    number_of_frames: int
    images_in_acquisition: int | None
    body_part: str
    series_description: str = field(repr=False)
    kernel: str
    manufacturer: str
    contrast: bool
    lossy_flag: bool
    burned_in: bool
    multi_energy: bool
    volumetric_properties: str
    complex_component: str
    b_value: float | None
    derived_by_node: bool
    discriminators: tuple[tuple[str, str], ...] = field(repr=False)
    weak_discriminators: tuple[tuple[str, str], ...] = field(repr=False)
    frame: int | None = None
    undivided: str = ""


def read_header(path: Path) -> InstanceHeader:
    """Read the header of a stored instance without its pixels; raises `UnreadableInstanceError`."""
    return header_of(read_dataset(path, pixels=False))


def header_of(ds: FileDataset) -> InstanceHeader:
    """Return the header of a parsed instance; the data set is not converted."""
    modality = text(ds, "Modality")
    diffusion = b_value(ds) if modality == "MR" else None
    return InstanceHeader(
        sop_class_uid=text(ds, "SOPClassUID"),
        sop_instance_uid=text(ds, "SOPInstanceUID"),
        study_instance_uid=text(ds, "StudyInstanceUID"),
        series_instance_uid=text(ds, "SeriesInstanceUID"),
        frame_of_reference_uid=text(ds, "FrameOfReferenceUID"),
        transfer_syntax_uid=transfer_syntax(ds),
        patient_key=_patient_key(ds),
        modality=modality,
        image_type=texts(ds, "ImageType"),
        pixels=pixel_format(ds),
        geometry=_geometry(ds),
        rescale=(number(ds, "RescaleSlope"), number(ds, "RescaleIntercept")),
        rescale_type=text(ds, "RescaleType"),
        instance_number=integer(ds, "InstanceNumber"),
        series_number=integer(ds, "SeriesNumber"),
        number_of_frames=integer(ds, "NumberOfFrames") or 1,
        images_in_acquisition=integer(ds, "ImagesInAcquisition"),
        body_part=text(ds, "BodyPartExamined"),
        series_description=decoded_text(ds, "SeriesDescription"),
        kernel=decoded_text(ds, "ConvolutionKernel"),
        manufacturer=decoded_text(ds, "Manufacturer"),
        contrast=bool(stored(ds, "ContrastBolusAgent")) or bool(items(ds, "ContrastBolusAgentSequence")),
        lossy_flag=text(ds, "LossyImageCompression") == "01",
        burned_in=text(ds, "BurnedInAnnotation") == "YES",
        multi_energy=text(ds, "MultienergyCTAcquisition") == "YES",
        volumetric_properties=text(ds, "VolumetricProperties"),
        complex_component=text(ds, "ComplexImageComponent"),
        b_value=diffusion,
        derived_by_node=is_derived_by_node(ds),
        discriminators=_discriminators(ds, diffusion, direction(ds) if modality == "MR" else None),
        weak_discriminators=tuple((name, "\\".join(texts(ds, name))) for name in WEAK_DISCRIMINATORS),
    )


def _geometry(ds: FileDataset) -> SliceGeometry:
    """Position, orientation and spacing, each None unless complete."""
    position = numbers(ds, "ImagePositionPatient")
    orientation = numbers(ds, "ImageOrientationPatient")
    spacing = numbers(ds, "PixelSpacing")
    return SliceGeometry(
        position=(position[0], position[1], position[2]) if position and len(position) == 3 else None,
        orientation=orientation if orientation and len(orientation) == 6 else None,
        pixel_spacing=(spacing[0], spacing[1]) if spacing and len(spacing) == 2 else None,
        slice_thickness_mm=_finite(number(ds, "SliceThickness")),
    )


def _finite(value: float | None) -> float | None:
    """The value, None where it is not a number or infinite."""
    return value if value is not None and math.isfinite(value) else None


def _patient_key(ds: FileDataset) -> str:
    """SHA-256 of PatientID and its issuer: equal for one patient, unreadable for everyone."""
    parts = [(stored(ds, keyword) or b"").strip(b" \0") for keyword in ("PatientID", "IssuerOfPatientID")]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _discriminators(
    ds: FileDataset, diffusion: float | None, gradient: tuple[float, ...] | None
) -> tuple[tuple[str, str], ...]:
    """What may tell this slice from another at the same position, as (name, value) pairs."""
    found = [(name, _plain(ds, name)) for name in DISCRIMINATORS]
    found.append(("DiffusionBValue", "" if diffusion is None else f"{diffusion:g}"))
    found.append(("DiffusionGradientOrientation", "\\".join(f"{v:.6g}" for v in gradient or ())))
    found.append(("ImageType", "\\".join(texts(ds, "ImageType")[2:])))
    return tuple(found)


def _plain(ds: FileDataset, name: str) -> str:
    """A value that is equal for equal numbers, however they are written."""
    if element_of(ds, name) is None:
        return ""
    values = numbers(ds, name)
    return "\\".join(f"{v:.6g}" for v in values) if values else "\\".join(texts(ds, name))
