"""The enhancer keeps the seam's promises, whatever its weights say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from engine.bundle import ModelBundle
from engine.device import ComputeDevice
from engine.diffusion.diffusion_enhancer import DiffusionEnhancer
from engine.enhancer import CancelToken, EnhanceOptions
from engine.errors import EngineInputError, EnhancementCancelledError
from engine.noise import estimate_noise
from engine.volume import IntensityUnit, Volume

CPU = ComputeDevice(torch.device("cpu"), torch.float32, 2**31)


@pytest.fixture
def enhancer(bundle: ModelBundle) -> DiffusionEnhancer:
    return DiffusionEnhancer(bundle, CPU)


def test_grid_unit_and_padding_survive(enhancer: DiffusionEnhancer, ct_volume: Volume) -> None:
    valid = np.ones(ct_volume.array.shape, dtype=bool)
    valid[:, :5] = False
    array = np.where(valid, ct_volume.array, np.float32(-3024.0))
    volume = dataclasses.replace(ct_volume, array=array, valid=valid)
    result = enhancer.enhance(volume, options=EnhanceOptions()).volume
    assert result.array.shape == volume.array.shape
    assert result.array.dtype == np.float32
    assert result.unit is IntensityUnit.HU
    assert np.array_equal(result.array[~valid], volume.array[~valid])
    assert np.isfinite(result.array).all()


@pytest.mark.parametrize(
    "extra", [{}, {"mode": "refine", "steps": 2}, {"mode": "sample", "steps": 2, "repeats": 2}]
)
def test_every_mode_gives_the_same_bits_twice(
    enhancer: DiffusionEnhancer, ct_volume: Volume, extra: dict[str, str | int]
) -> None:
    options = EnhanceOptions(seed=4, extra=extra)
    first, second = (enhancer.enhance(ct_volume, options=options).volume.array for _ in range(2))
    assert np.array_equal(first, second)


def test_another_seed_gives_another_sample(enhancer: DiffusionEnhancer, ct_volume: Volume) -> None:
    extra = {"mode": "sample", "steps": 3}
    first, second = (
        enhancer.enhance(ct_volume, options=EnhanceOptions(seed=s, extra=extra)).volume.array for s in (1, 2)
    )
    assert not np.array_equal(first, second)


def test_strength_zero_returns_the_scan(enhancer: DiffusionEnhancer, ct_volume: Volume) -> None:
    result = enhancer.enhance(ct_volume, options=EnhanceOptions(strength=0.0))
    assert np.allclose(result.volume.array, ct_volume.array, atol=1e-4)
    assert result.report.parameters["untouched"] is True


def test_no_voxel_moves_beyond_the_residual_bound(enhancer: DiffusionEnhancer, ct_volume: Volume) -> None:
    result = enhancer.enhance(ct_volume, options=EnhanceOptions(strength=1.0))
    change = np.abs(result.volume.array - ct_volume.array)
    assert change.max() <= 3 * 4 * result.report.noise_before


def test_a_cancelled_run_stops(enhancer: DiffusionEnhancer, ct_volume: Volume) -> None:
    token = CancelToken()
    token.cancel()
    with pytest.raises(EnhancementCancelledError):
        enhancer.enhance(ct_volume, options=EnhanceOptions(), cancel=token)


def test_progress_rises_to_one(enhancer: DiffusionEnhancer, ct_volume: Volume) -> None:
    seen: list[float] = []
    enhancer.enhance(ct_volume, options=EnhanceOptions(), progress=lambda f, _step: seen.append(f))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


@pytest.mark.parametrize(
    "extra",
    [
        {"mode": "dream"},
        {"mode": "refine", "steps": 11},
        {"mode": "mean", "steps": 2},
        {"steps_": 3},
        {"repeats": 2},
    ],
)
def test_unknown_options_are_refused(
    enhancer: DiffusionEnhancer, ct_volume: Volume, extra: dict[str, str | int]
) -> None:
    with pytest.raises(EngineInputError):
        enhancer.enhance(ct_volume, options=EnhanceOptions(extra=extra))


def test_mr_stays_non_negative(enhancer: DiffusionEnhancer, ct_volume: Volume) -> None:
    array = np.maximum(ct_volume.array + 1000.0, 0.0).astype(np.float32)
    volume = Volume(array, ct_volume.affine, IntensityUnit.ARBITRARY)
    assert enhancer.enhance(volume, options=EnhanceOptions()).volume.array.min() >= 0.0


def test_the_identity_names_the_weights(enhancer: DiffusionEnhancer, bundle: ModelBundle) -> None:
    assert enhancer.identity.name == "small-test"
    assert enhancer.identity.digest == bundle.digest
    assert len(bundle.digest) == 64


def test_uncertainty_is_positive_where_measured(enhancer: DiffusionEnhancer, ct_volume: Volume) -> None:
    deviation = enhancer.enhance(ct_volume, options=EnhanceOptions()).uncertainty
    assert deviation is not None
    assert deviation.shape == ct_volume.array.shape
    assert (deviation > 0).all()


def test_a_bf16_that_computes_wrongly_is_not_used() -> None:
    from engine.device import trusted_precision

    def broken(dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(8) if dtype is torch.float32 else torch.ones(8)

    fast = ComputeDevice(torch.device("cpu"), torch.bfloat16, 1)
    chosen, difference = trusted_precision(fast, broken)
    assert chosen.precision is torch.float32
    assert difference == 1.0


def test_a_reading_above_the_measurement_does_not_widen_the_limits(
    bundle: ModelBundle, ct_volume: Volume
) -> None:
    with torch.no_grad():
        for member in bundle.reader.members:
            member[-1].bias[0] = 1.0  # type: ignore[index, union-attr]
        bundle.network.head.bias[:] = 5.0
    measured = estimate_noise(ct_volume)

    out = DiffusionEnhancer(bundle).enhance(ct_volume, options=EnhanceOptions(strength=1.0))

    change = np.abs(out.volume.array - ct_volume.array)
    assert out.report.noise_before > 1.05 * measured.sigma
    limit = 3.0 * measured.local_sigma(change.shape, 0, change.shape[0])
    assert np.all(change <= limit * 1.0001)
    assert float((change / limit).max()) > 0.8


def test_what_is_left_is_told_as_a_share_of_what_was_read(bundle: ModelBundle, ct_volume: Volume) -> None:
    with torch.no_grad():
        for member in bundle.reader.members:
            member[-1].bias[0] = -0.5  # type: ignore[index, union-attr]

    out = DiffusionEnhancer(bundle).enhance(ct_volume, options=EnhanceOptions(strength=1.0))

    before, after = estimate_noise(ct_volume).sigma, estimate_noise(out.volume).sigma
    assert out.report.noise_before < 0.8 * before
    assert out.report.noise_after / out.report.noise_before == pytest.approx(
        min(after / before, 1.0), rel=1e-3
    )
