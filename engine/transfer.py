"""Between arrays in ordinary memory and tensors on a device.

A GPU reads and writes only memory that the system may not move. Copies of ordinary memory pass through a small
buffer of such memory in the driver, by one thread: 0.4 s for the volume of 512x512x512 on an H200. Through two
buffers of our own, filled and emptied by all threads while the other is on its way, it takes a fraction of that.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float32]

_CHUNK = 16 * 2**20
"""Numbers that one buffer holds: 64 MiB."""
_WORTH_IT = 4 * 2**20
"""Smaller volumes are copied at once."""


def to_device(array: Array, device: torch.device | str) -> Tensor:
    """Return an array as a tensor on a device; on the CPU they share memory."""
    here = torch.from_numpy(np.ascontiguousarray(array, np.float32))
    place = torch.device(device)
    if place.type != "cuda" or here.numel() < _WORTH_IT:
        return here.to(place)
    there = torch.empty(here.shape, device=place)
    buffers, arrived = _buffers(), _events()
    for turn, (source, target) in enumerate(_chunks(here, there)):
        buffer = buffers[turn % 2][: source.numel()]
        arrived[turn % 2].synchronize()
        buffer.copy_(source)
        target.copy_(buffer, non_blocking=True)
        arrived[turn % 2].record()
    torch.cuda.current_stream().synchronize()
    return there


def to_array(tensor: Tensor) -> Array:
    """Return a float tensor as an array; of a tensor on the CPU they share memory."""
    if not tensor.is_cuda or tensor.numel() < _WORTH_IT:
        small: Array = tensor.cpu().numpy()
        return small
    array = np.empty(tuple(tensor.shape), np.float32)  # numpy asks for large pages, which are touched faster
    buffers, arrived = _buffers(), _events()
    pairs = list(_chunks(tensor.contiguous(), torch.from_numpy(array)))
    for turn in range(len(pairs) + 1):
        if turn < len(pairs):
            source = pairs[turn][0]
            buffers[turn % 2][: source.numel()].copy_(source, non_blocking=True)
            arrived[turn % 2].record()
        if turn:
            arrived[(turn - 1) % 2].synchronize()
            target = pairs[turn - 1][1]
            target.copy_(buffers[(turn - 1) % 2][: target.numel()])
    return array


def _buffers() -> list[Tensor]:
    """Two buffers that the system does not move; PyTorch keeps them for the next copy."""
    return [torch.empty(_CHUNK, pin_memory=True) for _ in range(2)]


def _events() -> list[torch.cuda.Event]:
    """One event for each buffer: its copy is done."""
    return [torch.cuda.Event() for _ in range(2)]  # type: ignore[no-untyped-call]


def _chunks(source: Tensor, target: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The same pieces of two contiguous tensors."""
    return list(
        zip(torch.split(source.flatten(), _CHUNK), torch.split(target.flatten(), _CHUNK), strict=True)
    )
