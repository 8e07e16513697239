"""Small separable filters on (slices, rows, columns) tensors, edges replicated; the same on CPU and GPU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_blur(x: Tensor, deviation: float) -> Tensor:
    """Separable Gaussian of `deviation` voxels on (Z, Y, X)."""
    if x.is_cuda:
        return _blur_by_matrices(x, deviation)
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


def _blur_by_matrices(x: Tensor, deviation: float) -> Tensor:
    """The same by one matrix for each axis: on a GPU many times faster than convolving a single channel."""
    z, y, w = (_blur_matrix(n, deviation).to(x) for n in x.shape)
    out = (z @ x.flatten(1)).reshape(x.shape)
    return torch.matmul(y, out) @ w.T


def _blur_matrix(n: int, deviation: float) -> Tensor:
    """The Gaussian on an axis of n voxels whose ends repeat, (n, n)."""
    radius = min(int(3 * deviation), n - 1)
    if radius < 1:
        return torch.eye(n)
    offsets = torch.arange(-radius, radius + 1)
    kernel = torch.exp(-0.5 * (offsets / deviation).square())
    place = torch.arange(n)
    read = (place[:, None] + offsets).clamp(0, n - 1)
    return torch.zeros(n, n).index_put((place[:, None], read), kernel / kernel.sum(), accumulate=True)


def box_mean(x: Tensor, side: int) -> Tensor:
    """Mean over the square of `side` voxels (odd) around each voxel of a slice."""
    along_rows = F.avg_pool2d(_framed(x, side), (1, side), stride=1)
    return F.avg_pool2d(along_rows, (side, 1), stride=1)[:, 0]


def box_minimum(mask: Tensor, side: int) -> Tensor:
    """Whether the whole square of `side` voxels (odd) around each voxel of a slice is marked and inside it."""
    outside = F.pad((~mask).float()[:, None], [side // 2] * 4, value=1.0)
    along_rows = F.max_pool2d(outside, (1, side), stride=1)
    return F.max_pool2d(along_rows, (side, 1), stride=1)[:, 0] == 0


def local_rank(x: Tensor, size: tuple[int, int, int], share: float) -> Tensor:
    """The value that `share` of the box of `size` (odd) around each voxel of (Z, Y, X) lies below."""
    pad = [edge for n in reversed(size) for edge in (n // 2, n // 2)]
    boxes = F.pad(x[None, None], pad, mode="replicate")[0, 0]
    for axis, n in enumerate(size):
        boxes = boxes.unfold(axis, n, 1)
    flat = boxes.reshape(*x.shape, -1)
    return flat.kthvalue(int(share * flat.shape[-1]) + 1, dim=-1).values


def _framed(x: Tensor, side: int) -> Tensor:
    """Add half a box around every slice, as (Z, 1, Y, X)."""
    return F.pad(x[:, None], [side // 2] * 4, mode="replicate")
