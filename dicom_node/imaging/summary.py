"""A series in the few words that routing rules may ask about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np

from config.rules import SeriesSummary
from dicom_node.imaging.headers import InstanceHeader

_OBLIQUE_COSINE = 0.866
"""A slice more than 30 degrees away from every axis plane is oblique."""


def summarise(headers: Sequence[InstanceHeader], *, calling_ae: str, called_ae: str) -> SeriesSummary:
    """Return the summary of a series; where slices differ, what most of them say.

    Raises `ValueError` for no headers at all.
    """
    if not headers:
        raise ValueError("a series has at least one instance")
    thickness = [h.geometry.slice_thickness_mm for h in headers if h.geometry.slice_thickness_mm is not None]
    return SeriesSummary(
        modality=_most(h.modality for h in headers),
        calling_ae=calling_ae,
        called_ae=called_ae,
        body_part=_most(h.body_part for h in headers),
        series_description=_most(h.series_description for h in headers),
        kernel=_most(h.kernel for h in headers),
        manufacturer=_most(h.manufacturer for h in headers),
        slice_count=len(headers),
        slice_thickness_mm=Counter(thickness).most_common(1)[0][0] if thickness else None,
        orientation=orientation_of(headers),
        contrast=any(h.contrast for h in headers),
    )


def orientation_of(
    headers: Sequence[InstanceHeader],
) -> Literal["axial", "sagittal", "coronal", "oblique", "unknown"]:
    """Return the plane nearest to the slices (PS3.3 C.7.6.2.1.1: LPS axes)."""
    known = [h.geometry.orientation for h in headers if h.geometry.orientation is not None]
    if not known:
        return "unknown"
    median = np.median(np.array(known, dtype=np.float64), axis=0)
    normal = np.abs(np.cross(median[:3], median[3:]))
    length = float(np.linalg.norm(normal))
    if not np.isfinite(length) or length < 0.5:
        return "unknown"
    if float(normal.max()) / length < _OBLIQUE_COSINE:
        return "oblique"
    planes: tuple[Literal["sagittal", "coronal", "axial"], ...] = ("sagittal", "coronal", "axial")
    return planes[int(normal.argmax())]


def _most(values: Iterable[str]) -> str:
    """The most frequent value; the first of several."""
    return Counter(values).most_common(1)[0][0]
