"""Coded concepts: the few the node writes, and the shipped table to check all of them against (PS3.16)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from dicom_node.imaging.elements import text
from dicom_node.imaging.encoding import Attributes, put_text


@dataclass(frozen=True)
class Concept:
    """A coded concept of the DCM scheme: value and meaning belong together."""

    value: str
    meaning: str
    scheme: str = "DCM"

    def as_item(self) -> Attributes:
        """The item of a code sequence (PS3.3 8.8)."""
        item: Attributes = {}
        put_text(item, "CodeValue", self.value)
        put_text(item, "CodingSchemeDesignator", self.scheme)
        put_text(item, "CodeMeaning", self.meaning)
        return item


SMOOTHING = Concept("113087", "Smoothing")
"""CID 7203. The nearest member: up to 2026b no code says noise reduction."""
SOURCE_IMAGE = Concept("121322", "Source image for image processing operation")
SOURCE_SERIES = Concept("121323", "Source series for image processing operation")
ACQUISITION_EQUIPMENT = Concept("109101", "Acquisition Equipment")
PROCESSING_EQUIPMENT = Concept("109102", "Processing Equipment")


def concept_of(item: Dataset) -> Concept:
    """Read the triplet of a code sequence item; what is missing is empty."""
    return Concept(text(item, "CodeValue"), text(item, "CodeMeaning"), text(item, "CodingSchemeDesignator"))


@lru_cache(maxsize=1)
def _dcm_table() -> dict[str, str]:
    """Code value to meaning of the DCM scheme as shipped with pydicom."""
    found = (getattr(codes.DCM, name) for name in codes.DCM.dir())
    return {code.value: code.meaning for code in found}


def is_known(concept: Concept) -> bool:
    """Whether a DCM triplet stands in the shipped table, word for word; other schemes are not judged."""
    return concept.scheme != "DCM" or _dcm_table().get(concept.value) == concept.meaning
