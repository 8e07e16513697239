"""The orthonormal 3D Haar transform of 2x2x2 blocks, exactly invertible, in sums and differences.

Orthonormal means white noise keeps its standard deviation in every band, so one sigma describes all
eight; exact inversion means the front end of the network loses nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor

BANDS = 8
"""Bands of one level. Bit 2, 1, 0 of the band number: high-pass along slices, rows, columns."""

_HALF_SQRT = 0.5**0.5


def haar_split(x: Tensor) -> Tensor:
    """Return the eight half-resolution bands of every channel.

    `x`: (N, C, Z, Y, X), every spatial size even. Result: (N, 8 C, Z/2, Y/2, X/2), band number fastest
    within a channel. Raises `ValueError` for an odd size.
    """
    n, c, z, y, w = x.shape
    if z % 2 or y % 2 or w % 2:
        raise ValueError(f"the Haar transform needs even sizes, not {(z, y, w)}")
    blocks = x.reshape(n, c, z // 2, 2, y // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 7, 2, 4, 6)
    for axis in (2, 3, 4):
        low, high = blocks.unbind(axis)
        blocks = torch.stack(((low + high) * _HALF_SQRT, (low - high) * _HALF_SQRT), dim=axis)
    return blocks.reshape(n, c * BANDS, z // 2, y // 2, w // 2)


def haar_merge(bands: Tensor) -> Tensor:
    """Invert `haar_split`. `bands`: (N, 8 C, Z, Y, X). Result: (N, C, 2 Z, 2 Y, 2 X)."""
    n, c8, z, y, w = bands.shape
    c = c8 // BANDS
    blocks = bands.reshape(n, c, 2, 2, 2, z, y, w)
    for axis in (2, 3, 4):
        low, high = blocks.unbind(axis)
        blocks = torch.stack(((low + high) * _HALF_SQRT, (low - high) * _HALF_SQRT), dim=axis)
    return blocks.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(n, c, 2 * z, 2 * y, 2 * w)
