"""How strong the noise of a volume is, how it is coloured and how it varies from place to place.

Nothing is known but the scan itself, so estimators that fail in different ways are asked:

``dct_bands``      sub-band median of a 3D block cosine transform, 4 x 8 x 8 voxels, 255 bands
``haar_bands``     sub-band median of a 2D Haar pyramid, three levels of three orientations
``local_sd_mode``  the most frequent local standard deviation, the global noise index of CT (CT only:
                   the fine anatomy of MR leaves too few flat windows for a mode)

They look at tissue only, where it is flat. Choosing the calmest of noisy values would bias an estimate low,
so flatness is never judged by the values that are then measured: the even bands of a block choose for the odd
ones and the odd for the even. Under stationary noise of any colour the two are exactly uncorrelated, for
the even and odd basis functions of the transform decouple in a symmetric covariance. A single finest-band
estimate is not used, since a soft CT kernel leaves the finest band empty.

What anatomy adds can only raise an estimate, and it adds most at low frequencies. Scanner noise does not
rise there (the reconstruction of CT takes it away, that of MR leaves it white), so the bands below 0.3 of
the highest in-plane frequency are held to the power of those above.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engine.blocks import BLOCK, band_indices, block_coefficients, interpolate_nodes, whole_blocks
from engine.volume import IntensityUnit, Volume

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

_NORMAL_MEDIAN = 0.6745
"""Median of |x| of a standard normal x."""
_FLAT_SHARE = 0.05
"""Share of the tissue blocks, the flattest, that the spectrum is measured on."""
_CALM_SHARE = 0.2
"""The same for the places of the two other estimators."""
_FEWEST_PLACES = 100
_MOST_PLANES = 32
"""The two estimators that work in slices look at no more than these, evenly spread."""
_HIGHEST_TYPICAL = 2.0
"""Tissue counts as at most this much noisier than its flattest places."""
_HIGHEST_LEVEL = 1.5
"""The local level never exceeds this multiple of the global one: texture must not pass for noise."""


@dataclass(frozen=True, eq=False)
class NoiseEstimate:
    """What is known about the noise of one volume, in the volume's unit.

    sigma       standard deviation in tissue
    per_method  what each estimator said
    spread      largest over smallest of `per_method`: 1 is agreement; infinite when only some said zero
    spectrum    variance of each band of the orthonormal 4 x 8 x 8 block cosine transform; its mean is
                `sigma` squared. This is the colour of the noise.
    level       local standard deviation over `sigma`, one node per block, smooth, in [0, 1.5]
    """

    sigma: float
    per_method: Mapping[str, float]
    spread: float
    spectrum: Array  # (256,)
    level: Array  # (slabs, rows, columns) of blocks

    def local_sigma(self, shape: tuple[int, ...], first: int, last: int) -> Array:
        """Return the local standard deviation of slices `first` to `last` (exclusive) of that grid."""
        at = (np.arange(first, last), np.arange(shape[1]), np.arange(shape[2]))
        return np.float32(self.sigma) * interpolate_nodes(self.level, at)

    def low_pass_sd(self, width: float) -> float:
        """Return the sd that noise keeps after a Gaussian low-pass of `width` voxels along each axis.

        From the power of the lowest bands, which exceeds that of white noise when noise is coloured so.
        """
        return float(np.sqrt(max(float(self.spectrum[0]), 0.0) / (2.0 * np.sqrt(np.pi) * width) ** 3))


def estimate_noise(volume: Volume) -> NoiseEstimate:
    """Measure the noise of a volume; deterministic, below two seconds for 64 x 512 x 512 on two cores.

    Padding is never looked at. A volume without tissue counts as free of noise (sigma 0).
    """
    volume = _without_padding(volume)
    tissue = find_tissue(volume)
    spectrum, level = _measure_bands(volume, tissue)
    if not spectrum.any() and not tissue.any():
        return NoiseEstimate(0.0, {}, 1.0, spectrum, level)
    planes = slice(None, None, -(-tissue.shape[0] // _MOST_PLANES))
    array, tissue = volume.array[planes], tissue[planes]
    methods = {"dct_bands": float(np.sqrt(spectrum.mean()))}
    if tissue.any():
        methods["haar_bands"] = _haar_sigma(array, tissue)
        if volume.unit is IntensityUnit.HU:
            methods["local_sd_mode"] = _local_sd_mode(array, tissue)
    return _fuse(methods, spectrum, level)


def _measure_bands(volume: Volume, tissue: Mask) -> tuple[Array, Array]:
    """Return the noise spectrum in tissue, and the local level relative to it."""
    coefficients = block_coefficients(volume.array)  # (slabs, rows, columns, 256)
    places = whole_blocks(tissue)
    if not places.any():
        return np.zeros(coefficients.shape[-1], np.float32), np.zeros(coefficients.shape[:3], np.float32)
    spectrum = _hold_low_bands(_flat_spectrum(coefficients, places), volume.spacing_mm)
    measured = np.ones_like(places) if volume.valid is None else whole_blocks(volume.valid)
    level = _local_level(coefficients, spectrum, measured)
    typical = np.minimum(np.float32(np.median(level[places])), np.float32(_HIGHEST_TYPICAL))
    level = np.minimum(level / max(typical, np.float32(1e-6)), np.float32(_HIGHEST_LEVEL))
    return spectrum * typical**2, level


def find_tissue(volume: Volume) -> Mask:
    """Mark the voxels that noise is measured on: soft tissue in CT, signal in MR, no padding."""
    smooth = ndimage.uniform_filter(_without_padding(volume).array, (1, 5, 5))
    if volume.unit is IntensityUnit.HU:
        tissue = (smooth > -200.0) & (smooth < 300.0)
    else:
        measured = smooth.ravel() if volume.valid is None else smooth[volume.valid]
        tissue = smooth > _signal_threshold(measured[:: max(1, measured.size // 500_000)])
    return tissue if volume.valid is None else tissue & volume.valid


def _without_padding(volume: Volume) -> Volume:
    """Put zero where padding was, so that its value has no influence, not even on the rounding of a sum."""
    if volume.valid is None:
        return volume
    return volume.with_array(np.where(volume.valid, volume.array, np.float32(0)))


def _signal_threshold(intensities: Array) -> float:
    """Split signal from noisy background: a little below Otsu's threshold (1979), never in the dark."""
    if intensities.size == 0:
        return 0.0
    bright = float(np.percentile(intensities, 99))
    counts, edges = np.histogram(np.minimum(intensities, bright), 256)
    centres = (edges[1:] + edges[:-1]) / 2
    below, moment = np.cumsum(counts), np.cumsum(counts * centres)
    separation = (moment[-1] * below / below[-1] - moment) ** 2 / np.maximum(below * (below[-1] - below), 1)
    return max(0.15 * bright, 0.8 * float(centres[np.argmax(separation)]), 1e-6)


def _fuse(methods: dict[str, float], spectrum: Array, level: Array) -> NoiseEstimate:
    """Take the median of the estimators (the lower of two) and scale the spectrum to it."""
    ordered = sorted(methods.values())
    sigma = ordered[(len(ordered) - 1) // 2]
    spread = ordered[-1] / ordered[0] if ordered[0] > 0 else (1.0 if ordered[-1] == 0 else float("inf"))
    power = float(spectrum.mean())
    scaled = spectrum * np.float32(sigma**2 / power) if power > 0 else spectrum
    return NoiseEstimate(float(sigma), methods, float(spread), scaled, level)


def _flat_spectrum(coefficients: Array, tissue: Mask) -> Array:
    """Variance of each band over the flattest tissue blocks; bands of one parity choose for the other."""
    kz, ky, kx = band_indices()
    odd = (kz + ky + kx) % 2 == 1
    anatomy = (kz < 3) & (ky < 4) & (kx < 4)
    anatomy[0] = False
    blocks = coefficients[tissue]
    power = np.zeros(odd.size, np.float32)
    for judged in (odd, ~odd):
        structure = np.square(blocks[:, anatomy & ~judged]).sum(axis=1)
        flat = blocks[_calmest(structure, share=_FLAT_SHARE)][:, judged]
        power[judged] = np.square(np.median(np.abs(flat), axis=0) / np.float32(_NORMAL_MEDIAN))
    power[0] = min(power[1], power[BLOCK[2]])  # the mean of a block says nothing about noise
    return power


def _hold_low_bands(power: Array, spacing_mm: tuple[float, float, float]) -> Array:
    """Hold the bands below 0.3 of the highest in-plane frequency to the upper quartile of those above."""
    cycles = [k / (2 * n * step) for k, n, step in zip(band_indices(), BLOCK, spacing_mm, strict=True)]
    frequency = np.sqrt(sum(np.square(c) for c in cycles)) / (0.5 / max(spacing_mm[1:]))
    ceiling = np.percentile(power[(frequency >= 0.3) & (frequency < 0.6)], 75)
    return np.where(frequency < 0.3, np.minimum(power, ceiling), power).astype(np.float32)


def _calmest(scores: Array, *, share: float) -> Mask:
    """Mark the `share` of places with the lowest score, but not fewer than a minimum."""
    wanted = min(scores.size, max(_FEWEST_PLACES, int(share * scores.size)))
    return np.asarray(scores <= np.partition(scores, wanted - 1)[wanted - 1])


def _local_level(coefficients: Array, spectrum: Array, measured: Mask) -> Array:
    """Local sd relative to the spectrum, from the bands where noise outweighs anatomy."""
    kz, ky, kx = band_indices()
    frequency = np.hypot(np.hypot(kz / BLOCK[0], ky / BLOCK[1]), kx / BLOCK[2])
    loud = spectrum > 0.05 * spectrum[1:].mean()
    if not loud.any():
        return np.zeros(coefficients.shape[:3], np.float32)
    bands = loud & (frequency >= np.median(frequency[loud]))
    relative = np.abs(coefficients[..., bands]) / np.sqrt(spectrum[bands])
    level = np.median(relative, axis=-1) / np.float32(_NORMAL_MEDIAN)
    if not measured.all():
        nearest = ndimage.distance_transform_edt(~measured, return_distances=False, return_indices=True)
        level = level[tuple(nearest)]
    level = ndimage.percentile_filter(level, 15, (3, 5, 5), mode="nearest")
    level = ndimage.gaussian_filter(level, 1.0, mode="nearest")
    # Each block's median of n bands scatters by 1.17 / sqrt(n); its 15th percentile lies 1.04 of that below 1.
    return np.asarray(level / max(0.5, 1 - 1.04 * 1.17 / np.sqrt(bands.sum())), np.float32)


def _calmest_within(places: Mask, score: Array) -> Mask:
    """Mark the places with the lowest score."""
    chosen = np.zeros_like(places)
    chosen[places] = _calmest(score[places], share=_CALM_SHARE)
    return chosen


def _haar_sigma(array: Array, tissue: Mask) -> float:
    """Total sd from the sub-band medians of a 2D Haar pyramid; level 3 stands for what lies below it."""
    total, previous, share = 0.0, np.inf, 1.0
    for step in range(3):
        details, array, tissue = _haar_step(array, tissue)
        if not tissue.any():
            break
        variance = _band_variance(details, tissue)
        if step == 2:
            variance = min(variance, previous)
        share /= 4
        total += 3 * share * variance
        previous = variance
    return float(np.sqrt(total + share * previous)) if np.isfinite(previous) else 0.0


def _haar_step(array: Array, tissue: Mask) -> tuple[list[Array], Array, Mask]:
    """Split slices into three orthonormal detail bands and an approximation of half the size."""
    rows, columns = array.shape[1] // 2 * 2, array.shape[2] // 2 * 2
    corners = [array[:, i:rows:2, j:columns:2] for i in (0, 1) for j in (0, 1)]
    inside = [tissue[:, i:rows:2, j:columns:2] for i in (0, 1) for j in (0, 1)]
    a, b, c, d = corners
    half = np.float32(0.5)
    details = [(a - b + c - d) * half, (a + b - c - d) * half, (a - b - c + d) * half]
    return details, (a + b + c + d) * half, np.logical_and.reduce(inside)


def _band_variance(details: list[Array], tissue: Mask) -> float:
    """Mean variance of three detail bands, from medians where the ring around a place is calm."""
    energy = np.where(tissue, sum(np.square(detail) for detail in details), np.float32(0))
    outer = ndimage.uniform_filter(energy, (1, 5, 5), mode="constant") * 25
    inner = ndimage.uniform_filter(energy, (1, 3, 3), mode="constant") * 9
    whole = ndimage.minimum_filter(tissue, (1, 5, 5), mode="constant")
    chosen = _calmest_within(whole if whole.any() else tissue, outer - inner)
    medians = [float(np.median(np.abs(detail[chosen]))) / _NORMAL_MEDIAN for detail in details]
    return float(np.mean(np.square(medians)))


def _window_variance(array: Array, side: int) -> Array:
    """Unbiased variance of the square window around each voxel of a slice."""
    window = (1, side, side)
    mean = ndimage.uniform_filter(array, window)
    square = ndimage.uniform_filter(np.square(array), window)
    return np.asarray((square - np.square(mean)) * (side**2 / (side**2 - 1)), np.float32)


def _local_sd_mode(array: Array, tissue: Mask) -> float:
    """Most frequent sd of 9 x 9 windows that lie in tissue, from a smoothed histogram of its logarithm."""
    centred = array - np.float32(np.mean(array[tissue], dtype=np.float64))
    variance = _window_variance(centred, 9)
    around = _window_variance(centred, 17)
    inside = ndimage.minimum_filter(tissue, (1, 17, 17), mode="constant")
    variance = variance[_calmest_within(inside if inside.any() else tissue, around)]
    variance = variance[variance > 1e-6]
    if variance.size == 0:
        return 0.0
    counts, edges = np.histogram(0.5 * np.log(variance), bins=np.arange(-7.0, 9.0, 0.02))
    peak = int(np.argmax(ndimage.gaussian_filter1d(counts.astype(np.float64), 4.0)))
    return float(np.exp((edges[peak] + edges[peak + 1]) / 2))
