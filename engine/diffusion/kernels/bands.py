"""What comes before the U-Net and after it: Haar bands in units of the noise, and the way back."""

# Triton reads these functions' source: its values have no Python types, its arguments are all positional.
# mypy: ignore-errors
# ruff: noqa: PLR0917

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _place(cells_z, cells_y, cells_x, COUNT: tl.constexpr):
    """The cells of this program: sample, which are inside, first voxel, lengths of a row and a slice, numbers."""
    sample = tl.program_id(2).to(tl.int64)
    line = tl.program_id(0)
    first = tl.program_id(1) * COUNT
    row = 2 * cells_x
    slice_ = 2 * cells_y * row
    plane = (line // cells_y).to(tl.int64) * 2 * slice_
    start = sample * 2 * cells_z * slice_ + plane + (line % cells_y) * 2 * row + 2 * first
    x = first + tl.arange(0, COUNT)
    return sample, x < cells_x, start, row, slice_, (sample * cells_z * cells_y + line) * cells_x + x


@triton.jit
def _haar(volume, start, row, slice_, inside, COUNT: tl.constexpr):
    """The eight bands of COUNT cells of one row of cells, as in `engine.diffusion.haar`."""
    place = tl.arange(0, 2 * COUNT)
    known = tl.reshape(tl.join(inside, inside), (2 * COUNT,))
    c00, d00 = tl.split(tl.reshape(tl.load(volume + start + place, mask=known, other=0.0), (COUNT, 2)))
    c01, d01 = tl.split(tl.reshape(tl.load(volume + start + row + place, mask=known, other=0.0), (COUNT, 2)))
    start += slice_
    c10, d10 = tl.split(tl.reshape(tl.load(volume + start + place, mask=known, other=0.0), (COUNT, 2)))
    c11, d11 = tl.split(tl.reshape(tl.load(volume + start + row + place, mask=known, other=0.0), (COUNT, 2)))
    return _butterfly(c00, d00, c01, d01, c10, d10, c11, d11)


@triton.jit
def _butterfly(a0, a1, a2, a3, a4, a5, a6, a7):
    """Sums and differences along three axes, orthonormal: its own inverse. Bit 2, 1, 0: slice, row, column."""
    b0, b1, b2, b3 = a0 + a1, a0 - a1, a2 + a3, a2 - a3
    b4, b5, b6, b7 = a4 + a5, a4 - a5, a6 + a7, a6 - a7
    c0, c1, c2, c3 = b0 + b2, b1 + b3, b0 - b2, b1 - b3
    c4, c5, c6, c7 = b4 + b6, b5 + b7, b4 - b6, b5 - b7
    s = 0.35355339059327373
    return (
        (c0 + c4) * s, (c1 + c5) * s, (c2 + c6) * s, (c3 + c7) * s,
        (c0 - c4) * s, (c1 - c5) * s, (c2 - c6) * s, (c3 - c7) * s,
    )  # fmt: skip


@triton.jit
def _side_by_side(a0, a1, a2, a3, a4, a5, a6, a7, COUNT: tl.constexpr):
    """Eight columns as (COUNT, 8)."""
    low = tl.join(tl.join(a0, a4), tl.join(a2, a6))
    high = tl.join(tl.join(a1, a5), tl.join(a3, a7))
    return tl.reshape(tl.join(low, high), (COUNT, 8))


@triton.jit
def _asinh(x):
    size = tl.abs(x)
    raised = tl.log(size + tl.sqrt(size * size + 1.0))
    return tl.where(x < 0, -raised, raised)


@triton.jit
def network_input(
    state, pilot, local, sigma, out, cells_z, cells_y, cells_x, data_power,
    WIDTH: tl.constexpr, COUNT: tl.constexpr,
):  # fmt: skip
    """The 24 channels of `engine.diffusion.preconditioning.network_input`, channels-last, and 8 of zeros.

    state, pilot (N, Z, Y, X); local (N, cells): the mean low-pass band around every cell; sigma (N,).
    """
    sample, inside, start, row, slice_, cell = _place(cells_z, cells_y, cells_x, COUNT)
    z0, z1, z2, z3, z4, z5, z6, z7 = _haar(state, start, row, slice_, inside, COUNT)
    p0, p1, p2, p3, p4, p5, p6, p7 = _haar(pilot, start, row, slice_, inside, COUNT)
    level = tl.load(sigma + sample)
    c_in = tl.rsqrt(level * level + data_power)
    by = 1.0 / tl.maximum(level, 1e-4)
    around = tl.load(local + cell, mask=inside, other=0.0)
    to = out + cell[:, None] * WIDTH + tl.arange(0, 8)[None, :]
    known = inside[:, None]
    kind = out.dtype.element_ty
    bands = _side_by_side(z0, z1, z2, z3, z4, z5, z6, z7, COUNT)
    tl.store(to, (bands * c_in).to(kind), mask=known)
    taken = bands - _side_by_side(p0, p1, p2, p3, p4, p5, p6, p7, COUNT)
    tl.store(to + 8, _asinh(taken * by).to(kind), mask=known)
    relative = _side_by_side(z0 - around, z1, z2, z3, z4, z5, z6, z7, COUNT)
    tl.store(to + 16, _asinh(relative * by).to(kind), mask=known)
    tl.store(to + 24, tl.zeros((COUNT, 8), tl.float32).to(kind), mask=known)


@triton.jit
def network_output(
    state, pilot, local, sigma, said, mean, spread, cells_z, cells_y, cells_x, data_power,
    WIDTH: tl.constexpr, LIMIT: tl.constexpr, COUNT: tl.constexpr,
):  # fmt: skip
    """The denoised state and the log-variance from what head and gate said (N, cells, WIDTH): F, merged and scaled.

    A row of `said`: 8 bands of F, the log-variance, 8 gates of what the pilot took, 8 of the noise-scaled bands.
    mean, spread (N, Z, Y, X) fp32. The noise-scaled bands are computed again, since those that the network was
    shown are rounded.
    """
    sample, inside, start, row, slice_, cell = _place(cells_z, cells_y, cells_x, COUNT)
    z0, z1, z2, z3, z4, z5, z6, z7 = _haar(state, start, row, slice_, inside, COUNT)
    p0, p1, p2, p3, p4, p5, p6, p7 = _haar(pilot, start, row, slice_, inside, COUNT)
    level = tl.load(sigma + sample)
    total = level * level + data_power
    by = 1.0 / tl.maximum(level, 1e-4)
    around = tl.load(local + cell, mask=inside, other=0.0)
    from_ = said + cell * WIDTH
    n0 = _noise(from_, inside, z0 - p0, z0 - around, by, 0, LIMIT)
    n1 = _noise(from_, inside, z1 - p1, z1, by, 1, LIMIT)
    n2 = _noise(from_, inside, z2 - p2, z2, by, 2, LIMIT)
    n3 = _noise(from_, inside, z3 - p3, z3, by, 3, LIMIT)
    n4 = _noise(from_, inside, z4 - p4, z4, by, 4, LIMIT)
    n5 = _noise(from_, inside, z5 - p5, z5, by, 5, LIMIT)
    n6 = _noise(from_, inside, z6 - p6, z6, by, 6, LIMIT)
    n7 = _noise(from_, inside, z7 - p7, z7, by, 7, LIMIT)
    skip = data_power / total
    gain = level * tl.sqrt(data_power) * tl.rsqrt(total)
    m0, m1, m2, m3, m4, m5, m6, m7 = _butterfly(
        skip * z0 + gain * n0, skip * z1 + gain * n1, skip * z2 + gain * n2, skip * z3 + gain * n3,
        skip * z4 + gain * n4, skip * z5 + gain * n5, skip * z6 + gain * n6, skip * z7 + gain * n7,
    )  # fmt: skip
    _store_cells(mean + start, row, slice_, inside, m0, m1, m2, m3, m4, m5, m6, m7, COUNT)
    log = tl.load(from_ + 8, mask=inside, other=0.0).to(tl.float32)
    log = tl.minimum(tl.maximum(log, -8.0), 4.0)
    _store_cells(spread + start, row, slice_, inside, log, log, log, log, log, log, log, log, COUNT)


@triton.jit
def _store_cells(to, row, slice_, inside, a0, a1, a2, a3, a4, a5, a6, a7, COUNT: tl.constexpr):
    """The eight voxels of every cell; bit 2, 1, 0 of the number: slice, row, column."""
    known = tl.reshape(tl.join(inside, inside), (2 * COUNT,))
    to += tl.arange(0, 2 * COUNT)
    tl.store(to, tl.reshape(tl.join(a0, a1), (2 * COUNT,)), mask=known)
    tl.store(to + row, tl.reshape(tl.join(a2, a3), (2 * COUNT,)), mask=known)
    tl.store(to + slice_, tl.reshape(tl.join(a4, a5), (2 * COUNT,)), mask=known)
    tl.store(to + slice_ + row, tl.reshape(tl.join(a6, a7), (2 * COUNT,)), mask=known)


@triton.jit
def _noise(from_, inside, taken, relative, by, BAND: tl.constexpr, LIMIT: tl.constexpr):
    """F's band: what the head said less what the gates let through."""
    head = tl.load(from_ + BAND, mask=inside, other=0.0).to(tl.float32)
    first = tl.load(from_ + 9 + BAND, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(from_ + 17 + BAND, mask=inside, other=0.0).to(tl.float32)
    taken = tl.minimum(tl.maximum(taken * by, -LIMIT), LIMIT)
    relative = tl.minimum(tl.maximum(relative * by, -LIMIT), LIMIT)
    return head - first * taken - second * relative
