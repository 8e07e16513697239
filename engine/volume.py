"""The volume: an array of intensities and where it lies in the patient. Not a DICOM object."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineInputError


class IntensityUnit(StrEnum):
    """What one unit of `Volume.array` means."""

    HU = "HU"
    """Hounsfield units (CT): absolute."""
    ARBITRARY = "arbitrary"
    """Scanner units (MR): only ratios within one volume have a meaning."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A regular grid of intensities.

    array   (slices, rows, columns), float32, finite, in `unit`.
    affine  (4, 4), float64: maps the homogeneous index (slice, row, column, 1) of a voxel centre to
            LPS patient coordinates in mm (PS3.3 C.7.6.2.1.1).
    unit    Hounsfield units for CT, arbitrary for MR.
    valid   (slices, rows, columns) bool, or None when every voxel was measured. False marks pixel
            padding: its intensity carries no information and is returned untouched.

    Raises `EngineInputError` when a shape, dtype or value breaks this contract.
    """

    array: NDArray[np.float32]  # (slices, rows, columns)
    affine: NDArray[np.float64]  # (4, 4)
    unit: IntensityUnit
    valid: NDArray[np.bool_] | None = None  # (slices, rows, columns)

    def __post_init__(self) -> None:
        if self.array.ndim != 3 or self.array.dtype != np.float32 or 0 in self.array.shape:
            raise EngineInputError(
                f"a volume is a 3D float32 array, not {self.array.dtype}{self.array.shape}"
            )
        if self.affine.shape != (4, 4) or not np.isfinite(self.affine).all():
            raise EngineInputError("the affine is a finite 4x4 matrix")
        if abs(float(np.linalg.det(self.affine[:3, :3]))) < 1e-12:
            raise EngineInputError("the affine is singular")
        if self.valid is not None and (self.valid.shape != self.array.shape or self.valid.dtype != np.bool_):
            raise EngineInputError("the valid mask is a bool array of the volume's shape")
        # The extremes are NaN where any value is, and need no second array.
        if not (np.isfinite(self.array.min()) and np.isfinite(self.array.max())):
            raise EngineInputError("the volume holds NaN or infinite intensities")

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along (slice, row, column) index, in mm."""
        steps = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(steps[0]), float(steps[1]), float(steps[2])

    def with_array(self, array: NDArray[np.float32]) -> Volume:
        """Return the same grid with other intensities of the same shape."""
        if array.shape != self.array.shape:
            raise EngineInputError(f"expected an array of shape {self.array.shape}, found {array.shape}")
        return replace(self, array=array)
