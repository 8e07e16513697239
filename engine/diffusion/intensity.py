"""The invertible linear scaling between scanner units and model units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.errors import EngineInputError
from engine.volume import IntensityUnit

HU_PER_UNIT = 250.0
"""CT scale: fixed, because HU are absolute. At this scale usual noise lies at steps 10-300 of 1000."""
_MOST_VALUES = 4_000_000
"""Percentiles are taken of no more values, evenly spread."""
MR_TOP = 4.0
"""Model value of the 99.5th percentile of an MR foreground."""


@dataclass(frozen=True)
class ModelUnits:
    """model = array / scale. Zero stays zero: water in CT, no signal in MR."""

    scale: float

    def to_model(self, array: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return model units."""
        return (array / np.float32(self.scale)).astype(np.float32)

    def to_array(self, model: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return scanner units."""
        return (model * np.float32(self.scale)).astype(np.float32)


def model_units(
    array: NDArray[np.float32], unit: IntensityUnit, valid: NDArray[np.bool_] | None = None
) -> ModelUnits:
    """Choose the scale of a volume.

    CT: 250 HU. MR: the 99.5th percentile of the foreground (above 15 % of the 99.9th percentile of all
    voxels) becomes 4. Raises `EngineInputError` for an MR volume without positive signal.
    """
    if unit is IntensityUnit.HU:
        return ModelUnits(HU_PER_UNIT)
    values = array.ravel() if valid is None else array[valid]
    values = values[:: max(1, values.size // _MOST_VALUES)]
    top = float(np.percentile(values, 99.9)) if values.size else 0.0
    if top <= 0:
        raise EngineInputError("the MR volume has no positive signal")
    foreground = values[values > 0.15 * top]
    return ModelUnits(float(np.percentile(foreground, 99.5)) / MR_TOP)
