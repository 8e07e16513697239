"""Tiles: weights sum to one, blocks are found, and the tiled network equals the whole."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.diffusion.conditioning import Condition
from engine.diffusion.network import SHAPES, UNet
from engine.diffusion.preconditioning import Denoiser
from engine.tiling import GRID, axis_spans, run_tiled, tile_shape


@given(st.integers(1, 700), st.integers(2, 6))
def test_weights_sum_to_one(length: int, cells: int) -> None:
    total = torch.zeros(length)
    for span in axis_spans(length, cells * GRID):
        assert span.start % GRID == 0
        total[span.start : span.stop] += span.weight
    assert torch.allclose(total, torch.ones(length), atol=1e-6)


def test_an_identity_passes_through_unchanged() -> None:
    x = torch.randn(16, 208, 144)
    (out,) = run_tiled([x], lambda b: [b[0]], (16, 128, 128), before_tile=lambda _f: None)
    assert torch.allclose(out, x, atol=1e-6)


@pytest.mark.parametrize("shape", [(512, 512, 512), (40, 512, 512), (16, 64, 64), (300, 300, 200)])
def test_tiles_respect_the_budget_or_the_smallest_size(shape: tuple[int, int, int]) -> None:
    tile = tile_shape(shape, 12_000_000)
    smallest = min(shape[0], 192) * min(shape[1], 192) * min(shape[2], 192)
    assert tile[0] * tile[1] * tile[2] <= max(12_000_000, smallest)


@pytest.mark.timeout(120)
def test_the_tiled_network_equals_the_whole() -> None:
    torch.manual_seed(0)
    network = UNet(SHAPES["small"]).eval()
    for block in network.modules():
        if isinstance(block, torch.nn.Conv3d) and not bool(block.weight.any()):
            torch.nn.init.normal_(block.weight, std=0.03)
    denoiser, sigma = Denoiser(network), torch.tensor([0.2])
    condition = Condition(sigma, torch.zeros(1, 8), torch.ones(1), torch.zeros(1, 2))

    def evaluate(blocks: list[torch.Tensor]) -> list[torch.Tensor]:
        z = blocks[0][None, None]
        with torch.no_grad():
            return [denoiser(z, z, sigma, condition).mean[0, 0]]

    y = 0.2 * torch.randn(16, 256, 64)
    y[:, 90:160] += 1.0
    whole = evaluate([y])[0]
    (tiled,) = run_tiled([y], evaluate, (16, 192, 64), before_tile=lambda _f: None)
    assert float((tiled - whole).abs().max()) <= 0.05 * float(sigma)
