"""Bounds on what the diffusion engine may change, as functions of the residual scan - result."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

RESIDUAL_BOUND = 4.0
"""No voxel changes by more than this many local noise deviations."""
_LINEAR_UNTIL = 3.0
_LOW_PASS = 4.0
_LOW_LIMIT = 3.0
_MARGIN = 1.5


def local_noise(residual: Tensor, sigma: float) -> Tensor:
    """Return the noise deviation around every voxel (Z, Y, X), at least `sigma`, from the residual."""
    power = residual[None, None].square()
    size = [min(16, n) for n in residual.shape]
    coarse = F.avg_pool3d(power, size, ceil_mode=True)
    smooth = F.interpolate(coarse, size=tuple(residual.shape), mode="nearest")[0, 0]
    return smooth.sqrt().clamp(sigma, 3.0 * sigma)


def bound_residual(residual: Tensor, sigma: float) -> tuple[Tensor, float]:
    """Saturate the residual smoothly beyond three local deviations, never reaching four.

    Returns the bounded residual (Z, Y, X) and the share of voxels that were touched: a hard guarantee
    that nothing well above the noise is added or removed.
    """
    scale = local_noise(residual, sigma)
    units = residual / scale
    excess = (units.abs() - _LINEAR_UNTIL).clamp_min(0.0)
    span = RESIDUAL_BOUND - _LINEAR_UNTIL
    bounded = units.clamp(-_LINEAR_UNTIL, _LINEAR_UNTIL) + units.sign() * span * torch.tanh(excess / span)
    return bounded * scale, float((excess > 0).float().mean())


def keep_low_frequencies(residual: Tensor, sigma: float, colour: Tensor) -> tuple[Tensor, float]:
    """Take back what the residual holds at low frequencies beyond three times the expected noise.

    `colour`: (1, COLOUR_SIZE) of the scan's noise; its coarsest bands tell how much noise survives a
    Gaussian of four voxels. Prevents HU drift and blobs. Returns the residual and the share touched.
    """
    smooth = gaussian_blur(residual, _LOW_PASS)
    white = sigma * (2.0 * math.sqrt(math.pi) * _LOW_PASS) ** -1.5
    limit = _LOW_LIMIT * _MARGIN * white * math.exp(max(0.0, float(colour[0, 5:].max())))
    limit *= math.sqrt(max(1.0, 8.0 / residual.shape[0]))
    excess = smooth - smooth.clamp(-limit, limit)
    return residual - excess, float((excess != 0).float().mean())


def gaussian_blur(x: Tensor, deviation: float) -> Tensor:
    """Separable Gaussian of `deviation` voxels on (Z, Y, X), edges replicated."""
    out = x[None, None]
    for axis in range(3):
        radius = min(int(3 * deviation), x.shape[axis] - 1)
        if radius < 1:
            continue
        offsets = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
        kernel = torch.exp(-0.5 * (offsets / deviation) ** 2)
        shape, pad = [1, 1, 1, 1, 1], [0] * 6
        shape[axis + 2] = -1
        pad[2 * (2 - axis)] = pad[2 * (2 - axis) + 1] = radius
        out = F.conv3d(F.pad(out, pad, mode="replicate"), (kernel / kernel.sum()).reshape(shape))
    return out[0, 0]
