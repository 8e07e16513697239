"""D(z, sigma) of a whole volume: padding to the network's stride, tiles when memory is short, progress."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from engine.device import ComputeDevice
from engine.diffusion.conditioning import Condition
from engine.diffusion.network import STRIDE, NetworkShape
from engine.diffusion.preconditioning import Denoiser, preconditioning
from engine.enhancer import CancelToken, Progress
from engine.tiling import run_tiled, tile_shape

_BYTES_PER_CHANNEL = 14
"""Measured peak per voxel of a tile, over the channels of the finest level, at two bytes a number."""
_FIXED_BYTES = 120
"""fp32 volumes per voxel of a tile: state, scan, bands, result."""
_MOST_VOXELS = {"cpu": 12_000_000, "cuda": 180_000_000}
"""Beyond this a larger tile is no faster."""


class VolumeDenoiser:
    """Calls the denoiser on a padded volume, tile by tile; counts evaluations and reports progress.

    Satisfies `engine.diffusion.samplers.Denoise` for (Z, Y, X) states. `deviation` holds the predicted
    error of the last evaluation, `first_deviation` of the first.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        compute: ComputeDevice,
        pilot: Tensor,
        condition: Condition,
        *,
        progress: Progress,
        cancel: CancelToken,
        expected: int,
    ) -> None:
        self._denoiser, self._compute, self._expected = denoiser, compute, expected
        self._progress, self._cancel = progress, cancel
        self._size = (pilot.shape[0], pilot.shape[1], pilot.shape[2])
        self._pilot = pad_to_stride(pilot)
        self._condition = Condition(
            noise=condition.noise.to(compute.device),
            colour=condition.colour.to(compute.device),
            is_ct=condition.is_ct.to(compute.device),
            spacing=condition.spacing.to(compute.device),
        )
        padded = self._pilot.shape
        self.tile = tile_shape(
            (padded[0], padded[1], padded[2]), _tile_voxels(denoiser.network.shape, compute)
        )
        self.evaluations = 0
        self.deviation = torch.zeros(0)
        self.first_deviation = torch.zeros(0)

    def __call__(self, z: Tensor, sigma: float) -> Tensor:
        """Denoise the state `z` (Z, Y, X) of noise `sigma`."""
        level = torch.tensor([sigma], device=self._compute.device)
        c_out = float(preconditioning(level)[1])

        def evaluate(blocks: list[Tensor]) -> list[Tensor]:
            state, pilot = (b[None, None].to(self._compute.device) for b in blocks)
            out = self._denoiser(state, pilot, level, self._condition)
            spread = c_out * torch.exp(0.5 * out.log_variance[0, 0])
            home = blocks[0].device
            return [out.mean[0, 0].to(home), spread.to(home)]

        mean, spread = run_tiled(
            [pad_to_stride(z), self._pilot], evaluate, self.tile, before_tile=self._report
        )
        depth, rows, columns = self._size
        self.deviation = spread[:depth, :rows, :columns]
        if self.evaluations == 0:
            self.first_deviation = self.deviation
        self.evaluations += 1
        return mean[:depth, :rows, :columns]

    def _report(self, fraction: float) -> None:
        """Tell how far the run is; stop when asked to."""
        self._cancel.raise_if_cancelled()
        done = (self.evaluations + fraction) / max(self._expected, 1)
        self._progress(0.15 + 0.8 * min(done, 1.0), "denoising")


def pad_to_stride(x: Tensor) -> Tensor:
    """Extend (Z, Y, X) at the far ends to multiples of the stride by mirroring."""
    for axis in range(3):
        n = x.shape[axis]
        wanted = math.ceil(n / STRIDE) * STRIDE
        if wanted != n:
            index = torch.arange(wanted, device=x.device) % (2 * n)
            x = x.index_select(axis, torch.where(index < n, index, 2 * n - 1 - index))
    return x


def _tile_voxels(shape: NetworkShape, compute: ComputeDevice) -> int:
    """Voxels of one tile that fit the memory."""
    fitting = compute.memory_bytes // _bytes_per_voxel(shape, compute)
    return min(fitting, _MOST_VOXELS[compute.device.type])


def _bytes_per_voxel(shape: NetworkShape, compute: ComputeDevice) -> int:
    """Estimated peak bytes per voxel of a tile."""
    factor = 1 if compute.precision is not torch.float32 else 2
    return _FIXED_BYTES + _BYTES_PER_CHANNEL * factor * shape.widths[0] // 8


def peak_bytes(shape: NetworkShape, size: tuple[int, int, int], compute: ComputeDevice) -> int:
    """Return the estimated peak memory of one run: a tile in the network and the volume's copies."""
    padded = [math.ceil(n / STRIDE) * STRIDE for n in size]
    tile = tile_shape((padded[0], padded[1], padded[2]), _tile_voxels(shape, compute))
    return math.prod(tile) * _bytes_per_voxel(shape, compute) + math.prod(padded) * 4 * 8
