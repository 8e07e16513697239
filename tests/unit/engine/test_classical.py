from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from engine.classical import ClassicalEnhancer
from engine.enhancer import CancelToken, EnhancementResult, EnhanceOptions
from engine.errors import EngineInputError, EnhancementCancelledError, OutOfRangeError
from engine.guardrails import guard
from engine.metrics import bias, psnr
from engine.noise import estimate_noise, find_tissue
from engine.phantom import noisy_ct, noisy_mr
from engine.volume import IntensityUnit, Volume

FULL = EnhanceOptions(strength=1.0)


def _enhance(volume: Volume, options: EnhanceOptions = FULL) -> EnhancementResult:
    return ClassicalEnhancer().enhance(volume, options=options)


@pytest.mark.parametrize(("sigma", "least_gain"), [(10.0, 3.0), (20.0, 4.5), (40.0, 4.8)])
def test_psnr_over_the_body_rises_on_a_head_with_coloured_noise(
    clean_head: Volume, sigma: float, least_gain: float
) -> None:
    noisy = noisy_ct(clean_head, sigma, seed=5)
    body = clean_head.array > -500

    enhanced = _enhance(noisy)

    before = psnr(noisy.array, clean_head.array, value_range=2000, mask=body)
    after = psnr(enhanced.volume.array, clean_head.array, value_range=2000, mask=body)
    assert after - before >= least_gain


def test_it_beats_every_gaussian_blur(
    clean_head: Volume, noisy_head: Volume, enhanced_head: EnhancementResult
) -> None:
    body = clean_head.array > -500

    def score(array: np.ndarray) -> float:
        return psnr(array, clean_head.array, value_range=2000, mask=body)

    blurred = max(
        score(ndimage.gaussian_filter(noisy_head.array, (0.4 * width, width, width)))
        for width in (0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
    )

    assert score(enhanced_head.volume.array) > blurred + 2.0


@pytest.mark.parametrize("share", [0.03, 0.12])
def test_psnr_rises_on_rician_noise(clean_mr: Volume, share: float) -> None:
    noisy = noisy_mr(clean_mr, share * 500, seed=2)
    signal = clean_mr.array > 50

    enhanced = _enhance(noisy)

    before = psnr(noisy.array, clean_mr.array, value_range=500, mask=signal)
    assert psnr(enhanced.volume.array, clean_mr.array, value_range=500, mask=signal) > before + 3.0


def test_tissue_keeps_its_mean_within_three_tenths_of_a_hounsfield_unit(
    clean_head: Volume, noisy_head: Volume, enhanced_head: EnhancementResult
) -> None:
    inside = ndimage.binary_erosion(find_tissue(clean_head), iterations=2)

    assert abs(bias(enhanced_head.volume.array, noisy_head.array, inside)) < 0.3
    assert abs(bias(enhanced_head.volume.array, noisy_head.array)) < 0.3


def test_report_tells_less_noise_after_than_before(enhanced_head: EnhancementResult) -> None:
    report = enhanced_head.report

    assert 18 < report.noise_before < 25
    assert report.noise_after < 0.3 * report.noise_before
    assert report.parameters["strength"] == 1.0
    assert report.seconds > 0


def test_no_voxel_moves_by_more_than_three_local_standard_deviations(
    noisy_head: Volume, enhanced_head: EnhancementResult
) -> None:
    noise = estimate_noise(noisy_head)
    change = np.abs(enhanced_head.volume.array - noisy_head.array)

    local = noise.local_sigma(change.shape, 0, change.shape[0])

    assert np.all(change <= 3.001 * local + 1e-3)


def test_two_runs_give_the_same_bits(noisy_head: Volume, enhanced_head: EnhancementResult) -> None:
    assert _enhance(noisy_head).volume.array.tobytes() == enhanced_head.volume.array.tobytes()


def test_strength_zero_returns_the_scan_and_half_goes_half_the_way(
    noisy_head: Volume, enhanced_head: EnhancementResult
) -> None:
    none = _enhance(noisy_head, EnhanceOptions(strength=0.0)).volume.array
    half = _enhance(noisy_head, EnhanceOptions(strength=0.5)).volume.array

    assert none.tobytes() == noisy_head.array.tobytes()
    middle = (noisy_head.array + enhanced_head.volume.array) / 2
    inside = (
        np.abs(enhanced_head.volume.array - np.clip(middle, -900, 1100)) < 100
    )  # away from the range's ends
    assert np.allclose(half[inside], middle[inside], atol=0.01)


def test_same_grid_comes_back(noisy_head: Volume, enhanced_head: EnhancementResult) -> None:
    assert np.array_equal(enhanced_head.volume.affine, noisy_head.affine)
    assert enhanced_head.volume.unit is noisy_head.unit
    assert enhanced_head.volume.valid is None


def test_padding_comes_back_bit_by_bit_and_its_value_does_not_leak(noisy_head: Volume) -> None:
    valid = np.ones(noisy_head.array.shape, bool)
    valid[:, :40] = False
    valid[:2] = False
    low, high = (
        Volume(
            np.where(valid, noisy_head.array, np.float32(value)), noisy_head.affine, noisy_head.unit, valid
        )
        for value in (-3024.0, 900.0)
    )

    first, second = _enhance(low).volume.array, _enhance(high).volume.array

    assert np.all(first[~valid] == -3024.0)
    assert first[valid].tobytes() == second[valid].tobytes()
    assert not np.array_equal(first[valid], low.array[valid])


@pytest.mark.parametrize("unit", list(IntensityUnit))
@pytest.mark.parametrize("value", [-1000.0, 0.0, 40.0])
def test_constant_in_gives_constant_out(make_volume, unit: IntensityUnit, value: float) -> None:
    volume = make_volume(np.full((8, 40, 40), value), unit)

    assert _enhance(volume).volume.array.tobytes() == volume.array.tobytes()


def test_clean_scan_passes_nearly_untouched(clean_head: Volume) -> None:
    change = _enhance(clean_head).volume.array - clean_head.array

    assert np.sqrt(np.mean(np.square(change))) < 0.3


def test_a_second_pass_changes_little(enhanced_head: EnhancementResult, noisy_head: Volume) -> None:
    first = enhanced_head.volume.array - noisy_head.array

    second = _enhance(enhanced_head.volume).volume.array - enhanced_head.volume.array

    assert second.std() < 0.25 * first.std()


def test_flipped_scan_gives_the_flipped_result(noisy_head: Volume, enhanced_head: EnhancementResult) -> None:
    flipped = noisy_head.with_array(np.ascontiguousarray(noisy_head.array[:, ::-1, ::-1]))

    back = _enhance(flipped).volume.array[:, ::-1, ::-1]

    both = np.stack([back, enhanced_head.volume.array])
    assert np.sqrt(both.var(axis=0).mean()) < 0.1 * enhanced_head.report.noise_before


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 50, 61), (9, 33, 130)])
def test_any_shape_is_enhanced_to_its_borders(make_volume, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    volume = make_volume(40 + 10 * rng.standard_normal(shape, np.float32))

    enhanced = _enhance(volume).volume.array

    assert enhanced.shape == shape
    border = np.concatenate([enhanced[:, :2].ravel(), enhanced[:, -2:].ravel(), enhanced[:, :, -2:].ravel()])
    assert border.std() < 6


def test_intensities_stay_in_the_measured_range(noisy_head: Volume, enhanced_head: EnhancementResult) -> None:
    assert enhanced_head.volume.array.min() >= noisy_head.array.min()
    assert enhanced_head.volume.array.max() <= noisy_head.array.max()


def test_lesion_of_sufficient_contrast_keeps_it(clean_head: Volume) -> None:
    grid = np.indices(clean_head.array.shape) * np.array(clean_head.spacing_mm)[:, None, None, None]
    centre = np.array([40.0, 64 * 1.7, 64 * 1.7])[:, None, None, None]
    lesion = np.sum((grid - centre) ** 2, axis=0) < 12.0**2
    noise = noisy_ct(clean_head, 8.0, seed=9).array - clean_head.array
    without = clean_head.with_array(clean_head.array + noise)
    inserted = clean_head.with_array(
        clean_head.array + noise + np.where(lesion, np.float32(40), np.float32(0))
    )

    contrast = (_enhance(inserted).volume.array - _enhance(without).volume.array)[lesion].mean()

    assert 0.9 * 40 < contrast < 1.1 * 40


def test_progress_rises_from_zero_to_one_with_named_steps(noisy_head: Volume) -> None:
    told: list[tuple[float, str]] = []

    ClassicalEnhancer().enhance(
        noisy_head, options=FULL, progress=lambda share, step: told.append((share, step))
    )

    shares = [share for share, _ in told]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (0.0, 1.0)
    assert list(dict.fromkeys(step for _, step in told)) == [
        "measure noise",
        "separate bands",
        "weigh bands",
        "done",
    ]


def test_cancel_during_the_run_stops_it(noisy_head: Volume) -> None:
    token = CancelToken()
    told: list[float] = []

    def cancel_half_way(share: float, _step: str) -> None:
        told.append(share)
        if share > 0.3:
            token.cancel()

    with pytest.raises(EnhancementCancelledError):
        ClassicalEnhancer().enhance(noisy_head, options=FULL, progress=cancel_half_way, cancel=token)
    assert max(told) < 0.5


def test_scan_whose_noise_cannot_be_measured_is_refused(make_volume) -> None:
    array = np.full((8, 40, 40), -1000.0)
    array[:, 18:25, 18:25] = np.random.default_rng(0).normal(40, 30, (8, 7, 7))

    with pytest.raises(OutOfRangeError) as refusal:
        _enhance(make_volume(array))
    assert refusal.value.reason == "NOISE_UNCERTAIN"


@pytest.mark.parametrize(
    "options",
    [EnhanceOptions(strength=1.1), EnhanceOptions(strength=-0.1), EnhanceOptions(extra={"blok": 8})],
)
def test_options_outside_the_contract_are_refused(noisy_head: Volume, options: EnhanceOptions) -> None:
    with pytest.raises(EngineInputError):
        _enhance(noisy_head, options)


def test_identity_names_the_algorithm_in_ascii_with_a_digest() -> None:
    identity = ClassicalEnhancer().identity

    assert identity.name == "classical-dct-wiener"
    assert len(identity.digest) == 64
    assert identity.title.isascii()
    assert identity == ClassicalEnhancer().identity


def test_result_passes_every_guard(noisy_head: Volume, enhanced_head: EnhancementResult) -> None:
    report = guard(noisy_head, enhanced_head)

    assert all(check.passed for check in report.checks)
    assert report.share_above_two < 0.05
