"""Where the slices lie: one grid, one direction, one spacing, and the order along it.

The tolerances are explicit because the defaults of toolkits are either blind or too strict: positions are
often rounded to 0.1 mm, and a tilt of 2.5 degrees passes a test for "perpendicular" that looks strict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dicom_node.errors import Reason, SkipSeriesError
from dicom_node.imaging.headers import InstanceHeader

Floats = NDArray[np.float64]

UNIT_TOLERANCE = 1e-3
"""How far direction cosines may be from unit length and from each other's normal."""
ORIENTATION_TOLERANCE_DEG = 0.1
"""How far a slice may be turned against the median of the series."""
SPACING_TOLERANCE_MM = 0.06
"""Smallest tolerance of a position: absorbs positions rounded to one decimal."""
SPACING_TOLERANCE_SHARE = 0.01
"""Tolerance of a position as a share of the slice distance, where that is larger."""
SHEAR_LIMIT_DEG = 0.5
"""Largest angle between the stacking direction and the slice normal of an orthogonal grid."""
SAME_POSITION_MM = 0.01
"""Slices closer than this along the normal share a position."""
_PIXEL_SPACING_SHARE = 1e-4
_FAR_MM = 1e5
"""No patient is a hundred metres away, and no pixel is as wide."""
_FINEST_MM = 1e-4
"""No pixel of a scanner is finer."""


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices sorted along their common normal.

    order       index into the headers, ascending along the normal
    positions   (slices, 3), LPS mm, sorted
    distances   (slices,), mm along the normal, sorted
    row, column, normal   unit vectors: along a row (rising column index), along a column, row x column
    pixel_spacing         (between rows, between columns), mm
    """

    order: tuple[int, ...]
    positions: Floats
    distances: Floats
    row: Floats
    column: Floats
    normal: Floats
    pixel_spacing: tuple[float, float]

    @property
    def direction(self) -> Floats:
        """Vector from slice to slice per mm along the normal (least squares), so `normal` @ it is 1."""
        d = self.distances - self.distances.mean()
        return np.asarray(d @ (self.positions - self.positions.mean(axis=0)) / (d @ d))

    @property
    def shear_deg(self) -> float:
        """Angle between the stacking direction and the normal."""
        step = self.direction
        across = np.linalg.norm(np.cross(step, self.normal))
        return float(np.degrees(np.arctan2(across, abs(step @ self.normal))))

    @property
    def spacing_mm(self) -> float:
        """Distance between slices: slope of the straight line through the distances."""
        return float(np.polyfit(np.arange(len(self.distances)), self.distances, 1)[0])

    def tolerance_mm(self, spacing_mm: float) -> float:
        """How far a slice may lie from its place on a grid of that spacing."""
        return max(SPACING_TOLERANCE_MM, SPACING_TOLERANCE_SHARE * spacing_mm)

    @property
    def is_uniform(self) -> bool:
        """Whether every slice lies on the straight line within the tolerance."""
        index = np.arange(len(self.distances))
        slope, offset = np.polyfit(index, self.distances, 1)
        residual = np.abs(self.distances - (offset + slope * index)).max()
        return bool(residual <= self.tolerance_mm(float(slope)))

    @property
    def first_at_each_position(self) -> tuple[int, ...]:
        """Index of the first slice at each position (`SAME_POSITION_MM`), ascending."""
        starts = np.diff(self.distances, prepend=-np.inf) > SAME_POSITION_MM
        return tuple(int(i) for i in np.flatnonzero(starts))

    @property
    def sideways_mm(self) -> float:
        """Largest distance of a slice origin from the straight line through all of them."""
        d = self.distances - self.distances.mean()
        expected = self.positions.mean(axis=0) + np.outer(d, self.direction)
        return float(np.linalg.norm(self.positions - expected, axis=1).max())

    @property
    def affine(self) -> Floats:
        """Index (slice, row, column, 1) to LPS mm of the voxel centres (PS3.3 C.7.6.2.1.1)."""
        affine = np.eye(4)
        steps = len(self.distances) - 1
        affine[:3, 0] = (self.positions[-1] - self.positions[0]) / steps
        affine[:3, 1] = self.column * self.pixel_spacing[0]
        affine[:3, 2] = self.row * self.pixel_spacing[1]
        affine[:3, 3] = self.positions[0]
        return affine


def has_place(header: InstanceHeader) -> bool:
    """Whether a slice states a usable position, orientation and pixel spacing (PS3.3 C.7.6.2)."""
    g = header.geometry
    if g.position is None or g.orientation is None or g.pixel_spacing is None:
        return False
    values = (np.array([part], dtype=np.float64) for part in (g.position, g.orientation, g.pixel_spacing))
    return _is_usable(*values)


def grid_groups(headers: Sequence[InstanceHeader]) -> list[tuple[int, ...]]:
    """Return indices of slices that share matrix, pixel spacing, SOP class and orientation, largest group first.

    Every slice has a place (`has_place`). Orientations within `ORIENTATION_TOLERANCE_DEG` count as one.
    """
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, header in enumerate(headers):
        groups.setdefault(_grid_key(header, list(groups)), []).append(index)
    found = [part for group in groups.values() for part in _by_orientation(headers, group)]
    return sorted(found, key=len, reverse=True)


def _grid_key(header: InstanceHeader, known: Sequence[tuple[object, ...]]) -> tuple[object, ...]:
    """Matrix, class and pixel spacing; a spacing that differs in its last digits counts as one seen before."""
    spacing = header.geometry.pixel_spacing or (0.0, 0.0)
    key = (header.sop_class_uid, header.pixels.rows, header.pixels.columns, header.pixels.bits_allocated)
    for other in known:
        before = np.array(other[4:], dtype=np.float64)
        if other[:4] == key and np.abs(before / spacing - 1).max() <= _PIXEL_SPACING_SHARE:
            return other
    return (*key, *spacing)


def _by_orientation(headers: Sequence[InstanceHeader], group: list[int]) -> list[tuple[int, ...]]:
    """Cut a group into slices of one orientation: around the median, else around the first slice."""
    parts = []
    while group:
        orientations = np.array([headers[i].geometry.orientation for i in group], dtype=np.float64)
        near = _turned_deg(orientations, np.median(orientations, axis=0)) <= ORIENTATION_TOLERANCE_DEG
        if not near.any():
            near = _turned_deg(orientations, orientations[0]) <= ORIENTATION_TOLERANCE_DEG
        parts.append(tuple(i for i, is_near in zip(group, near, strict=True) if is_near))
        group = [i for i, is_near in zip(group, near, strict=True) if not is_near]
    return parts


def _turned_deg(orientations: Floats, reference: Floats) -> Floats:
    """How far rows and columns are turned against a reference, the larger of both: (n,)."""
    angles = []
    for part in (slice(0, 3), slice(3, 6)):
        vectors, axis = orientations[:, part], reference[part]
        across = np.linalg.norm(np.cross(vectors, axis), axis=1)
        angles.append(np.degrees(np.arctan2(across, vectors @ axis)))
    return np.asarray(np.maximum(angles[0], angles[1]), np.float64)


def has_jitter(headers: Sequence[InstanceHeader]) -> bool:
    """Whether slices of one orientation state it in different digits."""
    return len({header.geometry.orientation for header in headers}) > 1


def make_stack(headers: Sequence[InstanceHeader]) -> Stack:
    """Sort the slices along their normal.

    Raises `SkipSeriesError`: NO_GEOMETRY when a value is missing or no geometry at all, MIXED_GEOMETRY
    when matrix, pixel spacing or orientation differ.
    """
    positions, orientations, spacings = _read(headers)
    _require_one_matrix(headers, spacings)
    row, column, normal = _common_axes(orientations)
    distances = positions @ normal
    order = np.argsort(distances, kind="stable")
    return Stack(
        order=tuple(int(i) for i in order),
        positions=positions[order],
        distances=distances[order],
        row=row,
        column=column,
        normal=normal,
        pixel_spacing=(float(spacings[0, 0]), float(spacings[0, 1])),
    )


def _read(headers: Sequence[InstanceHeader]) -> tuple[Floats, Floats, Floats]:
    """Positions (n, 3), orientations (n, 6), pixel spacings (n, 2) of slices that have all three."""
    complete = [
        (g.position, g.orientation, g.pixel_spacing)
        for g in (h.geometry for h in headers)
        if g.position is not None and g.orientation is not None and g.pixel_spacing is not None
    ]
    if len(complete) < len(headers):
        missing = len(headers) - len(complete)
        raise SkipSeriesError(Reason.NO_GEOMETRY, f"{missing} of {len(headers)} slices lack values.")
    positions, orientations, spacings = (
        np.array(part, dtype=np.float64) for part in zip(*complete, strict=True)
    )
    _require_usable(positions, orientations, spacings)
    return positions, orientations, spacings


def _require_usable(positions: Floats, orientations: Floats, spacings: Floats) -> None:
    """Finite numbers, positive spacing, direction cosines that are unit vectors at right angles."""
    if not _is_usable(positions, orientations, spacings):
        raise SkipSeriesError(Reason.NO_GEOMETRY, "Direction cosines or spacing are no geometry.")


def _is_usable(positions: Floats, orientations: Floats, spacings: Floats) -> bool:
    """Whether these are a geometry: (n, 3), (n, 6), (n, 2)."""
    row, column = orientations[:, :3], orientations[:, 3:]
    return bool(
        np.isfinite(positions).all()
        and np.isfinite(orientations).all()
        and np.isfinite(spacings).all()
        and np.abs(positions).max() < _FAR_MM
        and (spacings >= _FINEST_MM).all()
        and (spacings < _FAR_MM).all()
        and (np.abs(np.linalg.norm(row, axis=1) - 1) <= UNIT_TOLERANCE).all()
        and (np.abs(np.linalg.norm(column, axis=1) - 1) <= UNIT_TOLERANCE).all()
        and (np.abs((row * column).sum(axis=1)) <= UNIT_TOLERANCE).all()
    )


def _require_one_matrix(headers: Sequence[InstanceHeader], spacings: Floats) -> None:
    """One matrix size and one pixel spacing."""
    shapes = {(h.pixels.rows, h.pixels.columns) for h in headers}
    if len(shapes) > 1:
        raise SkipSeriesError(Reason.MIXED_GEOMETRY, f"{len(shapes)} matrix sizes.")
    spread = np.abs(spacings / spacings[0] - 1).max()
    if spread > _PIXEL_SPACING_SHARE:
        raise SkipSeriesError(Reason.MIXED_GEOMETRY, "Several pixel spacings.")


def _common_axes(orientations: Floats) -> tuple[Floats, Floats, Floats]:
    """Row, column and normal of the median orientation; every slice must be within the tolerance."""
    median = np.median(orientations, axis=0)
    row = _unit(median[:3])
    column = _unit(median[3:] - row * (median[3:] @ row))
    turned = float(_turned_deg(orientations, np.concatenate([row, column])).max())
    if turned > 2 * ORIENTATION_TOLERANCE_DEG:
        raise SkipSeriesError(
            Reason.MIXED_GEOMETRY, f"Slices are turned against each other by {turned:.1f} degrees."
        )
    return row, column, np.cross(row, column)


def _unit(vector: Floats) -> Floats:
    """Scale to length 1; a median of opposite directions has none."""
    length = float(np.linalg.norm(vector))
    if length < 0.5:
        raise SkipSeriesError(Reason.MIXED_GEOMETRY, "The slices have no common orientation.")
    return np.asarray(vector / length)
