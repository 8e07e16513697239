"""Refuses an enhanced volume that must not reach a reader, whatever enhancer made it.

The guards trust nothing the enhancer says: they measure the noise of the scan themselves. In this order:

``shape``                same grid of voxels
``geometry``             same affine, unit and padding mask
``finite``               no NaN, no infinity
``padding``              padding voxels bit-identical
``range``                no intensity outside what was measured
``bias``                 mean change over all measured voxels (CT 1 HU, MR 0.5 % of the 99.5th percentile)
``tissue_bias``          the same over tissue alone
``low_frequency_bias``   largest smooth change, beyond what the noise itself would show at that scale
``residual_bound``       no voxel changed by more than three local standard deviations of the noise
``residual_structure``   what was removed does not follow the edges of what remains

The magnitude of an MR image lifts weak signal by a known amount (Rician). The three bias guards let an
enhancer take away up to that amount, and never let it add anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engine.blocks import block_coefficients, whole_blocks
from engine.enhancer import EnhancementResult
from engine.errors import UnsafeOutputError
from engine.noise import NoiseEstimate, estimate_noise, find_tissue
from engine.safety import RESIDUAL_LIMIT, magnitude_bias, tolerance
from engine.volume import IntensityUnit, Volume

Array = NDArray[np.float32]

LARGEST_EDGE_CORRELATION = 0.2
"""A Gaussian blur of 0.6 to 1 voxel gives 0.25 to 0.6 on real scans, the classical enhancer at most 0."""


@dataclass(frozen=True)
class GuardCheck:
    """One guard: it passes while `value` does not exceed `bound`."""

    name: str
    value: float
    bound: float

    @property
    def passed(self) -> bool:
        """Whether the guard lets the volume through; a value that is not a number never does."""
        return bool(self.value <= self.bound)


@dataclass(frozen=True)
class GuardReport:
    """What every guard found, in the order they ran.

    noise_sigma       noise of the scan as the guards measured it, in its unit
    share_above_two   share of measured voxels changed by more than two local standard deviations
    """

    checks: tuple[GuardCheck, ...]
    noise_sigma: float
    share_above_two: float

    def as_json(self) -> Mapping[str, object]:
        """Return plain values, ready for `json.dumps`."""
        return {
            "checks": [asdict(check) | {"passed": check.passed} for check in self.checks],
            "noise_sigma": self.noise_sigma,
            "share_above_two": self.share_above_two,
        }


def guard(before: Volume, result: EnhancementResult, *, noise: NoiseEstimate | None = None) -> GuardReport:
    """Return what the guards found when all of them pass.

    `noise` saves measuring it again; it must be the estimate of `before`.
    Raises `UnsafeOutputError` naming the first guard that refused.
    """
    after = result.volume
    checks = [_enforced(check) for check in _identity_checks(before, after)]
    if noise is None:
        noise = estimate_noise(before)
    comparison = _Comparison.of(before, after, noise)
    checks += [_enforced(check) for check in _intensity_checks(comparison)]
    return GuardReport(tuple(checks), noise.sigma, comparison.share_above(2.0))


def _enforced(check: GuardCheck) -> GuardCheck:
    """Return the check, or raise when it did not pass."""
    if not check.passed:
        raise UnsafeOutputError(check.name, value=check.value, bound=check.bound)
    return check


def _identity_checks(before: Volume, after: Volume) -> Iterator[GuardCheck]:
    """What must be the same to the bit. Lazy: a check may rely on those before it."""
    yield GuardCheck("shape", float(before.array.shape != after.array.shape), 0.0)
    yield GuardCheck("geometry", float(_differs_in_place(before, after)), 0.0)
    yield GuardCheck("finite", float(np.count_nonzero(~np.isfinite(after.array))), 0.0)
    yield GuardCheck("padding", float(_changed_padding(before, after)), 0.0)
    yield GuardCheck("range", _overshoot(before, after), 0.0)


def _differs_in_place(before: Volume, after: Volume) -> bool:
    """Whether affine, unit or padding mask are not the same."""
    if before.unit is not after.unit or not np.array_equal(before.affine, after.affine):
        return True
    if before.valid is None or after.valid is None:
        return before.valid is not after.valid
    return not np.array_equal(before.valid, after.valid)


def _changed_padding(before: Volume, after: Volume) -> int:
    """Count padding voxels whose bits changed."""
    if before.valid is None:
        return 0
    changed = before.array.view(np.uint32) != after.array.view(np.uint32)
    return int(np.count_nonzero(changed & ~before.valid))


def _overshoot(before: Volume, after: Volume) -> float:
    """How far the enhanced intensities leave the range of the measured ones."""
    old, new = _measured(before, before.array), _measured(before, after.array)
    if old.size == 0:
        return 0.0
    return float(max(old.min() - new.min(), new.max() - old.max(), 0.0))


def _measured(volume: Volume, array: Array) -> Array:
    """Values of `array` at the measured voxels of `volume`."""
    return array if volume.valid is None else array[volume.valid]


@dataclass(frozen=True, eq=False)
class _Comparison:
    """Scan, enhanced volume, and the change between them in units of the local noise."""

    before: Volume
    after: Volume
    noise: NoiseEstimate
    change: Array
    relative: Array  # |change| over the local standard deviation
    lifted: Array | None  # what the magnitude of MR adds to the enhanced signal; None for CT
    tolerance: float

    @classmethod
    def of(cls, before: Volume, after: Volume, noise: NoiseEstimate) -> _Comparison:
        change = after.array - before.array
        if before.valid is not None:
            change[~before.valid] = 0
        # Rounding of float32: two units in the last place of the largest intensity.
        rounding = np.float32(2.4e-7) * max(float(np.abs(before.array).max()), 1e-6)
        relative = np.empty_like(change)
        for index, here in enumerate(change):
            sigma = noise.local_sigma(change.shape, index, index + 1)[0]
            relative[index] = np.maximum(np.abs(here) - rounding, 0) / (sigma + rounding)
        lifted = None
        if before.unit is not IntensityUnit.HU:
            lifted = magnitude_bias(after.array, noise.sigma)
        return cls(before, after, noise, change, relative, lifted, tolerance(before))

    def share_above(self, limit: float) -> float:
        """Share of the measured voxels changed by more than `limit` standard deviations."""
        count = self.relative.size if self.before.valid is None else np.count_nonzero(self.before.valid)
        return float(np.count_nonzero(self.relative > limit) / max(count, 1))


def _intensity_checks(found: _Comparison) -> Iterator[GuardCheck]:
    """What may differ, within limits."""
    everywhere = (
        np.ones_like(found.change, dtype=np.bool_) if found.before.valid is None else found.before.valid
    )
    yield GuardCheck("bias", _mean_size(found, everywhere), found.tolerance)
    yield GuardCheck("tissue_bias", _mean_size(found, find_tissue(found.before)), found.tolerance)
    smooth_noise = 1.5 * 4.0 * found.noise.low_pass_sd(_SMOOTH_WIDTH)
    yield GuardCheck("low_frequency_bias", _smooth_change(found), found.tolerance + smooth_noise)
    yield GuardCheck("residual_bound", float(found.relative.max()), RESIDUAL_LIMIT * 1.001)
    yield GuardCheck("residual_structure", _edge_correlation(found), LARGEST_EDGE_CORRELATION)


def _mean_size(found: _Comparison, where: NDArray[np.bool_]) -> float:
    """Size of the mean change in a region, less what the magnitude had added there."""
    if not where.any():
        return 0.0
    change = float(found.change[where].mean(dtype=np.float64))
    lifted = 0.0 if found.lifted is None else float(found.lifted[where].mean(dtype=np.float64))
    return max(change, -change - lifted, 0.0)


_SMOOTH_WIDTH = 6.0
"""Width in voxels of the low-pass that follows from block means and a Gaussian of one block."""


def _smooth_change(found: _Comparison) -> float:
    """Largest mean change over a neighbourhood of blocks that hold no padding."""
    change = _smooth_means(found.change, found.before.valid)
    lifted = 0.0 if found.lifted is None else _smooth_means(found.lifted, found.before.valid)
    return float(np.max(np.maximum(change, -change - lifted), initial=0.0))


def _smooth_means(array: Array, valid: NDArray[np.bool_] | None) -> Array:
    """Means of blocks without padding, smoothed over their neighbours: (places,)."""
    means = block_coefficients(array)[..., 0] / 16  # the first band of 256 is 16 times the mean
    whole = np.ones(means.shape, np.float32) if valid is None else whole_blocks(valid).astype(np.float32)
    weight = ndimage.gaussian_filter(whole, 1.0, mode="constant", truncate=2.0)
    smooth = ndimage.gaussian_filter(means * whole, 1.0, mode="constant", truncate=2.0)
    return np.asarray(smooth[weight > 0.2] / weight[weight > 0.2], np.float32)


def _edge_correlation(found: _Comparison) -> float:
    """Correlation of the size of the change with the slope of the enhanced volume, inside the body.

    Zero when the change is too small to matter, since then it says nothing.
    """
    body = _body(found.before)
    inside = body[::2]
    change = found.relative[::2][inside]
    if change.size < 1000 or _root_mean_square(found.change[body]) < 0.5 * found.tolerance:
        return 0.0
    enhanced = found.after.array[::2]
    rows, columns = np.gradient(enhanced, axis=(1, 2))
    slope = np.hypot(rows, columns)[inside]
    slope = np.minimum(slope, np.percentile(slope, 98))
    if slope.std() == 0 or change.std() == 0:
        return 0.0
    return float(np.corrcoef(change, slope)[0, 1])


def _body(volume: Volume) -> NDArray[np.bool_]:
    """Voxels inside the patient, bone and edges included."""
    if volume.unit is not IntensityUnit.HU:
        return find_tissue(volume)
    body = volume.array > -500.0
    return body if volume.valid is None else body & volume.valid


def _root_mean_square(values: Array) -> float:
    return float(np.sqrt(np.mean(np.square(values), dtype=np.float64))) if values.size else 0.0
