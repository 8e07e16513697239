"""The 3x3x3 convolution of the U-Net, by whatever is fastest where it runs."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return a zero-padded 3x3x3 convolution of x (N, C, Z, Y, X).

    For small fp32 images on a CPU PyTorch (2.13) prefers a kernel of its own to oneDNN's, which is two to five times
    faster at the sizes of the coarser levels: that one is called by name, where no gradient is wanted.
    """
    plain = x.device.type == "cpu" and x.dtype is torch.float32 and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if plain and not torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu"):
        return torch.mkldnn_convolution(x, weight, bias, (1, 1, 1), (1, 1, 1), (1, 1, 1), 1)
    return F.conv3d(x, weight, bias, padding=1)


class Convolution(nn.Conv3d):
    """`convolve` with weights of its own."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 3, padding=1, bias=False)

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (the base class names it so)
        """`input`: (N, C, Z, Y, X)."""
        return convolve(input, self.weight, self.bias)
