"""Metrics against answers known by hand and against scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from engine.evaluation import metrics

RNG = np.random.default_rng(0)
TRUTH = (np.linspace(-100, 100, 80)[None, None, :] + np.zeros((12, 80, 80))).astype(np.float32)
EVERYWHERE = np.ones(TRUTH.shape, dtype=bool)


def test_psnr_of_a_known_error() -> None:
    assert metrics.psnr(TRUTH + 20, TRUTH, 2000.0) == pytest.approx(40.0)
    assert math.isinf(metrics.psnr(TRUTH, TRUTH, 2000.0))


def test_psnr_and_ssim_are_those_of_scikit_image() -> None:
    noisy = (TRUTH + RNG.normal(0, 30, TRUTH.shape)).astype(np.float32)
    theirs = structural_similarity(
        noisy, TRUTH, data_range=2000.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert metrics.psnr(noisy, TRUTH, 2000.0) == pytest.approx(
        peak_signal_noise_ratio(TRUTH, noisy, data_range=2000.0), abs=1e-3
    )
    assert metrics.ssim(noisy, TRUTH, 2000.0) == pytest.approx(theirs, abs=2e-3)
    assert metrics.ssim(TRUTH, TRUTH, 2000.0) == pytest.approx(1.0)


def test_a_window_hides_errors_outside_it() -> None:
    truth = np.where(TRUTH > 0, np.float32(50), np.float32(-800))
    error = np.where(TRUTH > 0, np.float32(4), np.float32(90))
    assert metrics.windowed_psnr(truth + error, truth, (-160.0, 240.0)) == pytest.approx(40.0, abs=1e-3)
    assert math.isnan(metrics.windowed_psnr(truth, truth, (400.0, 500.0)))


def test_hfen_is_relative_to_the_detail() -> None:
    detail = RNG.normal(0, 1, TRUTH.shape).astype(np.float32)
    assert metrics.hfen(2 * detail, detail) == pytest.approx(1.0, abs=1e-6)


def test_halved_noise_is_a_snr_gain_of_one() -> None:
    noise = RNG.normal(0, 10, TRUTH.shape).astype(np.float32)
    quiet = metrics.homogeneous(TRUTH, EVERYWHERE)
    gain = metrics.snr_gain(TRUTH + noise, TRUTH + noise / 2, TRUTH, quiet)
    assert gain == pytest.approx(1.0, rel=0.01)


def test_homogeneous_regions_avoid_edges() -> None:
    stepped = TRUTH * 0 + np.where(np.arange(80) < 40, 0, 500).astype(np.float32)
    assert not metrics.homogeneous(stepped, EVERYWHERE)[:, :, 37:43].any()


def test_bias_is_found_per_tissue() -> None:
    truth = np.full((4, 40, 40), 50.0, dtype=np.float32)
    assert metrics.tissue_bias(truth + 2, truth) == {"soft": pytest.approx(2.0)}


def test_mr_bias_is_found_in_the_background_and_by_signal() -> None:
    truth = np.abs(TRUTH)
    body = truth > 20
    found = metrics.signal_bias(truth + np.where(body, 1, 5).astype(np.float32), truth, body)
    assert found["background"] == pytest.approx(5.0, abs=1e-4)
    assert found["dark"] == pytest.approx(1.0, abs=1e-4)
    assert found["bright"] == pytest.approx(1.0, abs=1e-4)


def test_a_lost_contrast_shows_in_the_slope() -> None:
    assert metrics.slope(0.9 * TRUTH + 3, TRUTH, EVERYWHERE) == pytest.approx(0.9, abs=1e-5)


def test_white_noise_has_a_flat_spectrum_with_its_mean_in_the_middle() -> None:
    spectrum = metrics.noise_spectrum(RNG.normal(0, 3, (40, 64, 64)).astype(np.float32))
    assert np.allclose(spectrum[2:], 9.0, rtol=0.15)
    assert metrics.spectrum_frequencies(spectrum)[1] == pytest.approx(0.5, abs=0.03)


def test_a_removed_wave_stands_out_of_the_residual_at_its_frequency() -> None:
    noise = RNG.normal(0, 10, (12, 64, 64)).astype(np.float32)
    wave = 20 * np.sin(2 * np.pi * 8 * np.arange(64) / 64).astype(np.float32)
    ratio = metrics.residual_ratio(noise + wave, noise)
    assert np.argmax(ratio) == 8
    assert ratio[8] > 2
    assert np.median(ratio) == pytest.approx(1.0, abs=0.05)


def test_removed_edges_correlate_with_the_edges_that_stay() -> None:
    step = np.where(np.arange(80) < 40, 0, 300).astype(np.float32) + np.zeros_like(TRUTH)
    noise = RNG.normal(0, 10, TRUTH.shape).astype(np.float32)
    edge = np.where(np.abs(np.arange(80) - 39.5) < 2, 60, 0).astype(np.float32)
    assert abs(metrics.residual_edge_correlation(noise, step, EVERYWHERE)) < 0.03
    assert metrics.residual_edge_correlation(noise + edge, step, EVERYWHERE) > 0.5


def test_coverage_of_normal_errors() -> None:
    error = RNG.normal(0, 7, TRUTH.shape).astype(np.float32)
    stated = np.full_like(error, 7)
    assert metrics.coverage(error, stated, EVERYWHERE, 1.96) == pytest.approx(0.95, abs=0.005)
    assert metrics.coverage(error, stated / 2, EVERYWHERE, 1.96) == pytest.approx(0.673, abs=0.01)
