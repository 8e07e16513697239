from __future__ import annotations

import numpy as np
import pytest

from engine import metrics
from engine.errors import EngineInputError


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    reference = np.cumsum(rng.standard_normal((14, 32, 30), np.float32), axis=2) * 20
    return reference + 15 * rng.standard_normal(reference.shape, np.float32), reference


def test_psnr_agrees_with_scikit_image(pair: tuple[np.ndarray, np.ndarray]) -> None:
    skimage = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")

    expected = skimage.peak_signal_noise_ratio(pair[1], pair[0], data_range=2000)

    assert metrics.psnr(*pair, value_range=2000) == pytest.approx(expected, abs=1e-4)


def test_ssim_agrees_with_scikit_image(pair: tuple[np.ndarray, np.ndarray]) -> None:
    skimage = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")

    expected = skimage.structural_similarity(
        pair[1], pair[0], data_range=500, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )

    assert metrics.ssim(*pair, value_range=500) == pytest.approx(expected, abs=1e-4)


def test_psnr_of_a_known_error_is_the_textbook_value() -> None:
    reference = np.zeros((2, 3, 4), np.float32)

    assert metrics.psnr(reference + 20, reference, value_range=2000) == pytest.approx(40.0)
    assert metrics.psnr(reference, reference, value_range=2000) == float("inf")


def test_identical_volumes_are_fully_similar(pair: tuple[np.ndarray, np.ndarray]) -> None:
    assert metrics.ssim(pair[1], pair[1], value_range=500) == pytest.approx(1.0)


def test_mask_restricts_every_figure(pair: tuple[np.ndarray, np.ndarray]) -> None:
    noisy, reference = pair
    mask = np.zeros(reference.shape, bool)
    mask[7, 16, 10:20] = True
    repaired = np.where(mask, reference, noisy)

    assert metrics.rmse(repaired, reference, mask) == 0.0
    assert metrics.rmse(repaired, reference) > 10
    assert metrics.ssim(noisy, reference, value_range=500, mask=mask) != metrics.ssim(
        noisy, reference, value_range=500
    )


def test_bias_is_signed() -> None:
    reference = np.zeros((2, 3, 4), np.float32)

    assert metrics.bias(reference + 2, reference) == 2.0
    assert metrics.bias(reference - 2, reference) == -2.0


def test_noise_of_a_region_ignores_drift_between_slices() -> None:
    rng = np.random.default_rng(0)
    drift = 100 * np.arange(10, dtype=np.float32)[:, None, None]
    image = 5 * rng.standard_normal((10, 40, 40), np.float32) + drift
    roi = np.zeros(image.shape, bool)
    roi[2:8, 10:30, 10:30] = True

    assert metrics.noise_sd(image, roi) == pytest.approx(5.0, rel=0.05)


def test_range_of_mr_is_the_high_percentile_of_the_reference() -> None:
    assert metrics.mr_range(np.arange(1001, dtype=np.float32)) == pytest.approx(995.0)


def test_what_cannot_be_measured_is_refused(pair: tuple[np.ndarray, np.ndarray]) -> None:
    noisy, reference = pair
    nothing = np.zeros(reference.shape, bool)
    thin = np.zeros((4, 32, 32), np.float32)

    with pytest.raises(EngineInputError, match="shapes differ"):
        metrics.rmse(noisy[1:], reference)
    with pytest.raises(EngineInputError, match="no voxel"):
        metrics.rmse(noisy, reference, nothing)
    with pytest.raises(EngineInputError, match="positive"):
        metrics.psnr(noisy, reference, value_range=0)
    with pytest.raises(EngineInputError, match="11 voxels"):
        metrics.ssim(thin, thin, value_range=1)
    with pytest.raises(EngineInputError, match="border"):
        metrics.ssim(noisy, reference, value_range=1, mask=nothing)
    with pytest.raises(EngineInputError, match="too small"):
        metrics.noise_sd(noisy, nothing)
