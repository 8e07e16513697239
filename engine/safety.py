"""How far an enhanced volume may stray from the scan: the limits that enhancers keep and guards check."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from engine.volume import IntensityUnit, Volume

Array = NDArray[np.float32]

RESIDUAL_LIMIT = 3.0
"""No voxel changes by more than this many local standard deviations of the noise."""
_UNTOUCHED = 2.0
"""Changes up to this many standard deviations pass as they are."""


def saturate(change: Array, sigma: Array) -> Array:
    """Bound a change smoothly: unaltered up to 2 sigma, approaching 3 sigma, never beyond. Odd in `change`."""
    size = np.abs(change)
    free = np.float32(_UNTOUCHED) * sigma
    room = np.float32(RESIDUAL_LIMIT - _UNTOUCHED) * sigma
    excess = np.maximum(size - free, 0)
    eased = room * np.tanh(excess / np.maximum(room, np.float32(1e-20)))
    return np.asarray(np.copysign(np.minimum(size, free + eased), change), np.float32)


def tolerance(volume: Volume) -> float:
    """Return the bias that counts as none: 1 HU in CT, 0.5 % of the 99.5th percentile in MR."""
    if volume.unit is IntensityUnit.HU:
        return 1.0
    measured = volume.array.ravel() if volume.valid is None else volume.array[volume.valid]
    if measured.size == 0:
        return 0.0
    return 0.005 * abs(float(np.percentile(measured[:: max(1, measured.size // 500_000)], 99.5)))
