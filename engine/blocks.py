"""The block cosine transform that noise is measured in and removed in.

A block is 4 slices x 8 rows x 8 columns. Its separable orthonormal DCT-II is written as two small matrices,
64 x 64 within a slice and 4 x 4 across slices: many blocks are then transformed by few matrix products,
several times faster than a small fast transform per block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft
from torch import Tensor

Array = NDArray[np.float32]
T = TypeVar("T", bound=np.generic)

BLOCK = (4, 8, 8)
BLOCK_SIZE = 4 * 8 * 8
_PLANE = 8 * 8


class BlockTransform:
    """The orthonormal DCT-II of many blocks at once, optionally with a window applied on the way back."""

    def __init__(self, window: Sequence[NDArray[np.float64]] | None = None) -> None:
        """`window` holds one vector per block axis; their outer product scales the blocks of `inverse`."""
        z, y, x = (fft.dct(np.eye(n), norm="ortho", axis=0) for n in BLOCK)
        wz, wy, wx = window or [np.ones(n) for n in BLOCK]
        self._forward_slices = z.astype(np.float32)
        self._forward_plane = np.ascontiguousarray(np.kron(y, x).T, np.float32)
        self._inverse_slices = np.ascontiguousarray((z * wz).T, np.float32)
        self._inverse_plane = np.kron(y * wy, x * wx).astype(np.float32)

    def forward(self, blocks: Array) -> Array:
        """Turn rows of 256 voxels into rows of 256 bands."""
        planes = _multiply(blocks.reshape(-1, _PLANE), self._forward_plane)
        bands: Array = np.matmul(self._forward_slices, planes.reshape(-1, BLOCK[0], _PLANE))
        return bands.reshape(-1, BLOCK_SIZE)

    def inverse(self, bands: Array) -> Array:
        """Turn rows of 256 bands into rows of 256 voxels, times the window."""
        planes = np.matmul(self._inverse_slices, bands.reshape(-1, BLOCK[0], _PLANE))
        return _multiply(planes.reshape(-1, _PLANE), self._inverse_plane).reshape(-1, BLOCK_SIZE)


class BlockTensors:
    """The same transform of the blocks that tile a tensor, on its device."""

    def __init__(self, device: torch.device) -> None:
        z, y, x = (fft.dct(np.eye(n), norm="ortho", axis=0) for n in BLOCK)
        self._slices = torch.from_numpy(z.astype(np.float32)).to(device)
        self._plane = torch.from_numpy(np.ascontiguousarray(np.kron(y, x).T, np.float32)).to(device)

    def coefficients(self, volume: Tensor) -> Tensor:
        """Return (slabs, rows, columns, 256): `block_coefficients` of a (Z, Y, X) tensor."""
        blocks = self._cut(volume)
        planes = blocks.reshape(*blocks.shape[:3], BLOCK[0], _PLANE) @ self._plane
        return (self._slices @ planes).flatten(3)

    @classmethod
    def whole(cls, mask: Tensor) -> Tensor:
        """Return (slabs, rows, columns): `whole_blocks` of a (Z, Y, X) tensor."""
        return cls._cut(mask).flatten(3).all(dim=3)

    @classmethod
    def share(cls, mask: Tensor) -> Tensor:
        """Return (slabs, rows, columns): the marked share of every block of a (Z, Y, X) tensor."""
        return cls._cut(mask).flatten(3).float().mean(dim=3)

    @staticmethod
    def _cut(volume: Tensor) -> Tensor:
        """Blocks (slabs, rows, columns, 4, 8, 8); a side shorter than a block is mirrored."""
        for axis, block in enumerate(BLOCK):
            n = volume.shape[axis]
            if n < block:
                index = torch.arange(block, device=volume.device) % (2 * n)
                volume = volume.index_select(axis, torch.where(index < n, index, 2 * n - 1 - index))
        z, y, x = (n // block for n, block in zip(volume.shape, BLOCK, strict=True))
        cut = volume[: z * BLOCK[0], : y * BLOCK[1], : x * BLOCK[2]]
        return cut.reshape(z, BLOCK[0], y, BLOCK[1], x, BLOCK[2]).permute(0, 2, 4, 1, 3, 5)


def _multiply(rows: Array, matrix: Array) -> Array:
    """Multiply in stacks of 32 rows.

    A product that small is computed by one thread of the BLAS, whatever its settings: bits do not depend
    on the number of cores, and threads of our own are not held up by its spinning ones.
    """
    whole = len(rows) // 32 * 32
    result = np.empty_like(rows)
    np.matmul(rows[:whole].reshape(-1, 32, _PLANE), matrix, out=result[:whole].reshape(-1, 32, _PLANE))
    np.matmul(rows[whole:], matrix, out=result[whole:])
    return result


def band_indices() -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Return the order (0 is the mean) of each of the 256 bands along slices, rows and columns."""
    along = np.meshgrid(*(np.arange(n) for n in BLOCK), indexing="ij")
    return along[0].ravel(), along[1].ravel(), along[2].ravel()


def to_blocks(array: NDArray[T]) -> NDArray[T]:
    """Cut an array whose sides are multiples of the block into rows of 256, copied."""
    counts = [side // block for side, block in zip(array.shape, BLOCK, strict=True)]
    cut = array.reshape(counts[0], BLOCK[0], counts[1], BLOCK[1], counts[2], BLOCK[2])
    return cut.transpose(0, 2, 4, 1, 3, 5).reshape(-1, BLOCK_SIZE)


def block_coefficients(array: Array) -> Array:
    """Transform the blocks that tile `array` from its first voxel; an incomplete last block is dropped.

    Returns (slabs, rows, columns, 256). A side shorter than one block is extended by reflection.
    """
    whole, counts = _whole_part(array)
    return BlockTransform().forward(to_blocks(whole)).reshape(*counts, BLOCK_SIZE)


def whole_blocks(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mark the blocks of `block_coefficients` whose every voxel is in `mask`."""
    whole, counts = _whole_part(mask)
    return np.asarray(to_blocks(whole).all(axis=1)).reshape(counts)


def _whole_part(array: NDArray[T]) -> tuple[NDArray[T], list[int]]:
    """Crop to whole blocks, reflecting a side that is shorter than one; also say how many blocks."""
    short = [(0, max(0, block - side)) for side, block in zip(array.shape, BLOCK, strict=True)]
    if any(after for _, after in short):
        array = np.pad(array, short, mode="symmetric")
    counts = [side // block for side, block in zip(array.shape, BLOCK, strict=True)]
    return array[tuple(slice(0, n * block) for n, block in zip(counts, BLOCK, strict=True))], counts


def interpolate_nodes(nodes: Array, at: Sequence[NDArray[np.float64] | NDArray[np.intp]]) -> Array:
    """Interpolate values given at block centres linearly at voxel indices, constant beyond the last centre.

    `at` holds one vector of indices per axis; the result has their lengths as its shape.
    """
    result = nodes
    for axis, weights in enumerate(node_weights(nodes.shape, at)):
        result = np.moveaxis(np.tensordot(weights, result, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(result, np.float32)


def node_weights(shape: Sequence[int], at: Sequence[NDArray[np.float64] | NDArray[np.intp]]) -> list[Array]:
    """Return the weights (positions, nodes) of that interpolation along each axis of `shape` nodes."""
    axes = zip(at, shape, BLOCK, strict=True)
    return [_linear_weights(positions, count, block) for positions, count, block in axes]


def _linear_weights(positions: NDArray[np.float64] | NDArray[np.intp], count: int, block: int) -> Array:
    """Weights of the two nearest nodes, one row per position."""
    where = np.clip((positions - (block - 1) / 2) / block, 0, count - 1)
    return np.asarray(np.clip(1 - np.abs(where[:, None] - np.arange(count)[None, :]), 0, 1), np.float32)
