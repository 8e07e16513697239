"""Who we are in a DICOM object, and how we know our own work when it comes back."""

from __future__ import annotations

from typing import Final

from pydicom.dataset import Dataset

from dicom_node.imaging.elements import decoded_text, items, text, texts

MODEL_NAME: Final = "dicom-enhancement-node"
"""ManufacturerModelName in every object the node makes, whatever manufacturer name a site configures."""

DEFAULT_MANUFACTURER: Final = "DICOM Enhancement Node"
IMAGE_TYPE_TERM: Final = "DENOISED"


def is_derived_by_node(ds: Dataset) -> bool:
    """Whether an enhancement node made this object: routing it in again would be a loop.

    Asked of the equipment module, of every contributing equipment item, and, for objects whose
    equipment was rewritten on the way, of our manufacturer name together with our ImageType term.
    """
    if text(ds, "ManufacturerModelName") == MODEL_NAME:
        return True
    for item in items(ds, "ContributingEquipmentSequence"):
        if text(item, "ManufacturerModelName") == MODEL_NAME:
            return True
    ours = decoded_text(ds, "Manufacturer") == DEFAULT_MANUFACTURER
    return ours and IMAGE_TYPE_TERM in texts(ds, "ImageType")
