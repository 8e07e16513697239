from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from engine.enhancer import EnhancementReport, EnhancementResult
from engine.errors import UnsafeOutputError
from engine.guardrails import GuardCheck, guard
from engine.noise import estimate_noise
from engine.phantom import noisy_mr
from engine.safety import magnitude_bias, settle, tolerance
from engine.volume import IntensityUnit, Volume


def _result(volume: Volume) -> EnhancementResult:
    return EnhancementResult(volume, EnhancementReport(0.0, 0.0, {}, 0.0))


def _refused(before: Volume, after: Volume) -> str:
    with pytest.raises(UnsafeOutputError) as refusal:
        guard(before, _result(after))
    assert not refusal.value.value <= refusal.value.bound
    return refusal.value.guard


@pytest.fixture(scope="module")
def padded(noisy_head: Volume) -> Volume:
    valid = np.ones(noisy_head.array.shape, bool)
    valid[:, :20] = False
    return replace(noisy_head, array=np.where(valid, noisy_head.array, np.float32(-2000)), valid=valid)


def test_unchanged_scan_passes_every_guard(noisy_head: Volume, padded: Volume, clean_mr: Volume) -> None:
    for volume in (noisy_head, padded, noisy_mr(clean_mr, 20.0, seed=1)):
        report = guard(volume, _result(volume))

        assert [check.name for check in report.checks] == [
            "shape",
            "geometry",
            "finite",
            "padding",
            "range",
            "bias",
            "tissue_bias",
            "low_frequency_bias",
            "residual_bound",
            "residual_structure",
        ]
        assert report.share_above_two == 0.0


def test_report_is_json(noisy_head: Volume, enhanced_head: EnhancementResult) -> None:
    told = json.loads(json.dumps(guard(noisy_head, enhanced_head).as_json()))

    assert all(check["passed"] for check in told["checks"])
    assert 18 < told["noise_sigma"] < 25
    assert 0 < told["share_above_two"] < 0.05


def test_noise_that_was_measured_already_is_not_measured_again(
    noisy_head: Volume, enhanced_head: EnhancementResult
) -> None:
    noise = replace(estimate_noise(noisy_head), sigma=1e6)

    assert guard(noisy_head, enhanced_head, noise=noise).noise_sigma == 1e6


def test_other_shape_is_refused(noisy_head: Volume) -> None:
    assert _refused(noisy_head, replace(noisy_head, array=noisy_head.array[1:])) == "shape"


def test_other_affine_unit_or_mask_is_refused(noisy_head: Volume, padded: Volume) -> None:
    shifted = noisy_head.affine.copy()
    shifted[0, 3] += 1e-9
    mask = padded.valid.copy()
    mask[0, -1, -1] = False

    assert _refused(noisy_head, replace(noisy_head, affine=shifted)) == "geometry"
    assert _refused(noisy_head, replace(noisy_head, unit=IntensityUnit.ARBITRARY)) == "geometry"
    assert _refused(padded, replace(padded, valid=mask)) == "geometry"
    assert _refused(padded, replace(padded, valid=None)) == "geometry"
    assert (
        _refused(noisy_head, replace(noisy_head, valid=np.ones(noisy_head.array.shape, bool))) == "geometry"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_intensity_that_is_not_finite_is_refused(noisy_head: Volume, value: float) -> None:
    after = noisy_head.with_array(noisy_head.array.copy())
    after.array[3, 4, 5] = value

    assert _refused(noisy_head, after) == "finite"


def test_padding_voxel_that_changed_in_one_bit_is_refused(padded: Volume) -> None:
    after = padded.with_array(padded.array.copy())
    after.array[0, 0, 0] = np.nextafter(np.float32(-2000), np.float32(0))

    assert _refused(padded, after) == "padding"


def test_intensity_outside_the_measured_range_is_refused(noisy_head: Volume, padded: Volume) -> None:
    for before in (noisy_head, padded):
        measured = before.array if before.valid is None else before.array[before.valid]
        above, below = (before.with_array(before.array.copy()) for _ in range(2))
        above.array[5, 60, 60] = measured.max() + 1
        below.array[5, 60, 60] = measured.min() - 1

        assert _refused(before, above) == "range"
        assert _refused(before, below) == "range"


def test_drift_of_the_whole_scan_is_refused(noisy_head: Volume) -> None:
    shifted = np.clip(noisy_head.array + 2, noisy_head.array.min(), noisy_head.array.max())

    assert _refused(noisy_head, noisy_head.with_array(shifted)) == "bias"


def test_drift_of_tissue_against_air_is_refused(noisy_head: Volume) -> None:
    brain = (noisy_head.array > -200) & (noisy_head.array < 300)
    shift = np.where(brain, 1.6, -1.6 * brain.mean() / (1 - brain.mean())).astype(np.float32)
    shifted = np.clip(noisy_head.array + shift, noisy_head.array.min(), noisy_head.array.max())

    assert _refused(noisy_head, noisy_head.with_array(shifted)) == "tissue_bias"


def test_smooth_blob_is_refused_though_every_voxel_of_it_is_within_the_noise(noisy_head: Volume) -> None:
    z, y, x = np.indices(noisy_head.array.shape)
    blob = np.exp(-((z - 10) ** 2 / 18 + (y - 64) ** 2 / 100 + (x - 64) ** 2 / 100))

    after = noisy_head.with_array((noisy_head.array + 12 * blob).astype(np.float32))

    assert _refused(noisy_head, after) == "low_frequency_bias"


def test_smooth_change_beside_padding_is_measured_without_the_padding(padded: Volume) -> None:
    z, y, x = np.indices(padded.array.shape)
    blob = np.exp(-((z - 10) ** 2 / 18 + (y - 40) ** 2 / 100 + (x - 64) ** 2 / 100)) * padded.valid

    after = padded.with_array((padded.array + 14 * blob).astype(np.float32))

    assert _refused(padded, after) == "low_frequency_bias"


def test_one_voxel_changed_by_more_than_three_sigma_is_refused(noisy_head: Volume) -> None:
    after = noisy_head.with_array(noisy_head.array.copy())
    after.array[10, 64, 64] += 120

    assert _refused(noisy_head, after) == "residual_bound"


def test_change_that_follows_the_edges_is_refused(
    noisy_head: Volume, enhanced_head: EnhancementResult
) -> None:
    rows, columns = np.gradient(enhanced_head.volume.array, axis=(1, 2))
    slope = np.minimum(np.hypot(rows, columns) / 100, 1)
    sign = np.where(np.indices(slope.shape).sum(axis=0) % 2, 1, -1)
    limit = 2.5 * estimate_noise(noisy_head).local_sigma(slope.shape, 0, slope.shape[0])
    after = np.clip(noisy_head.array + sign * slope * limit, noisy_head.array.min(), noisy_head.array.max())

    assert _refused(noisy_head, noisy_head.with_array(after.astype(np.float32))) == "residual_structure"


def test_blurred_scan_is_refused(noisy_head: Volume, clean_mr: Volume) -> None:
    for volume in (noisy_head, noisy_mr(clean_mr, 20.0, seed=1)):
        blurred = ndimage.gaussian_filter(volume.array, (0, 1, 1))

        assert _refused(volume, volume.with_array(blurred)) in {
            "tissue_bias",
            "low_frequency_bias",
            "residual_bound",
        }


def test_scan_of_nothing_passes_unchanged(make_volume) -> None:
    air = make_volume(np.full((8, 40, 40), -1000.0))
    padding = make_volume(np.full((8, 40, 40), -2000.0), valid=np.zeros((8, 40, 40), bool))
    dark = make_volume(np.zeros((8, 40, 40)), IntensityUnit.ARBITRARY, np.zeros((8, 40, 40), bool))

    for volume in (air, padding, dark):
        assert all(check.passed for check in guard(volume, _result(volume)).checks)


def test_uniform_object_made_flat_has_no_edges_to_follow(make_volume) -> None:
    rng = np.random.default_rng(0)
    noisy = make_volume(40 + 5 * np.clip(rng.standard_normal((8, 64, 64)), -2.5, 2.5))

    report = guard(noisy, _result(noisy.with_array(np.full_like(noisy.array, noisy.array.mean()))))

    assert report.checks[-1] == GuardCheck("residual_structure", 0.0, 0.2)


def test_value_that_is_not_a_number_never_passes() -> None:
    assert not GuardCheck("bias", float("nan"), 1.0).passed


def test_magnitude_bias_may_be_taken_away_but_no_more(make_volume) -> None:
    rng = np.random.default_rng(5)
    truth = np.full((16, 64, 64), 20.0, np.float32)
    truth[:, 12:52, 12:52] = 400.0
    lifted = np.hypot(truth + rng.normal(0, 20, truth.shape), rng.normal(0, 20, truth.shape))
    noisy = make_volume(lifted, IntensityUnit.ARBITRARY)
    noise = estimate_noise(noisy)
    assert float((truth - noisy.array).mean()) < -2 * tolerance(noisy)
    guard(noisy, _result(noisy.with_array(settle(noisy, truth, noise))))
    darker = settle(noisy, np.where(truth > 100, truth - 10, truth), noise)
    assert _refused(noisy, noisy.with_array(darker)) in ("bias", "tissue_bias")
    brighter = settle(noisy, np.where(truth > 100, truth, truth + 30), noise)
    assert _refused(noisy, noisy.with_array(brighter)) in ("bias", "low_frequency_bias")


def test_magnitude_bias_follows_the_rayleigh_and_the_gaussian_limit() -> None:
    lifted = magnitude_bias(np.array([0.0, 200.0, -3.0, 1e6], np.float32), 10.0)
    assert lifted[0] == pytest.approx(10.0 * np.sqrt(np.pi / 2), rel=1e-4)
    assert lifted[1] == pytest.approx(10.0**2 / (2 * 200.0), rel=1e-2)
    assert lifted[2] == lifted[0]
    assert lifted[3] == 0.0
