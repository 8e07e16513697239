"""Who the derived objects say made them: General Equipment and Contributing Equipment (PS3.3 C.7.5.1, C.12.1).

The scanner's identity moves into an item of the ContributingEquipmentSequence, byte for byte, and the
node takes its place. The order is: what the source had, the equipment that made the source, the node.
Some readers look only at the last item.
"""

from __future__ import annotations

import re
from typing import Final

from dicom_node.imaging.codes import ACQUISITION_EQUIPMENT, PROCESSING_EQUIPMENT
from dicom_node.imaging.encoding import (
    Attributes,
    append_items,
    drop,
    put_bytes,
    put_items,
    put_text,
    value_of,
)
from dicom_node.imaging.identity import MODEL_NAME
from dicom_node.imaging.provenance import DerivationPolicy, Provenance

EQUIPMENT_IDENTITY: Final = (
    "Manufacturer",
    "ManufacturerModelName",
    "DeviceSerialNumber",
    "SoftwareVersions",
    "StationName",
    "DeviceUID",
    "UDISequence",
    "ManufacturerDeviceClassUID",
)
"""What the node replaces by its own, unless the policy says inherit."""

EQUIPMENT_STATE: Final = (
    "GantryID",
    "SpatialResolution",
    "DateOfLastCalibration",
    "TimeOfLastCalibration",
    "DateTimeOfLastCalibration",
    "DateOfManufacture",
    "DateOfInstallation",
)
"""What describes the scanner and no post-processor."""

_CARRIED_INTO_ITEM = (
    *EQUIPMENT_IDENTITY,
    "InstitutionName",
    "InstitutionAddress",
    "InstitutionalDepartmentName",
)
_DATE = re.compile(rb"(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])")
_TIME = re.compile(rb"\d{2}(?:\d{2}(?:\d{2}(?:\.\d{1,6})?)?)?")


def set_equipment(
    attributes: Attributes,
    *,
    provenance: Provenance,
    policy: DerivationPolicy,
    source_is_derived: bool,
    processed_at: str,
) -> None:
    """Record the source's equipment as contributing and put the node's in its place.

    `processed_at` is a DT value in the object's own time zone.
    """
    source_item = _source_item(attributes, source_is_derived=source_is_derived)
    append_items(
        attributes,
        "ContributingEquipmentSequence",
        [source_item, _node_item(provenance, policy, processed_at)],
    )
    if policy.equipment_policy == "standard":
        drop(attributes, (*EQUIPMENT_IDENTITY, *EQUIPMENT_STATE))
        _put_node(attributes, provenance, policy)


def _put_node(attributes: Attributes, provenance: Provenance, policy: DerivationPolicy) -> None:
    """The node's name, model, versions and station."""
    put_text(attributes, "Manufacturer", policy.manufacturer)
    put_text(attributes, "ManufacturerModelName", MODEL_NAME)
    put_text(attributes, "SoftwareVersions", *provenance.software_versions)
    if policy.station_name:
        put_text(attributes, "StationName", policy.station_name)


def _node_item(provenance: Provenance, policy: DerivationPolicy, processed_at: str) -> Attributes:
    """Our item: processing equipment, the version, when and what."""
    item: Attributes = {}
    _put_node(item, provenance, policy)
    put_items(item, "PurposeOfReferenceCodeSequence", [PROCESSING_EQUIPMENT.as_item()])
    put_text(item, "ContributionDateTime", processed_at)
    put_text(item, "ContributionDescription", provenance.description[:1024])
    return item


def _source_item(attributes: Attributes, *, source_is_derived: bool) -> Attributes:
    """The equipment the source names: the scanner, or an earlier post-processor."""
    item: Attributes = {}
    for keyword in _CARRIED_INTO_ITEM:
        value = value_of(attributes, keyword)
        if value and value.strip(b" \0"):
            put_bytes(item, keyword, value)
    if value_of(item, "Manufacturer") is None:
        put_text(item, "Manufacturer", "UNKNOWN")  # Type 1 in the item, Type 2 in the source
    purpose = PROCESSING_EQUIPMENT if source_is_derived else ACQUISITION_EQUIPMENT
    put_items(item, "PurposeOfReferenceCodeSequence", [purpose.as_item()])
    when = _acquired_at(attributes)
    if when and not source_is_derived:
        put_bytes(item, "ContributionDateTime", when)
    words = "Earlier processing" if source_is_derived else "Acquisition equipment"
    put_text(item, "ContributionDescription", f"{words} of the source image")
    return item


def _acquired_at(attributes: Attributes) -> bytes | None:
    """AcquisitionDateTime, else date and time joined, if they have the form of PS3.5 6.2."""
    stated = value_of(attributes, "AcquisitionDateTime")
    if stated and stated.strip(b" \0"):
        return stated
    date = (value_of(attributes, "AcquisitionDate") or b"").strip(b" \0")
    time = (value_of(attributes, "AcquisitionTime") or b"").strip(b" \0")
    if _DATE.fullmatch(date) and _TIME.fullmatch(time):
        return date + time
    return date if _DATE.fullmatch(date) else None
