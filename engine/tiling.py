"""Split a volume into overlapping tiles and blend their results; whole when it fits.

Tiles start on multiples of 64 voxels, where the attention windows of the whole volume start, and every
tile sees 32 voxels beyond what it contributes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

GRID = 64
"""Tile origins are multiples of this many voxels: the edge of an attention window."""
HALO = 32
_RAMP = 12
"""Blending reaches this far to each side of the boundary between two tiles."""


@dataclass(frozen=True)
class Span:
    """One tile along one axis: voxels read, and the weight of each of them in the blend."""

    start: int
    stop: int
    weight: Tensor


def axis_spans(length: int, tile: int) -> list[Span]:
    """Split an axis of `length` voxels into tiles of at most `tile`; weights sum to one everywhere.

    Raises `ValueError` for a tile that is no multiple of GRID or not larger than two halos.
    """
    if tile >= length:
        return [Span(0, length, torch.ones(length))]
    if tile % GRID or tile <= 2 * HALO:
        raise ValueError(f"a tile is a multiple of {GRID} above {2 * HALO}, not {tile}")
    spans, start = [], 0
    while True:
        stop = min(start + tile, length)
        spans.append(Span(start, stop, _weights(start, stop, length)))
        if stop == length:
            return spans
        start += tile - 2 * HALO


def _weights(start: int, stop: int, length: int) -> Tensor:
    """Raised-cosine ramps around the inner boundaries, HALO voxels inside each end."""
    position = torch.arange(start, stop, dtype=torch.float32) + 0.5
    weight = torch.ones(stop - start)
    if start > 0:
        weight = weight * _ramp(position - (start + HALO))
    if stop < length:
        weight = weight * _ramp(stop - HALO - position)
    return weight


def _ramp(distance: Tensor) -> Tensor:
    """0 below -_RAMP, 1 above +_RAMP, a raised cosine between."""
    return 0.5 + 0.5 * torch.sin((distance / _RAMP).clamp(-1.0, 1.0) * (math.pi / 2))


def tile_shape(shape: tuple[int, int, int], voxels: int) -> tuple[int, int, int]:
    """Return the largest tile of at most `voxels`: slabs along slices first, then smaller planes.

    Never smaller than 192 voxels along a split axis (or the axis itself).
    """
    smallest = [min(n, 3 * GRID) for n in shape]
    tile = list(shape)
    for axis in (0, 1, 2):
        rest = math.prod(tile) // tile[axis]
        if tile[axis] * rest <= voxels:
            break
        fitting = voxels // rest // GRID * GRID
        tile[axis] = min(tile[axis], max(smallest[axis], fitting))
    return tile[0], tile[1], tile[2]


def run_tiled(
    inputs: list[Tensor],
    evaluate: Callable[[list[Tensor]], list[Tensor]],
    tile: tuple[int, int, int],
    *,
    before_tile: Callable[[float], None],
) -> list[Tensor]:
    """Evaluate overlapping tiles of volumes of one shape and blend the results in fp32.

    inputs     tensors (Z, Y, X); `evaluate` gets the same block of each and returns equal-shaped tensors
    before_tile is called with the fraction done before every tile, and may raise to stop
    """
    shape = inputs[0].shape
    blocks = list(_blocks((shape[0], shape[1], shape[2]), tile))
    if len(blocks) == 1:
        before_tile(0.0)
        return evaluate(inputs)
    sums: list[Tensor] = []
    for number, spans in enumerate(blocks):
        before_tile(number / len(blocks))
        cut = tuple(slice(s.start, s.stop) for s in spans)
        results = evaluate([x[cut] for x in inputs])
        sums = sums or [torch.zeros(shape, device=inputs[0].device) for _ in results]
        z, y, x = (s.weight.to(inputs[0].device) for s in spans)
        weight = z[:, None, None] * y[None, :, None] * x[None, None, :]
        for total, result in zip(sums, results, strict=True):
            total[cut] += result * weight
    return sums


def _blocks(shape: tuple[int, int, int], tile: tuple[int, int, int]) -> Iterator[tuple[Span, Span, Span]]:
    """All combinations of spans, slices slowest."""
    per_axis = [axis_spans(n, t) for n, t in zip(shape, tile, strict=True)]
    for z in per_axis[0]:
        for y in per_axis[1]:
            for x in per_axis[2]:
                yield z, y, x
