"""The data-scaled v-prediction: identity at the start, limits, and the DDPM's own quantities."""

from __future__ import annotations

import pytest
import torch

from engine.diffusion.conditioning import Condition
from engine.diffusion.network import SHAPES, UNet
from engine.diffusion.preconditioning import SIGMA_DATA, Denoiser, preconditioning


def condition(count: int = 1) -> Condition:
    return Condition(
        torch.full((count,), 0.1), torch.zeros(count, 8), torch.ones(count), torch.zeros(count, 2)
    )


def test_scales_follow_karras_table_1() -> None:
    sigma = torch.tensor([0.1, 1.0, 10.0])
    c_skip, c_out, c_in = preconditioning(sigma)
    assert torch.allclose(c_skip + (sigma * c_in) ** 2, torch.ones(3))
    assert torch.allclose(c_out, sigma * SIGMA_DATA * c_in)


def test_an_untrained_network_shrinks_the_scan_and_adds_nothing() -> None:
    z = torch.randn(1, 1, 16, 16, 16)
    out = Denoiser(UNet(SHAPES["small"]))(z, z, torch.tensor([0.1]), condition())
    assert torch.allclose(out.mean, z * preconditioning(torch.tensor(0.1))[0], atol=1e-6)


def test_full_precision_survives_the_skip_in_bf16() -> None:
    z = torch.full((1, 1, 16, 16, 16), 4.0) + 1e-4 * torch.randn(1, 1, 16, 16, 16)
    out = Denoiser(UNet(SHAPES["small"]), torch.bfloat16)(z, z, torch.tensor([1e-3]), condition())
    assert float((out.mean.detach() - z).abs().max()) < 1e-5


@pytest.mark.parametrize("size", [(16, 16, 16), (16, 80, 48), (80, 80, 96)])
def test_every_multiple_of_the_stride_is_accepted(size: tuple[int, int, int]) -> None:
    z = torch.zeros(1, 1, *size)
    assert Denoiser(UNet(SHAPES["small"]))(z, z, torch.tensor([0.1]), condition()).mean.shape == z.shape
