"""RMSNorm, FiLM and SiLU in one pass, forward and back."""

# Triton reads these functions' source: its values have no Python types, its arguments are all positional.
# mypy: ignore-errors
# ruff: noqa: PLR0917

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def norm_silu(x, scale, shift, out, voxels, C: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr):
    """out = silu(x / rms(x) * scale + shift), rms over the channels of a voxel.

    x, out (N, voxels, C); scale, shift (N, C) fp32. C need not be a power of two, WIDTH is the next.
    """
    sample = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, WIDTH)
    inside = (row < voxels)[:, None] & (column < C)[None, :]
    at = (sample * voxels + row)[:, None] * C + column[None, :]
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    a = tl.load(scale + sample * C + column, mask=column < C, other=0.0)
    b = tl.load(shift + sample * C + column, mask=column < C, other=0.0)
    size = tl.rsqrt(tl.sum(value * value, axis=1) / C + 1e-6)
    lifted = value * size[:, None] * a[None, :] + b[None, :]
    tl.store(out + at, (lifted * tl.sigmoid(lifted)).to(out.dtype.element_ty), mask=inside)


@triton.jit
def norm_silu_back(
    x, scale, shift, slope, back, of_scale, of_shift, voxels, parts,
    C: tl.constexpr, WIDTH: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Gradients of `norm_silu`: `back` like x; `of_scale`, `of_shift` (N, parts, C) fp32, to be added up.

    Program (p, n) takes every `parts`-th block of rows of sample n, so the sums have one fixed order.
    """
    part = tl.program_id(0)
    sample = tl.program_id(1).to(tl.int64)
    column = tl.arange(0, WIDTH)
    real = column < C
    a = tl.load(scale + sample * C + column, mask=real, other=0.0)
    b = tl.load(shift + sample * C + column, mask=real, other=0.0)
    to_scale = tl.zeros((WIDTH,), tl.float32)
    to_shift = tl.zeros((WIDTH,), tl.float32)
    for block in range(part, tl.cdiv(voxels, ROWS), parts):
        row = block * ROWS + tl.arange(0, ROWS)
        inside = (row < voxels)[:, None] & real[None, :]
        at = (sample * voxels + row)[:, None] * C + column[None, :]
        value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
        given = tl.load(slope + at, mask=inside, other=0.0).to(tl.float32)
        size = tl.rsqrt(tl.sum(value * value, axis=1) / C + 1e-6)
        normed = value * size[:, None]
        lifted = normed * a[None, :] + b[None, :]
        gate = tl.sigmoid(lifted)
        inner = given * gate * (1.0 + lifted * (1.0 - gate))
        to_scale += tl.sum(inner * normed, axis=0)
        to_shift += tl.sum(inner, axis=0)
        outer = inner * a[None, :]
        mean = tl.sum(outer * normed, axis=1) / C
        result = size[:, None] * (outer - normed * mean[:, None])
        tl.store(back + at, result.to(back.dtype.element_ty), mask=inside)
    to = (sample * parts + part) * C + column
    tl.store(of_scale + to, to_scale, mask=real)
    tl.store(of_shift + to, to_shift, mask=real)
