"""Whether this machine's bf16 convolutions give the gradients they should.

oneDNN of torch 2.13 returned weight gradients of 3D convolutions that were wrong by 60 % and more, or not finite,
for images two slices deep on processors with AVX512-BF16; a level of the U-Net then never learns, without an
error. So every level's shape is tried before a run, and a level that fails is trained in fp32.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from engine.diffusion.network import NetworkShape
from engine.training.config import TrainingConfig

_ERROR = 0.03
"""Relative error of a trustworthy bf16 gradient is 0.3 to 0.5 %."""


def untrusted_levels(shape: NetworkShape, config: TrainingConfig) -> frozenset[int]:
    """Return the levels of the U-Net, 0 the finest, whose bf16 gradients differ from the fp32 ones."""
    if config.precision != "bfloat16":
        return frozenset()
    device = torch.device(config.device)
    wrong = set()
    for level, width in enumerate(shape.widths):
        for patch in config.shapes:
            size = [max(edge >> (level + 1), 1) for edge in patch]
            if gradient_error((config.batch, width, *size), device) > _ERROR:
                wrong.add(level)
    return frozenset(wrong)


def gradient_error(size: tuple[int, ...], device: torch.device) -> float:
    """Return the largest relative error of the bf16 gradients of a 3x3x3 convolution of `size`.

    `size`: (N, C, Z, Y, X). Infinite when a gradient is not finite.
    """
    generator = torch.Generator().manual_seed(0)
    width = size[1]
    image, slope = (torch.randn(size, generator=generator) for _ in range(2))
    kernel = torch.randn(width, width, 3, 3, 3, generator=generator) / (27 * width) ** 0.5
    found = []
    for precision in (torch.float32, torch.bfloat16):
        x, w, g = (
            t.to(device, precision).contiguous(memory_format=torch.channels_last_3d)
            for t in (image, kernel, slope)
        )
        x.requires_grad_()
        w.requires_grad_()
        gradients = torch.autograd.grad(F.conv3d(x, w, padding=1), (x, w), g)
        found.append([gradient.float() for gradient in gradients])
    errors = [float((a - b).norm() / a.norm()) for a, b in zip(*found, strict=True)]
    return max(error if math.isfinite(error) else math.inf for error in errors)
