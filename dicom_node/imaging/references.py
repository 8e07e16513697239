"""What the derived instance refers to: its source slice, and everything the source referred to.

ReferencedSeriesSequence lists exactly the instances that the object refers to (PS3.3 C.12.2): a viewer
follows it, and an instance listed there but referred to nowhere is as wrong as one missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydicom.dataset import Dataset

from dicom_node.imaging.codes import SOURCE_IMAGE, SOURCE_SERIES
from dicom_node.imaging.elements import items, text
from dicom_node.imaging.encoding import Attributes, put_items, put_text


@dataclass(frozen=True)
class Reference:
    """A referenced SOP instance."""

    sop_class_uid: str
    sop_instance_uid: str

    def as_item(self) -> Attributes:
        """The SOP instance reference macro (PS3.3 10.8)."""
        item: Attributes = {}
        put_text(item, "ReferencedSOPClassUID", self.sop_class_uid)
        put_text(item, "ReferencedSOPInstanceUID", self.sop_instance_uid)
        return item


def set_references(
    attributes: Attributes, ds: Dataset, *, source: Reference, series_mates: frozenset[str]
) -> None:
    """Refer to the source slice and series, and list all references by series.

    series_mates  SOP Instance UIDs of the source series: targets among them are known to lie in it
    """
    series_uid = text(ds, "SeriesInstanceUID")
    image = source.as_item()
    put_items(image, "PurposeOfReferenceCodeSequence", [SOURCE_IMAGE.as_item()])
    put_text(image, "SpatialLocationsPreserved", "YES")
    put_items(attributes, "SourceImageSequence", [image])

    related: Attributes = {}
    put_text(related, "StudyInstanceUID", text(ds, "StudyInstanceUID"))
    put_text(related, "SeriesInstanceUID", series_uid)
    put_items(related, "PurposeOfReferenceCodeSequence", [SOURCE_SERIES.as_item()])
    put_items(attributes, "RelatedSeriesSequence", [related])

    by_series = referenced_by_series(ds, source=source, series_uid=series_uid, series_mates=series_mates)
    put_items(
        attributes, "ReferencedSeriesSequence", [_series_item(uid, by_series[uid]) for uid in by_series]
    )


def referenced_by_series(
    ds: Dataset, *, source: Reference, series_uid: str, series_mates: frozenset[str]
) -> dict[str, tuple[Reference, ...]]:
    """Return series UID to references: the source slice, and kept references whose series is known.

    The series of a kept ReferencedImageSequence target is known from the source's own
    ReferencedSeriesSequence, or because the target is a slice of the source series itself.
    """
    known = _known_series(ds)
    found: dict[str, dict[str, Reference]] = {series_uid: {source.sop_instance_uid: source}}
    for item in items(ds, "ReferencedImageSequence"):
        target = reference_of(item)
        home = series_uid if target.sop_instance_uid in series_mates else known.get(target.sop_instance_uid)
        if home and target.sop_class_uid:
            found.setdefault(home, {}).setdefault(target.sop_instance_uid, target)
    return {uid: tuple(references.values()) for uid, references in found.items()}


def reference_of(item: Dataset) -> Reference:
    """Read the SOP instance reference macro; what is missing is empty."""
    return Reference(text(item, "ReferencedSOPClassUID"), text(item, "ReferencedSOPInstanceUID"))


def _known_series(ds: Dataset) -> Mapping[str, str]:
    """SOP Instance UID to Series Instance UID, as the source lists them."""
    return {
        reference_of(instance).sop_instance_uid: text(series, "SeriesInstanceUID")
        for series in items(ds, "ReferencedSeriesSequence")
        for instance in items(series, "ReferencedInstanceSequence")
    }


def _series_item(series_uid: str, references: tuple[Reference, ...]) -> Attributes:
    """One item of ReferencedSeriesSequence."""
    item: Attributes = {}
    put_text(item, "SeriesInstanceUID", series_uid)
    put_items(item, "ReferencedInstanceSequence", [reference.as_item() for reference in references])
    return item
