"""Metrics against answers known by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.errors import EngineInputError
from engine.evaluation import metrics
from engine.evaluation.cases import NoiseLevel, noisy_cases, parse_levels
from engine.evaluation.compare import bootstrap_interval
from engine.evaluation.peers import choose_peers
from engine.volume import IntensityUnit, Volume

RNG = np.random.default_rng(0)
TRUTH = (np.linspace(-100, 100, 80)[None, None, :] + np.zeros((8, 80, 80))).astype(np.float32)


def test_psnr_of_a_known_error() -> None:
    assert metrics.psnr(TRUTH + 20, TRUTH, 2000.0) == pytest.approx(40.0)
    assert math.isinf(metrics.psnr(TRUTH, TRUTH, 2000.0))


def test_ssim_of_equal_images_is_one_and_falls_with_noise() -> None:
    noisy = (TRUTH + RNG.normal(0, 30, TRUTH.shape)).astype(np.float32)
    assert metrics.ssim(TRUTH, TRUTH, 2000.0) == pytest.approx(1.0)
    assert metrics.ssim(noisy, TRUTH, 2000.0) < 0.95


def test_hfen_is_relative_to_the_detail() -> None:
    detail = RNG.normal(0, 1, TRUTH.shape).astype(np.float32)
    assert metrics.hfen(2 * detail, detail) == pytest.approx(1.0, abs=1e-6)


def test_halved_noise_is_a_snr_gain_of_one() -> None:
    noise = RNG.normal(0, 10, TRUTH.shape).astype(np.float32)
    mask = np.ones(TRUTH.shape, dtype=bool)
    assert metrics.snr_gain(TRUTH + noise, TRUTH + noise / 2, TRUTH, mask) == pytest.approx(1.0, rel=0.01)


def test_bias_is_found_per_tissue() -> None:
    truth = np.full((4, 40, 40), 50.0, dtype=np.float32)
    assert metrics.tissue_bias(truth + 2, truth) == {"soft": pytest.approx(2.0)}


def test_white_noise_has_a_flat_spectrum() -> None:
    spectrum = metrics.noise_spectrum(RNG.normal(0, 3, (40, 64, 64)).astype(np.float32))
    assert np.allclose(spectrum[2:], 9.0, rtol=0.15)


def test_levels_are_read() -> None:
    assert parse_levels("ct30c, mr7") == [NoiseLevel(True, 30.0, True), NoiseLevel(False, 7.0, False)]
    with pytest.raises(EngineInputError, match="pet5"):
        parse_levels("pet5")


def test_cases_have_the_noise_they_claim() -> None:
    volume = Volume(TRUTH, np.eye(4), IntensityUnit.HU)
    (case,) = noisy_cases("a", volume, parse_levels("ct25w,mr7"))
    assert float((case.noisy.array - case.truth).std()) == pytest.approx(25.0, rel=0.03)


def test_peers_are_chosen_by_name() -> None:
    assert list(choose_peers("gaussian")) == ["gaussian"]
    with pytest.raises(EngineInputError, match="unknown peer"):
        choose_peers("magic")


def test_the_bootstrap_interval_holds_the_mean() -> None:
    low, high = bootstrap_interval([1.0, 2.0, 3.0, 4.0])
    assert low < 2.5 < high
