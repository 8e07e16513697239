"""The pilot: exact where nothing is noise, the same slab by slab, and a gain close to the filter in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from engine.blocks import BLOCK_SIZE
from engine.diffusion import pilot as pilots
from engine.diffusion.pilot import pilot, pilot_of_volume

WHITE = torch.ones(1, BLOCK_SIZE)


def body(size: tuple[int, int, int]) -> torch.Tensor:
    """A cylinder of contrast 20 in a smooth background, no noise."""
    y, x = torch.meshgrid(torch.arange(size[1]), torch.arange(size[2]), indexing="ij")
    disc = ((y - size[1] / 2) ** 2 + (x - size[2] / 2) ** 2 < (size[1] / 4) ** 2).float()
    return (20.0 * disc + 0.05 * x)[None].repeat(size[0], 1, 1)


def test_without_noise_the_scan_is_returned() -> None:
    scan = torch.randn(1, 1, 8, 24, 20)
    out = pilot(scan, 1e-10 * WHITE, torch.ones_like(scan))
    assert torch.allclose(out, scan, atol=1e-3)


def test_a_constant_stays_what_it_is_under_any_noise() -> None:
    scan = torch.full((1, 1, 8, 16, 16), 7.25)
    assert torch.allclose(pilot(scan, WHITE, torch.ones_like(scan)), scan, atol=1e-5)


def test_each_scan_of_a_batch_is_filtered_with_its_own_noise() -> None:
    scans = torch.randn(2, 1, 8, 16, 16)
    out = pilot(scans, torch.cat((WHITE, 1e-10 * WHITE)), torch.ones_like(scans))
    assert float(out[0].std()) < 0.4
    assert torch.allclose(out[1], scans[1], atol=1e-3)


def test_where_the_local_level_is_zero_nothing_changes() -> None:
    scan = torch.randn(1, 1, 8, 16, 64)
    level = torch.ones_like(scan)
    level[..., :32] = 0.0
    out = pilot(scan, WHITE, level)
    assert torch.allclose(out[..., :24], scan[..., :24], atol=1e-2)
    assert float(out[..., 44:].std()) < 0.4


@pytest.mark.parametrize("coloured", [False, True])
def test_noise_of_any_colour_falls_to_less_than_half(coloured: bool) -> None:
    clean = body((16, 64, 64))
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=clean.shape)).float()
    spectrum = WHITE
    if coloured:
        # A moving average of two columns: its power in a block band k is 2 cos^2(pi k / 16) of white noise.
        noise = (noise + noise.roll(1, dims=2)) / 2**0.5
        share = 2 * torch.cos(torch.pi * torch.arange(8) / 16) ** 2
        spectrum = share.repeat(32)[None]
    scan = (clean + noise)[None, None]
    error = pilot(scan, spectrum, torch.ones_like(scan))[0, 0] - clean
    assert float(error.std()) < 0.5
    assert abs(float(error.mean())) < 0.05


def test_slabs_give_the_bits_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(pilots._SLAB_VOXELS, "cpu", 1)
    scan = body((56, 24, 24)) + torch.randn(56, 24, 24)
    level = torch.linspace(0.5, 1.5, 56)[:, None, None].expand_as(scan)
    told: list[float] = []
    out = pilot_of_volume(scan, WHITE, lambda a, b: level[a:b], torch.device("cpu"), before_slab=told.append)
    assert len(told) == 3
    assert torch.equal(out, pilot(scan[None, None], WHITE, level[None, None])[0, 0])
