"""The pilot: a first estimate of the clean volume from the measured noise alone, without a learned model.

Noise spreads evenly over the bands of a block cosine transform, anatomy gathers in a few. Step one keeps the
bands that stand above the noise of that band; step two weighs every band by the share of signal that
step one found (Yaroslavsky 1996; Dabov 2007 for the two steps). The network is shown the pilot beside
the scan and learns where to trust it, which took a network of this size far more training to match
alone. The same filter in numpy, tuned to stand alone, is `engine.classical`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.blocks import BLOCK, BLOCK_SIZE
from engine.diffusion import fused

STEP = (2, 4, 4)
"""Distance between overlapping blocks. It divides the network's stride, so tiles share one block grid."""
GRIDS = ((0, 0, 0), (1, 2, 2))
"""Shifts of the block grids that are averaged. The second lies halfway between the blocks of the first and is
worth 0.25 dB; two more would add 0.05."""
MARGIN = 8
"""Slices that a slab of `pilot_of_volume` reads beyond what it keeps; what lies further has no influence."""
_THRESHOLD = 2.6
_FAINTEST = 1e-2
"""Floor of the squared level in the weights of the average."""
_WINDOW = 2.0
_SLAB_VOXELS = {"cpu": 4_000_000, "cuda": 32_000_000}
_THINNEST = 24
"""Slices of a slab: fewer, and most of the work is margin."""
_BORDER = tuple(block - step for block, step in zip(BLOCK, STEP, strict=True))


def pilot(scan: Tensor, spectrum: Tensor, level: Tensor) -> Tensor:
    """Return the pilot (N, 1, Z, Y, X) of scans of that shape; sizes are multiples of 4.

    spectrum  (N, 256) noise variance of every band of the orthonormal 4 x 8 x 8 block transform
    level     (N, 1, Z, Y, X) local standard deviation of the noise over that of `spectrum`
    """
    deviation = spectrum.clamp_min(1e-12).sqrt()[:, None, None, None, :]
    total = torch.zeros_like(scan)
    for shift in GRIDS:
        total += _on_grid(scan, deviation, level, shift)
    return total / len(GRIDS)


def _on_grid(scan: Tensor, deviation: Tensor, level: Tensor, shift: tuple[int, int, int]) -> Tensor:
    """The pilot from blocks on one grid."""
    local = F.avg_pool3d(_extend(level, shift), BLOCK, stride=STEP)[:, 0, ..., None].clamp_min(1e-3)
    if fused.usable(scan):
        return _by_kernels(scan, deviation, local, shift)
    bands = _forward(_extend(scan, shift)).div_(deviation).div_(local)
    keep = bands.abs() >= _THRESHOLD
    keep[..., 0] = True
    weight = _weight(keep.sum(-1, keepdim=True).to(bands.dtype), local)
    first = _average((bands * keep).mul_(deviation), local * weight, weight, shift, scan.shape)
    share = _forward(_extend(first, shift)).div_(deviation).div_(local).square_()
    share.div_(share + 1.0)
    share[..., 0] = 1.0
    weight = _weight(torch.linalg.vector_norm(share, dim=-1, keepdim=True).square(), local)
    return _average(bands.mul_(share).mul_(deviation), local * weight, weight, shift, scan.shape)


def _by_kernels(scan: Tensor, deviation: Tensor, local: Tensor, shift: tuple[int, int, int]) -> Tensor:
    """The same in four passes over the volume."""
    step = partial(
        fused.pilot_step,
        local=local[..., 0].contiguous(),
        deviation=deviation.flatten(1).contiguous(),
        cosines=_matrices(scan)[1],
        window=_window(scan),
        ahead=(_BORDER[0] + shift[0], _BORDER[1] + shift[1], _BORDER[2] + shift[2]),
        threshold=_THRESHOLD,
        faintest=_FAINTEST,
    )
    scan = scan.contiguous()
    return step(scan, step(scan, None))


def _extend(volume: Tensor, shift: tuple[int, int, int]) -> Tensor:
    """Repeat the outermost voxels so that every voxel lies in as many blocks of the grid as any other."""
    edges = []
    for border, step, offset in zip(_BORDER, STEP, shift, strict=True):
        edges.append((border + offset, border + (step - offset if offset else 0)))
    return F.pad(volume, [edge for pair in reversed(edges) for edge in pair], mode="replicate")


def pilot_of_volume(
    scan: Tensor,
    spectrum: Tensor,
    level: Callable[[int, int], Tensor],
    device: torch.device,
    *,
    before_slab: Callable[[float], None],
) -> Tensor:
    """Return the pilot of one volume (Z, Y, X) slab by slab; the same bits as the whole at once.

    `level(first, last)` returns the local level of those slices. `before_slab` is called with the
    fraction done and may raise to stop. Every size is a multiple of 4.
    """
    depth = scan.shape[0]
    thick = max(_SLAB_VOXELS[device.type] // math.prod(scan.shape[1:]) // 4 * 4, _THINNEST)
    out = torch.empty_like(scan)
    for first in range(0, depth, thick):
        before_slab(first / depth)
        last = min(first + thick, depth)
        low, high = max(0, first - MARGIN), min(depth, last + MARGIN)
        part = pilot(
            scan[None, None, low:high].to(device),
            spectrum.to(device),
            level(low, high)[None, None].to(device),
        )
        out[first:last] = part[0, 0, first - low : last - low].to(scan.device)
    return out


def _matrices(like: Tensor) -> tuple[Tensor, Tensor]:
    """The DCT across slices (4, 4) and within a slice (64, 64), rows are bands."""
    z, y, x = (_cosines(n, like) for n in BLOCK)
    return z, torch.kron(y, x)


def _cosines(n: int, like: Tensor) -> Tensor:
    """The orthonormal DCT-II of length n, rows are bands."""
    k = torch.arange(n, dtype=torch.float64)
    matrix = torch.cos(math.pi / n * (k[None, :] + 0.5) * k[:, None]) * math.sqrt(2.0 / n)
    matrix[0] /= math.sqrt(2.0)
    return matrix.to(like)


def _forward(padded: Tensor) -> Tensor:
    """Bands (N, blocks z, y, x, 256) of every overlapping block of (N, 1, Z, Y, X)."""
    blocks = padded[:, 0]
    for axis, (size, step) in enumerate(zip(BLOCK, STEP, strict=True), start=1):
        blocks = blocks.unfold(axis, size, step)
    slices, plane = _matrices(padded)
    planes = blocks.reshape(*blocks.shape[:4], BLOCK[0], -1) @ plane.T
    return (slices @ planes).flatten(4)


def _weight(kept: Tensor, local: Tensor) -> Tensor:
    """Blocks that needed few bands count more, blocks without noise do not drown their neighbours."""
    return 1.0 / (kept * local.square().clamp_min(_FAINTEST))


def _average(
    bands: Tensor, factor: Tensor, weight: Tensor, shift: tuple[int, int, int], size: torch.Size
) -> Tensor:
    """Transform bands back and average what overlaps; returns the volume of `size` without its border.

    `factor` (in place) turns bands into the image's unit times the `weight` of their block.
    """
    slices, plane = _matrices(bands)
    planes = bands.mul_(factor).reshape(*bands.shape[:4], BLOCK[0], -1)
    blocks = ((slices.T @ planes) @ plane).flatten(4)
    window = _window(bands)
    total = _overlap_add(blocks.mul_(window))
    share = _overlap_add(weight * window)
    inside = tuple(slice(b + o, b + o + n) for b, o, n in zip(_BORDER, shift, size[2:], strict=True))
    return (total[(slice(None), *inside)] / share[(slice(None), *inside)])[:, None]


def _window(like: Tensor) -> Tensor:
    """A Kaiser window over a block, (256,)."""
    z, y, x = (torch.kaiser_window(n, periodic=False, beta=_WINDOW, dtype=torch.float64) for n in BLOCK)
    return (z[:, None, None] * y[None, :, None] * x[None, None, :]).reshape(BLOCK_SIZE).to(like)


def _overlap_add(blocks: Tensor) -> Tensor:
    """Add blocks (N, bz, by, bx, 256) up on the voxel grid (N, Z, Y, X)."""
    n, bz, by, bx, _ = blocks.shape
    kz, ky, kx = (size // step for size, step in zip(BLOCK, STEP, strict=True))
    sz, sy, sx = STEP
    parts = blocks.reshape(n, bz, by, bx, kz, sz, ky, sy, kx, sx)
    out = blocks.new_zeros(n, bz + kz - 1, sz, by + ky - 1, sy, bx + kx - 1, sx)
    for i in range(kz):
        for j in range(ky):
            for k in range(kx):
                part = parts[:, :, :, :, i, :, j, :, k].permute(0, 1, 4, 2, 5, 3, 6)
                out[:, i : i + bz, :, j : j + by, :, k : k + bx] += part
    return out.reshape(n, out.shape[1] * sz, out.shape[3] * sy, out.shape[5] * sx)
