"""The Haar transform is orthonormal and exactly invertible."""

from __future__ import annotations

import pytest
import torch

from engine.diffusion.haar import haar_merge, haar_split


def test_merge_inverts_split() -> None:
    x = torch.randn(2, 3, 8, 6, 4, dtype=torch.float64)
    assert torch.allclose(haar_merge(haar_split(x)), x, atol=1e-14)


def test_power_is_kept() -> None:
    x = torch.randn(1, 1, 16, 16, 16, dtype=torch.float64)
    assert float(haar_split(x).square().sum()) == pytest.approx(float(x.square().sum()))


def test_white_noise_keeps_its_deviation_in_every_band() -> None:
    x = torch.randn(1, 1, 64, 64, 64, generator=torch.Generator().manual_seed(1))
    deviations = haar_split(x).std((0, 2, 3, 4))
    assert float((deviations - 1).abs().max()) < 0.02


def test_a_step_along_slices_lands_in_the_slice_band() -> None:
    x = torch.zeros(1, 1, 2, 2, 2)
    x[:, :, 0] = 1.0
    assert haar_split(x).flatten().nonzero().flatten().tolist() == [0, 4]


def test_odd_sizes_are_refused() -> None:
    with pytest.raises(ValueError, match="even"):
        haar_split(torch.zeros(1, 1, 3, 4, 4))
