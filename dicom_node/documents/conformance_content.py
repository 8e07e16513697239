"""The other half of the conformance statement: what derived objects carry, text and time, limits."""

from __future__ import annotations

from typing import Final

from config.settings import Settings
from dicom_node.documents.advice import Group
from dicom_node.documents.markdown import document, table
from dicom_node.documents.reasons import reason_rows
from dicom_node.imaging.codes import (
    ACQUISITION_EQUIPMENT,
    PROCESSING_EQUIPMENT,
    SMOOTHING,
    SOURCE_IMAGE,
    SOURCE_SERIES,
    Concept,
)
from dicom_node.imaging.derivation import COMMENT, REMOVED
from dicom_node.imaging.equipment import EQUIPMENT_IDENTITY, EQUIPMENT_STATE
from dicom_node.imaging.headers import DISCRIMINATORS, WEAK_DISCRIMINATORS
from dicom_node.imaging.identity import IMAGE_TYPE_TERM, MODEL_NAME
from dicom_node.imaging.provenance import DerivationPolicy

Rule = tuple[str, str]
"""Attributes, and what becomes of them."""

_READ: Final = (
    ("SOPClassUID", "whether the object is enhanced at all"),
    ("StudyInstanceUID, SeriesInstanceUID", "which series it belongs to; never the Series Number"),
    ("PatientID, IssuerOfPatientID", "whether a series names one patient (as a digest)"),
    ("Modality, BodyPartExamined, SeriesDescription, ConvolutionKernel, Manufacturer", "routes"),
    ("ContrastBolusAgent, ContrastBolusAgentSequence, SliceThickness", "routes"),
    ("ImageType, VolumetricProperties, ComplexImageComponent, BurnedInAnnotation", "what is left alone"),
    ("ImagePositionPatient, ImageOrientationPatient, PixelSpacing, Rows, Columns", "the grid"),
    ("RescaleSlope, RescaleIntercept, RescaleType, PixelPaddingValue, PixelPaddingRangeLimit", "real values"),
    ("BitsAllocated, BitsStored, HighBit, PixelRepresentation, SamplesPerPixel", "stored values"),
    ("ImagesInAcquisition, InstanceNumber, AcquisitionNumber", "whether slices are missing"),
    ("FrameOfReferenceUID, StudyInstanceUID", "whether a series is of one piece"),
    (", ".join((*DISCRIMINATORS, "DiffusionBValue", *WEAK_DISCRIMINATORS)), "telling volumes apart"),
)


def created_objects(settings: Settings) -> str:
    """What a derived instance carries (PS3.2 N.8.1): the source's attributes, and the rules of change."""
    policy = DerivationPolicy(**settings.derivation.model_dump(mode="json"))
    return document(
        "A derived object has the SOP class of its source, in a new series of the same study, with one derived "
        "instance for each source instance. Every standard attribute is copied byte for byte; the exceptions are:",
        table(("attribute", "value"), created_rules(policy)),
        "Removed, because they describe the source object, its bytes or the step that made it: "
        + ", ".join(REMOVED)
        + "; private elements at every depth, overlays (groups 60xx), group lengths.",
        "Enhanced CT and MR objects: one derived object from one object, frame by frame in the same order, with all "
        "functional groups. The derivation stands in DerivationImageSequence of every frame, FrameType and ImageType "
        "say DERIVED (FILTERED as value 4 in CT), SourceImageEvidenceSequence names the source, and "
        "DeviceSerialNumber is NONE.",
        "Where a route asks for them, a Parametric Map of the uncertainty and a Comprehensive SR (TID 1500) with the "
        "noise before and after accompany the derived series, each in a series of its own.",
    )


def created_rules(policy: DerivationPolicy) -> tuple[Rule, ...]:
    """What a derived instance does not copy, under a policy; one row for each group of attributes."""
    return (
        *_identity_rules(policy),
        *_derivation_rules(policy),
        *_equipment_rules(policy),
        *_state_rules(policy),
    )


def _identity_rules(policy: DerivationPolicy) -> tuple[Rule, ...]:
    root = policy.uid_root or "2.25"
    return (
        ("SOPInstanceUID, SeriesInstanceUID", f"new, under {root}; a retry of one job repeats them"),
        ("SeriesNumber", f"source + {policy.series_number_offset}, or the next free number of the study"),
        (
            "SeriesDescription",
            f"source + ` {policy.description_suffix}`, at most 64 characters; `{policy.lone_description}` alone",
        ),
        ("InstanceNumber", "source; 1 to N by position where those are missing or repeated"),
        (
            "SeriesDate, SeriesTime, ContentDate, ContentTime, InstanceCreationDate, InstanceCreationTime",
            "time of processing, in the time zone of the object",
        ),
    )


def _derivation_rules(policy: DerivationPolicy) -> tuple[Rule, ...]:
    term = f", `{IMAGE_TYPE_TERM}` added as value 5 or later" if policy.image_type_term else ""
    comment = f"source + `{COMMENT}`" if policy.comment else "as the source"
    return (
        ("ImageType", f"value 1 `DERIVED`; the others as the source{term}"),
        ("DerivationDescription", "source + algorithm, version, digest of the weights, strength, parameters"),
        ("DerivationCodeSequence", f"source + {_code(SMOOTHING)}"),
        ("SourceImageSequence", f"one item: the source instance, {_code(SOURCE_IMAGE)}, locations preserved"),
        ("RelatedSeriesSequence", f"the source series, {_code(SOURCE_SERIES)}"),
        ("ReferencedSeriesSequence", "exactly the instances referred to"),
        ("ImageComments", comment),
    )


def _equipment_rules(policy: DerivationPolicy) -> tuple[Rule, ...]:
    contributors = f"source + {_code(ACQUISITION_EQUIPMENT)} + {_code(PROCESSING_EQUIPMENT)} for this node"
    rule = ("ContributingEquipmentSequence", contributors)
    if policy.equipment_policy == "inherit":
        return (rule, (", ".join(EQUIPMENT_IDENTITY), "as the source (`equipment_policy: inherit`)"))
    ours = f"`{policy.manufacturer}`, `{MODEL_NAME}`, versions of node and algorithm"
    if policy.station_name:
        ours += f", station `{policy.station_name}`"
    return (
        rule,
        (
            ", ".join(EQUIPMENT_IDENTITY),
            f"this node: {ours}; the scanner's move to ContributingEquipmentSequence",
        ),
        (", ".join(EQUIPMENT_STATE), "removed: the scanner's"),
    )


def _state_rules(policy: DerivationPolicy) -> tuple[Rule, ...]:
    return (
        ("ContentQualification", f"`{policy.content_qualification}`; `SERVICE` of a source stays"),
        ("RescaleType", "CT: `HU` where the source left it to the rule for original images"),
        (
            "LossyImageCompression, LossyImageCompressionMethod, LossyImageCompressionRatio",
            "as the source; set where only its transfer syntax was lossy",
        ),
        ("PixelData", "enhanced values in the source's own rescale, bits and sign; padding bit by bit"),
    )


def text_and_time() -> str:
    """Character sets and time zone (PS3.2 N.8.5)."""
    return document(
        "Every Specific Character Set is accepted. Text is copied byte for byte together with SpecificCharacterSet, "
        "so an unknown set is kept as it came; what the node adds is printable ASCII.",
        "Dates and times that the node writes stand in TimezoneOffsetFromUTC of the source, or in the time zone of "
        "the machine where the source states none. The attribute itself is copied.",
    )


def attributes_used() -> str:
    """Which attributes of received objects decide what happens."""
    return table(("attribute", "decides"), _READ)


def extensions(settings: Settings) -> str:
    """Specialised, private and extended parts (PS3.2 N.9)."""
    rows = [
        ("Standard extended, specialised or private SOP classes", "none"),
        ("Private transfer syntaxes", "none"),
        ("Private attributes written", "none"),
        ("Private coding schemes", "none"),
        (
            "Registered UID root",
            settings.derivation.uid_root or "none: UIDs are 2.25 with a UUID (PS3.5 B.2)",
        ),
        ("Media storage services", "none"),
        ("Query/Retrieve, Worklist, MPPS services as SCP", "none"),
    ]
    return table(("part", "value"), rows)


def limitations() -> str:
    """What is kept and not enhanced."""
    rows = [(f"`{r.code}`", r.sentence) for r in reason_rows() if r.group in (Group.LEFT_ALONE, Group.HELD)]
    return document(
        "These series are stored and neither changed nor answered with a failure. All codes: `dicom-node reasons`.",
        table(("reason", "what it means"), rows),
    )


def _code(concept: Concept) -> str:
    return f'({concept.value}, {concept.scheme}, "{concept.meaning}")'
