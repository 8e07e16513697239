from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from engine.noise import estimate_noise, find_tissue
from engine.phantom import head_phantom, noisy_ct, noisy_mr
from engine.volume import IntensityUnit, Volume


def _relative_error(noisy: Volume, clean: Volume) -> float:
    tissue = find_tissue(clean)
    truth = float((noisy.array - clean.array)[tissue].std())
    return estimate_noise(noisy).sigma / truth - 1


def _blurred_noise(shape: tuple[int, ...], width: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal(shape, np.float32)
    noise = ndimage.gaussian_filter(noise, (0, width, width)) if width else noise
    return noise / noise.std()


def test_median_error_over_levels_colours_and_modalities_is_within_ten_percent(clean_mr: Volume) -> None:
    head = head_phantom((24, 160, 160), (3.0, 1.3, 1.3), seed=1)
    errors = [_relative_error(noisy_ct(head, sigma, seed=2), head) for sigma in (5.0, 15.0, 40.0, 100.0)]
    errors += [
        _relative_error(head.with_array(head.array + 20 * _blurred_noise(head.array.shape, width, 3)), head)
        for width in (0.0, 0.5, 0.8)
    ]
    errors += [
        _relative_error(noisy_mr(clean_mr, share * 400, seed=4), clean_mr) for share in (0.03, 0.07, 0.12)
    ]

    assert np.median(np.abs(errors)) <= 0.10
    assert np.max(np.abs(errors)) <= 0.25


def test_estimate_grows_with_the_noise_that_was_added(clean_head: Volume) -> None:
    sigmas = [estimate_noise(noisy_ct(clean_head, level, seed=1)).sigma for level in (5.0, 10.0, 20.0, 40.0)]

    ratios = np.divide(sigmas[1:], sigmas[:-1])
    assert np.all((ratios > 1.7) & (ratios < 2.2))


def test_estimators_agree_on_simulated_noise_and_are_all_reported(noisy_head: Volume) -> None:
    noise = estimate_noise(noisy_head)

    assert set(noise.per_method) == {"dct_bands", "haar_bands", "local_sd_mode"}
    assert noise.spread < 1.5
    assert min(noise.per_method.values()) <= noise.sigma <= max(noise.per_method.values())


def test_spectrum_has_the_colour_of_the_noise_and_the_power_of_sigma(clean_head: Volume) -> None:
    blurred = clean_head.array + 20 * _blurred_noise(clean_head.array.shape, 0.8, 7)

    noise = estimate_noise(clean_head.with_array(blurred.astype(np.float32)))

    bands = noise.spectrum.reshape(4, 8, 8)
    assert noise.spectrum.mean() == pytest.approx(noise.sigma**2, rel=1e-3)
    assert bands[:, 6:, 6:].mean() < 0.05 * bands[:, 2:4, 2:4].mean()


def test_level_follows_noise_that_differs_from_place_to_place(make_volume) -> None:
    rng = np.random.default_rng(0)
    gain = np.linspace(8, 14, 256, dtype=np.float32)
    volume = make_volume(40 + rng.standard_normal((16, 128, 256), np.float32) * gain)

    local = estimate_noise(volume).local_sigma(volume.array.shape, 0, 16)[8, 64]

    assert local[200] / local[50] == pytest.approx(gain[200] / gain[50], rel=0.08)
    assert local[50] == pytest.approx(gain[50], rel=0.2)


def test_clean_head_has_next_to_no_noise(clean_head: Volume) -> None:
    assert estimate_noise(clean_head).sigma < 1.0


@pytest.mark.parametrize("unit", list(IntensityUnit))
def test_constant_volume_has_no_noise(make_volume, unit: IntensityUnit) -> None:
    assert estimate_noise(make_volume(np.full((8, 32, 32), 40.0), unit)).sigma < 1e-3


@pytest.mark.parametrize("unit", list(IntensityUnit))
def test_volume_without_tissue_counts_as_free_of_noise(make_volume, unit: IntensityUnit) -> None:
    empty = make_volume(np.full((8, 32, 32), -1000.0 if unit is IntensityUnit.HU else 0.0), unit)

    noise = estimate_noise(empty)

    assert (noise.sigma, noise.spread, dict(noise.per_method)) == (0.0, 1.0, {})


def test_volume_that_is_all_padding_counts_as_free_of_noise(make_volume) -> None:
    array = np.random.default_rng(0).normal(40, 10, (8, 32, 32))

    for unit in IntensityUnit:
        assert estimate_noise(make_volume(array, unit, np.zeros(array.shape, bool))).sigma == 0.0


def test_padding_value_has_no_influence_on_the_estimate(noisy_head: Volume) -> None:
    valid = np.ones(noisy_head.array.shape, bool)
    valid[:, :30] = False
    low, high = (
        Volume(
            np.where(valid, noisy_head.array, np.float32(value)), noisy_head.affine, noisy_head.unit, valid
        )
        for value in (-3024.0, 1000.0)
    )

    first, second = estimate_noise(low), estimate_noise(high)

    assert first.sigma == second.sigma
    assert first.spectrum.tobytes() == second.spectrum.tobytes()
    assert first.level.tobytes() == second.level.tobytes()


def test_noisy_background_of_mr_is_not_taken_for_tissue(clean_mr: Volume) -> None:
    tissue = find_tissue(noisy_mr(clean_mr, 48.0, seed=1))

    assert not tissue[:, :8, :8].any()
    assert tissue[12, 48, 48]


def test_tiny_tissue_is_reported_as_uncertain_and_not_as_clean(make_volume) -> None:
    array = np.full((8, 40, 40), -1000.0)
    array[:, 18:25, 18:25] = np.random.default_rng(0).normal(40, 30, (8, 7, 7))

    assert estimate_noise(make_volume(array)).spread > 2


def test_smoothing_leaves_less_noise_than_there_was(noisy_head: Volume) -> None:
    noise = estimate_noise(noisy_head)

    assert 0 < noise.low_pass_sd(4.0) < 0.1 * noise.sigma
