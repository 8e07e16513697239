"""The two steps of the pilot, and the average of its overlapping blocks."""

# Triton reads these functions' source: its values have no Python types, its arguments are all positional.
# mypy: ignore-errors
# ruff: noqa: PLR0917

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def pilot_blocks(
    scan, first, local, deviation, cosines, window, blocks, weights,
    depth, rows, columns, many_z, many_y, many_x, ahead_z, ahead_y, ahead_x,
    SECOND: tl.constexpr, THRESHOLD: tl.constexpr, FAINTEST: tl.constexpr,
    Z0: tl.constexpr, Z1: tl.constexpr, Z2: tl.constexpr, COUNT: tl.constexpr,
):  # fmt: skip
    """One step of the pilot on COUNT blocks of 4 x 8 x 8 voxels: transform, shrink, transform back, weigh.

    scan, first (N, Z, Y, X); local (N, blocks); deviation (N, 256); cosines (64, 64), rows are bands; window (256,).
    Writes the weighed blocks (N, blocks, 256) and their weights (N, blocks). The four slices of a block are four
    matrices of their own, so that the transform across them is a few sums: Z0, Z1, Z2 are the values of the
    orthonormal cosines of length 4. Voxels beyond the volume repeat its outermost ones.
    """
    sample = tl.program_id(1).to(tl.int64)
    many = many_z * many_y * many_x
    block = tl.program_id(0) * COUNT + tl.arange(0, COUNT)
    real = block < many
    inner = tl.arange(0, 64)
    y = ((block // many_x) % many_y * 4 - ahead_y)[:, None] + (inner // 8)[None, :]
    x = (block % many_x * 4 - ahead_x)[:, None] + (inner % 8)[None, :]
    y = tl.minimum(tl.maximum(y, 0), rows - 1)
    x = tl.minimum(tl.maximum(x, 0), columns - 1)
    at = y.to(tl.int64) * columns + x
    start = (block // (many_y * many_x)) * 2 - ahead_z
    size = (rows * columns).to(tl.int64)
    plane = tl.load(cosines + inner[None, :] * 64 + inner[:, None])  # columns are bands
    known = real[:, None]
    scan += sample * depth * size
    b0, b1, b2, b3 = _transform(scan, at, start, depth, size, known, plane, Z0, Z1, Z2)
    scale = tl.load(local + sample * many + block, mask=real, other=1.0)
    deviation += sample * 256 + inner
    d0 = tl.load(deviation)[None, :] * scale[:, None]
    d1 = tl.load(deviation + 64)[None, :] * scale[:, None]
    d2 = tl.load(deviation + 128)[None, :] * scale[:, None]
    d3 = tl.load(deviation + 192)[None, :] * scale[:, None]
    mean = (inner == 0)[None, :]
    if SECOND:
        first += sample * depth * size
        f0, f1, f2, f3 = _transform(first, at, start, depth, size, known, plane, Z0, Z1, Z2)
        s0 = tl.where(mean, 1.0, _share(f0 / d0))
        s1 = _share(f1 / d1)
        s2 = _share(f2 / d2)
        s3 = _share(f3 / d3)
        kept = tl.sum(s0 * s0 + s1 * s1 + s2 * s2 + s3 * s3, axis=1)
    else:
        s0 = tl.where(mean | (tl.abs(b0) >= THRESHOLD * d0), 1.0, 0.0)
        s1 = tl.where(tl.abs(b1) >= THRESHOLD * d1, 1.0, 0.0)
        s2 = tl.where(tl.abs(b2) >= THRESHOLD * d2, 1.0, 0.0)
        s3 = tl.where(tl.abs(b3) >= THRESHOLD * d3, 1.0, 0.0)
        kept = tl.sum(s0 + s1 + s2 + s3, axis=1)
    weight = 1.0 / (kept * tl.maximum(scale * scale, FAINTEST))
    tl.store(weights + sample * many + block, weight, mask=real)
    to = blocks + (sample * many + block)[:, None] * 256 + inner[None, :]
    back = tl.load(cosines + inner[:, None] * 64 + inner[None, :])
    even, odd = Z0 * (b0 * s0 + b2 * s2), Z1 * b1 * s1 + Z2 * b3 * s3
    _store(to, even + odd, back, weight, window + inner, known)
    _store(to + 192, even - odd, back, weight, window + 192 + inner, known)
    even, odd = Z0 * (b0 * s0 - b2 * s2), Z2 * b1 * s1 - Z1 * b3 * s3
    _store(to + 64, even + odd, back, weight, window + 64 + inner, known)
    _store(to + 128, even - odd, back, weight, window + 128 + inner, known)


@triton.jit
def _transform(volume, at, start, depth, size, known, plane, Z0, Z1, Z2):
    """The bands of blocks, four across slices: (COUNT, 64) each."""
    a0 = _plane(volume, at, start, depth, size, known, plane)
    a1 = _plane(volume, at, start + 1, depth, size, known, plane)
    a2 = _plane(volume, at, start + 2, depth, size, known, plane)
    a3 = _plane(volume, at, start + 3, depth, size, known, plane)
    return (
        Z0 * (a0 + a1 + a2 + a3),
        Z1 * (a0 - a3) + Z2 * (a1 - a2),
        Z0 * (a0 - a1 - a2 + a3),
        Z2 * (a0 - a3) - Z1 * (a1 - a2),
    )


@triton.jit
def _plane(volume, at, z, depth, size, known, plane):
    """One slice of the blocks, transformed within the slice."""
    z = tl.minimum(tl.maximum(z, 0), depth - 1).to(tl.int64)
    return tl.dot(
        tl.load(volume + z[:, None] * size + at, mask=known, other=0.0), plane, input_precision="tf32x3"
    )


@triton.jit
def _share(ratio):
    """The share of signal in a band that stands `ratio` deviations high."""
    power = ratio * ratio
    return power / (power + 1.0)


@triton.jit
def _store(to, bands, back, weight, window, known):
    """One slice of the blocks, transformed back and weighed."""
    voxels = tl.dot(bands, back, input_precision="tf32x3")
    tl.store(to, voxels * weight[:, None] * tl.load(window)[None, :], mask=known)


@triton.jit
def pilot_average(
    blocks, weights, window, out,
    depth, rows, columns, many_z, many_y, many_x, ahead_z, ahead_y, ahead_x,
    COUNT: tl.constexpr,
):  # fmt: skip
    """The weighed mean of the eight blocks over each of COUNT voxels of a slice row; always in one order."""
    sample = tl.program_id(2).to(tl.int64)
    line = tl.program_id(0)
    x = tl.program_id(1) * COUNT + tl.arange(0, COUNT)
    inside = x < columns
    at_z = line // rows + ahead_z
    at_y = line % rows + ahead_y
    at_x = x + ahead_x
    total = tl.zeros((COUNT,), tl.float32)
    share = tl.zeros((COUNT,), tl.float32)
    for number in tl.static_range(8):
        block_z = at_z // 2 - number // 4
        block_y = at_y // 4 - (number // 2) % 2
        block_x = at_x // 4 - number % 2
        here = inside & (block_z >= 0) & (block_z < many_z) & (block_y >= 0) & (block_y < many_y)
        here = here & (block_x >= 0) & (block_x < many_x)
        block = sample * many_z * many_y * many_x + (block_z * many_y + block_y) * many_x + block_x
        voxel = ((at_z - block_z * 2) * 8 + at_y - block_y * 4) * 8 + at_x - block_x * 4
        total += tl.load(blocks + block * 256 + voxel, mask=here, other=0.0)
        by = tl.load(weights + block, mask=here, other=0.0)
        share += by * tl.load(window + voxel, mask=here, other=0.0)
    to = (sample * depth * rows + line) * columns + x
    tl.store(out + to, total / share, mask=inside)
