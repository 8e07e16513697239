"""How far an enhanced volume may stray from the scan: the limits that enhancers keep and guards check."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ive
from torch import Tensor

from engine.noise import NoiseEstimate
from engine.volume import IntensityUnit, Volume

Array = NDArray[np.float32]

RESIDUAL_LIMIT = 3.0
"""No voxel changes by more than this many local standard deviations of the noise."""
_RICIAN_REACH = 30.0
"""Beyond this many deviations the bias, sigma^2 / (2 A), counts as none."""
_SLAB = {"cpu": 16, "cuda": 128}
"""Slices settled at a time: bounds the memory."""
_UNTOUCHED = 2.0
"""Changes up to this many standard deviations pass as they are."""


def saturate(change: Tensor, sigma: Tensor) -> Tensor:
    """Bound a change smoothly: unaltered up to 2 sigma, approaching 3 sigma, never beyond. Odd in `change`."""
    size = change.abs()
    free, room = _UNTOUCHED * sigma, (RESIDUAL_LIMIT - _UNTOUCHED) * sigma
    eased = room * torch.tanh((size - free).clamp_min(0.0) / room.clamp_min(1e-20))
    return torch.minimum(size, free + eased).copysign(change)


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
    scan = torch.from_numpy(np.ascontiguousarray(volume.array))
    valid = None if volume.valid is None else torch.from_numpy(volume.valid)
    settled = settle_tensor(
        scan, valid, torch.from_numpy(np.ascontiguousarray(proposal)), noise, strength=strength
    )
    result: Array = settled.numpy()
    return result


def settle_tensor(
    scan: Tensor, valid: Tensor | None, proposal: Tensor, noise: NoiseEstimate, *, strength: float = 1.0
) -> Tensor:
    """Do the same for tensors (Z, Y, X) on one device."""
    measured = scan if valid is None else scan[valid]
    lowest, highest = (float(v) for v in measured.aminmax()) if measured.numel() else (0.0, 0.0)
    settled = torch.empty_like(scan)
    thick = _SLAB[scan.device.type]
    for first in range(0, scan.shape[0], thick):
        cut = slice(first, min(first + thick, scan.shape[0]))
        sigma = noise.local_deviation(tuple(scan.shape), first, cut.stop, scan.device)
        change = saturate(proposal[cut] - scan[cut], sigma)
        settled[cut] = (scan[cut] + strength * change).clamp(lowest, highest)
    return settled if valid is None else torch.where(valid, settled, scan)
