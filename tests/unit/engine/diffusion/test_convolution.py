"""One convolution by several kernels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from engine.diffusion.convolution import convolve


@pytest.mark.parametrize("size", [(2, 8, 8), (8, 32, 32), (16, 64, 64)])
@pytest.mark.parametrize("with_bias", [False, True])
def test_it_is_the_padded_convolution_with_gradients_and_without(
    size: tuple[int, int, int], with_bias: bool
) -> None:
    draw = torch.Generator().manual_seed(0)
    x = torch.randn((1, 16, *size), generator=draw).contiguous(memory_format=torch.channels_last_3d)
    weight = torch.randn((24, 16, 3, 3, 3), generator=draw) / 20
    bias = torch.randn(24, generator=draw) if with_bias else None
    expected = F.conv3d(x.double(), weight.double(), None if bias is None else bias.double(), padding=1)

    with torch.no_grad():
        torch.testing.assert_close(convolve(x, weight, bias).double(), expected, atol=1e-5, rtol=1e-5)
    weight.requires_grad_()
    assert convolve(x, weight, bias).requires_grad
