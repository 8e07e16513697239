"""Samplers against a Gaussian prior, where the posterior is known exactly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from engine.diffusion.noise_schedule import descending_sigmas
from engine.diffusion.samplers import blend_strength, refine, sample_ancestral, sample_average, sample_mean

SIGMA = 0.7
WIENER = 1.0 / (1.0 + SIGMA**2)


def wiener(z: Tensor, sigma: float) -> Tensor:
    """The exact denoiser of a standard normal prior."""
    return z / (1.0 + sigma**2)


def white(seed: int):
    generator = torch.Generator().manual_seed(seed)
    return lambda like: torch.randn(like.shape, generator=generator)


@pytest.mark.parametrize("steps", [1, 2, 4, 10, 50])
def test_power_two_telescopes_to_the_wiener_gain_on_any_grid(steps: int) -> None:
    y = torch.tensor([1.0, -2.0, 5.0], dtype=torch.float64)
    z = refine(wiener, y, descending_sigmas(SIGMA, steps))
    # (z - D) / z = s^2/(1 + s^2), so each step scales z by (1 + s'^2)/(1 + s^2).
    assert torch.allclose(z, WIENER * y, rtol=1e-12)


def test_power_one_tends_to_the_root_of_the_wiener_gain() -> None:
    y = torch.tensor([1.0, -2.0], dtype=torch.float64)
    z = refine(wiener, y, descending_sigmas(SIGMA, 4000), power=1.0)
    assert torch.allclose(z, WIENER**0.5 * y, rtol=2e-3)


def test_one_step_is_the_posterior_mean() -> None:
    y = torch.randn(10, dtype=torch.float64)
    assert torch.equal(refine(wiener, y, [SIGMA, 0.0]), sample_mean(wiener, y, SIGMA))


def test_ancestral_samples_average_to_the_posterior_mean_and_have_its_spread() -> None:
    y = torch.full((200_000,), 1.5, dtype=torch.float64)
    z = sample_ancestral(wiener, y, descending_sigmas(SIGMA, 50), white(0))
    assert float(z.mean()) == pytest.approx(WIENER * 1.5, abs=0.01)
    assert float(z.var()) == pytest.approx(SIGMA**2 * WIENER, rel=0.08)


def test_averaging_reports_the_spread_of_the_samples() -> None:
    y = torch.full((20_000,), 1.0, dtype=torch.float64)
    mean, spread = sample_average(wiener, y, descending_sigmas(SIGMA, 100), white(1), repeats=4)
    assert float(mean.mean()) == pytest.approx(WIENER, abs=0.02)
    assert float(spread.square().mean()) == pytest.approx(SIGMA**2 * WIENER, rel=0.08)


def test_one_seed_gives_one_sample() -> None:
    y = torch.ones(100)
    sigmas = descending_sigmas(SIGMA, 5)
    assert torch.equal(
        sample_ancestral(wiener, y, sigmas, white(3)), sample_ancestral(wiener, y, sigmas, white(3))
    )


def test_strength_is_linear_between_scan_and_result() -> None:
    y, d = torch.tensor([10.0]), torch.tensor([4.0])
    assert blend_strength(d, y, 0.0).item() == 10.0
    assert blend_strength(d, y, 1.0).item() == 4.0
    assert blend_strength(d, y, 0.5).item() == 7.0


@pytest.mark.parametrize("sigmas", [[1.0], [1.0, 0.5], [0.5, 1.0, 0.0]])
def test_a_grid_that_does_not_descend_to_zero_is_refused(sigmas: list[float]) -> None:
    with pytest.raises(ValueError, match="descend"):
        refine(wiener, torch.ones(1), sigmas)
