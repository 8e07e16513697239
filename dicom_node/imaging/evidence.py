"""What was seen of a series when it was judged: facts for the job log and for `series show`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dicom_node.errors import Reason
from dicom_node.imaging.headers import InstanceHeader

_LISTED = 100
"""Slices left out that the job log names one by one; the rest are counted."""


@dataclass(frozen=True)
class Gap:
    """A hole in the stack: `missing` slices lie between two neighbours `distance_mm` apart.

    after_index  index of the slice before the hole, counted along the stack from 0
    """

    after_index: int
    distance_mm: float
    missing: int


@dataclass(frozen=True)
class LeftOut:
    """A slice that belongs to no volume and stays as it is: nothing is derived from it."""

    sop_instance_uid: str
    reason: Reason


@dataclass(frozen=True)
class VolumeFacts:
    """One volume of the series: what tells it apart, how many slices, how they lie."""

    label: str
    slices: int
    spacing_mm: float
    shear_deg: float

    def as_json(self) -> dict[str, Any]:
        """Plain values for the database."""
        return {
            "label": self.label,
            "slices": self.slices,
            "spacing_mm": round(self.spacing_mm, 4),
            "shear_deg": round(self.shear_deg, 3),
        }


@dataclass(frozen=True)
class Evidence:
    """How complete and how regular a series is, as far as it can be told.

    level            ``count`` when the objects state how many there should be, else ``geometry``
    expected_count   that number, or None
    found            instances looked at
    spacing_mm       distance between neighbouring slices, None before it was measured
    shear_deg        angle between the stacking direction and the slice normal
    gaps             holes in the stack
    duplicates       instances that share their position with another one
    number_holes     InstanceNumbers that are skipped between the smallest and the largest
    volumes          what the series was taken apart into
    left_out         slices that belong to no volume, each with its reason
    notes            what is unusual about a series that is enhanced all the same
    """

    level: Literal["count", "geometry"]
    expected_count: int | None
    found: int
    number_holes: int
    spacing_mm: float | None = None
    shear_deg: float | None = None
    gaps: tuple[Gap, ...] = ()
    duplicates: int = 0
    volumes: tuple[VolumeFacts, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[Reason, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return plain values for the database."""
        return {
            "level": self.level,
            "expected_count": self.expected_count,
            "found": self.found,
            "number_holes": self.number_holes,
            "spacing_mm": None if self.spacing_mm is None else round(self.spacing_mm, 4),
            "shear_deg": None if self.shear_deg is None else round(self.shear_deg, 3),
            "gaps": [
                {"after_index": g.after_index, "distance_mm": round(g.distance_mm, 3), "missing": g.missing}
                for g in self.gaps
            ],
            "duplicates": self.duplicates,
            "volumes": [volume.as_json() for volume in self.volumes],
            "left_out": len(self.left_out),
            "left_out_instances": [
                {"sop_instance_uid": entry.sop_instance_uid, "reason": str(entry.reason)}
                for entry in self.left_out[:_LISTED]
            ],
            "notes": [str(note) for note in self.notes],
        }


def gather(headers: Sequence[InstanceHeader]) -> Evidence:
    """Return what counts and numbers alone say about completeness."""
    expected = _expected_count(headers)
    numbers = {h.instance_number for h in headers if h.instance_number is not None}
    holes = max(numbers) - min(numbers) + 1 - len(numbers) if numbers else 0
    return Evidence(
        level="geometry" if expected is None else "count",
        expected_count=expected,
        found=len(headers),
        number_holes=holes,
    )


def _expected_count(headers: Sequence[InstanceHeader]) -> int | None:
    """ImagesInAcquisition, where one acquisition made the whole series and every slice agrees.

    The attribute counts the images of an acquisition, not of a series (PS3.3 C.7.6.1.1); a number smaller
    than what arrived therefore says nothing.
    """
    if not headers:
        return None
    counts = {h.images_in_acquisition for h in headers}
    acquisitions = {dict(h.discriminators).get("AcquisitionNumber", "") for h in headers}
    (count, *others) = counts
    if others or count is None or len(acquisitions) != 1 or count < len(headers):
        return None
    return count
