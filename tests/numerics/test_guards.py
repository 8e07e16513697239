"""The guards keep what they promise, whatever the network says."""

from __future__ import annotations

import math

import pytest
import torch

from engine.diffusion.guards import (
    RESIDUAL_BOUND,
    bound_residual,
    gaussian_blur,
    grain_share,
    keep_low_frequencies,
    near_clean_share,
    rician_bias,
)

WHITE = torch.zeros(1, 8)


def test_small_residuals_pass_unchanged() -> None:
    residual = torch.randn(16, 32, 32, generator=torch.Generator().manual_seed(0)).clamp(-2.9, 2.9)
    bounded, share = bound_residual(residual, 1.0)
    assert torch.allclose(bounded, residual)
    assert share == 0.0


def test_a_removed_structure_is_given_back() -> None:
    residual = torch.zeros(16, 32, 32)
    residual[8, 16, 16] = 50.0
    bounded, share = bound_residual(residual, 1.0)
    assert float(bounded.max()) < 3 * RESIDUAL_BOUND
    assert share > 0


def test_a_drift_of_the_mean_is_taken_back() -> None:
    kept, share = keep_low_frequencies(torch.full((32, 48, 48), 0.5), 1.0, WHITE)
    assert float(kept.abs().max()) < 0.03
    assert share == 1.0


def test_noise_itself_is_hardly_touched() -> None:
    noise = torch.randn(32, 48, 48, generator=torch.Generator().manual_seed(1))
    kept, _ = keep_low_frequencies(noise, 1.0, WHITE)
    assert float((kept - noise).std()) < 0.02


def test_the_bias_of_a_magnitude_may_be_removed() -> None:
    bias = rician_bias(torch.zeros(32, 48, 48), 1.0)
    kept, _ = keep_low_frequencies(bias, 1.0, WHITE, bias)
    assert torch.allclose(kept, bias)


def test_rician_bias_has_its_known_limits() -> None:
    signal = torch.tensor([0.0, 20.0])
    bias = rician_bias(signal, 1.0)
    assert float(bias[0]) == pytest.approx(math.sqrt(math.pi / 2), rel=1e-5)
    assert float(bias[1]) == pytest.approx(1 / 40, rel=0.02)


def test_blurring_keeps_a_constant() -> None:
    assert torch.allclose(gaussian_blur(torch.full((5, 40, 3), 2.0), 4.0), torch.full((5, 40, 3), 2.0))


def test_strength_rises_from_nothing_to_all() -> None:
    assert near_clean_share(0.004) == 0.0
    assert near_clean_share(0.011) == pytest.approx(0.5)
    assert near_clean_share(0.2) == 1.0


def test_ct_keeps_some_grain_at_diagnostic_noise_and_none_beyond() -> None:
    assert grain_share(0.02) == grain_share(0.06) == pytest.approx(0.86)
    assert grain_share(0.12) == pytest.approx(0.93)
    assert grain_share(0.18) == grain_share(1.0) == 1.0
