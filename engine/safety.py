"""How far an enhanced volume may stray from the scan: the limits that enhancers keep and guards check."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ive

from engine.noise import NoiseEstimate
from engine.volume import IntensityUnit, Volume

Array = NDArray[np.float32]

RESIDUAL_LIMIT = 3.0
"""No voxel changes by more than this many local standard deviations of the noise."""
_RICIAN_REACH = 30.0
"""Beyond this many deviations the bias, sigma^2 / (2 A), counts as none."""
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


def magnitude_bias(signal: Array, sigma: float) -> Array:
    """Return E[M] - A of a Rician magnitude M above its signal A >= 0, noise `sigma` (Koay and Basser 2006).

    What the magnitude of MR adds to weak signal. From a table in A / sigma, exact to 1e-4 sigma.
    """
    ratio = np.linspace(0.0, _RICIAN_REACH, 1024)
    q = np.square(ratio) / 4.0
    mean = np.sqrt(np.pi / 2) * ((1.0 + 2.0 * q) * ive(0, q) + 2.0 * q * ive(1, q))
    scaled = np.clip(signal, 0.0, None) / np.float32(max(sigma, 1e-20))
    lifted = np.interp(scaled, ratio, mean - ratio, right=0.0) * sigma
    return np.asarray(lifted, np.float32)


def settle(volume: Volume, proposal: Array, noise: NoiseEstimate, *, strength: float = 1.0) -> Array:
    """Turn what an enhancer proposes into what it may return.

    `proposal`: (slices, rows, columns), the volume's unit. The change is bounded to three local standard
    deviations and scaled by `strength`, no intensity leaves the range that was measured, and padding comes
    back bit by bit.
    """
    source = volume.array
    measured = source if volume.valid is None else source[volume.valid]
    lowest, highest = (measured.min(), measured.max()) if measured.size else (0.0, 0.0)
    settled = np.empty_like(source)
    for index, before in enumerate(source):
        sigma = noise.local_sigma(source.shape, index, index + 1)[0]
        change = saturate(proposal[index] - before, sigma)
        settled[index] = np.clip(before + np.float32(strength) * change, lowest, highest)
    if volume.valid is not None:
        np.copyto(settled, source, where=~volume.valid)
    return settled
