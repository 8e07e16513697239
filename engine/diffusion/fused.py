"""Kernels of our own in place of chains of operations, where a GPU and Triton are there; elsewhere nothing is fused.

Both ways compute the same function, up to rounding: sums are taken in fp32 and rounded once, where separate
operations round after each. `engine.device.trusted_precision` compares with fp32 before a model is used.
"""

from __future__ import annotations

import importlib.util
import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

_OLDEST = (8, 0)
"""Compute capability of the first GPUs with the number formats that the kernels multiply in."""
_ELEMENTS = 4096
"""Numbers that a program of the norm holds."""
_PARTS = 264
"""Partial sums of a gradient: two programs for each multiprocessor of the largest GPUs."""
_BLOCKS, _VOXELS = 32, 256
"""Blocks, and voxels, of a program of the pilot."""
_BANDS = 32
"""Channels of the network's input, filled up."""
_CELLS = 128
"""Cells of a program before and after the network."""


@cache
def has_triton() -> bool:
    """Whether the kernels can be compiled here."""
    return importlib.util.find_spec("triton") is not None


def usable(x: Tensor) -> bool:
    """Whether the kernels run on the device of a tensor; tried once for each GPU."""
    return x.is_cuda and has_triton() and _runs_on(x.device.index or 0)


@cache
def _runs_on(index: int) -> bool:
    """Whether kernels can be compiled and run: Triton needs a C compiler and a folder for what it has made."""
    if torch.cuda.get_device_capability(index) < _OLDEST:
        return False
    x = torch.full((1, 32, 2, 2, 2), 2.0, device=torch.device("cuda", index))
    try:
        out = _NormSilu.apply(x, x.new_ones(1, 32), x.new_zeros(1, 32))  # type: ignore[no-untyped-call]
    except Exception:
        # Of Triton, of its compilers, of the system: whatever it is, the separate operations remain.
        return False
    return bool((out - torch.sigmoid(torch.ones(()))).abs().max() < 1e-3)


def norm_silu(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Return silu(x / rms(x) * scale + shift), rms over channels; differentiable.

    x: (N, C, Z, Y, X), best channels-last; scale, shift: (N, C).
    """
    rows = x.contiguous(memory_format=torch.channels_last_3d)
    result: Tensor = _NormSilu.apply(rows, scale.float(), shift.float())  # type: ignore[no-untyped-call]
    return result


class _NormSilu(torch.autograd.Function):
    """One pass forward, one back; nothing but the input is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        from engine.diffusion.kernels import norm

        scale, shift = scale.contiguous(), shift.contiguous()
        out = torch.empty_like(x)
        count, channels, voxels, width, rows = _layout(x)
        grid = (-(-voxels // rows), count)
        norm.norm_silu[grid](x, scale, shift, out, voxels, C=channels, WIDTH=width, ROWS=rows)
        ctx.save_for_backward(x, scale, shift)
        return out

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        from engine.diffusion.kernels import norm

        x, scale, shift = ctx.saved_tensors
        slope = slopes[0].contiguous(memory_format=torch.channels_last_3d)
        count, channels, voxels, width, rows = _layout(x)
        parts = min(-(-voxels // rows), max(1, _PARTS // count))
        back = torch.empty_like(x)
        of_scale, of_shift = (torch.empty(count, parts, channels, device=x.device) for _ in range(2))
        norm.norm_silu_back[(parts, count)](
            x, scale, shift, slope, back, of_scale, of_shift, voxels, parts,
            C=channels, WIDTH=width, ROWS=rows,
        )  # fmt: skip
        return back, of_scale.sum(1), of_shift.sum(1)


def _layout(x: Tensor) -> tuple[int, int, int, int, int]:
    """Samples, channels, voxels, channels rounded up to a power of two, and rows of one program."""
    count, channels, *size = x.shape
    width = 1 << (channels - 1).bit_length()
    return count, channels, math.prod(size), width, _ELEMENTS // width


def pilot_step(
    scan: Tensor,
    first: Tensor | None,
    *,
    local: Tensor,
    deviation: Tensor,
    cosines: Tensor,
    window: Tensor,
    ahead: tuple[int, int, int],
    threshold: float,
    faintest: float,
) -> Tensor:
    """Return what one step of `engine.diffusion.pilot` makes of scans (N, 1, Z, Y, X) on one grid of blocks.

    first      None for the step that keeps or drops bands, its result for the step that weighs them
    local      (N, blocks along z, y, x) level of the noise in every block
    deviation  (N, 256) of every band; cosines (64, 64) within a slice, rows are bands; window (256,)
    ahead      voxels that the first block reaches beyond the volume on every axis
    threshold  deviations that a band must reach to be kept (first step)
    faintest   floor of the squared level in the weights of the blocks

    All fp32, contiguous, on one GPU; the result is shaped like `scan`.
    """
    from engine.diffusion.kernels import pilot

    count, _, *size = scan.shape
    many = tuple(local.shape[1:])
    blocks = torch.empty(count, *many, 256, device=scan.device)
    weights = torch.empty(count, *many, device=scan.device)
    out = torch.empty_like(scan)
    half = math.sqrt(0.5)
    pilot.pilot_blocks[(-(-math.prod(many) // _BLOCKS), count)](
        scan, scan if first is None else first, local, deviation, cosines, window, blocks, weights,
        *size, *many, *ahead,
        SECOND=first is not None, THRESHOLD=threshold, FAINTEST=faintest,
        Z0=0.5, Z1=half * math.cos(math.pi / 8), Z2=half * math.sin(math.pi / 8), COUNT=_BLOCKS,
    )  # fmt: skip
    pilot.pilot_average[(size[0] * size[1], -(-size[2] // _VOXELS), count)](
        blocks, weights, window, out, *size, *many, *ahead, COUNT=_VOXELS
    )
    return out


@dataclass(frozen=True)
class Seen:
    """A state as the kernels around the network read it, each (N, 1, Z, Y, X) fp32; `local` half as large."""

    state: Tensor
    pilot: Tensor
    local: Tensor
    sigma: Tensor
    data_power: float

    def bands(self) -> Tensor:
        """Return the network's input (N, 32, ...) of half the size, bf16, channels-last; 8 channels are zero."""
        from engine.diffusion.kernels import bands

        out = torch.empty(
            (self.state.shape[0], _BANDS, *self.local.shape[2:]),
            dtype=torch.bfloat16,
            device=self.state.device,
            memory_format=torch.channels_last_3d,
        )
        bands.network_input[self._grid()](
            self.state, self.pilot, self.local, self.sigma, out, *self.local.shape[2:], self.data_power,
            WIDTH=_BANDS, COUNT=_CELLS,
        )  # fmt: skip
        return out

    def denoised(self, said: Tensor, limit: float) -> tuple[Tensor, Tensor]:
        """Return D and the log-variance, fp32, from what head and gate said (N, channels, ...), channels-last."""
        from engine.diffusion.kernels import bands

        mean, spread = torch.empty_like(self.state), torch.empty_like(self.state)
        bands.network_output[self._grid()](
            self.state, self.pilot, self.local, self.sigma, said, mean, spread,
            *self.local.shape[2:], self.data_power,
            WIDTH=said.shape[1], LIMIT=limit, COUNT=_CELLS,
        )  # fmt: skip
        return mean, spread

    def _grid(self) -> tuple[int, int, int]:
        """One program for `_CELLS` cells of a row."""
        depth, rows, columns = self.local.shape[2:]
        return depth * rows, -(-columns // _CELLS), self.state.shape[0]
