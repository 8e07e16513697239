"""What the other series of a study have taken already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dicom_node.errors import UnreadableInstanceError
from dicom_node.imaging.elements import integer
from dicom_node.imaging.parsing import read_dataset


def series_numbers_of(instances: Sequence[Path]) -> frozenset[int]:
    """Return the SeriesNumbers of instances of other series; one that cannot be read takes no number."""
    found = set()
    for path in instances:
        try:
            number = integer(read_dataset(path, pixels=False), "SeriesNumber")
        except UnreadableInstanceError:
            continue
        if number is not None:
            found.add(number)
    return frozenset(found)
