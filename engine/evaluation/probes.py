"""Probes with exact truth on phantoms: sharpness by rods, texture and false structure, what must not change."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engine.evaluation import metrics
from engine.evaluation.cases import NoiseLevel, NoisyCase, Truth, add_noise
from engine.evaluation.compare import Denoise
from engine.evaluation.metrics import CT_RANGE_HU, Array
from engine.phantom import head_phantom
from engine.simulation.randomness import Draw
from engine.volume import IntensityUnit, Volume

Shape = tuple[int, int, int]
Row = dict[str, Any]

ROD_CONTRASTS_HU = (50.0, 100.0, 200.0, 400.0)
_LEVEL_HU = 60.0
"""Soft-tissue background of the phantom."""
_MR_LEVEL = 800.0
_MR_RANGE = 1000.0
_BLOB_WIDTH = 2.0
_HEAD: Shape = (24, 128, 128)


def soft_tissue_phantom(shape: Shape = (32, 128, 128)) -> Volume:
    """Return a uniform body in air, 2.5 mm slices of 0.7 mm pixels."""
    body = _body(shape)
    array = np.where(body, _LEVEL_HU, -1000.0)
    smooth = ndimage.gaussian_filter(array, (0, 0.7, 0.7)).astype(np.float32)
    return Volume(smooth, np.diag([2.5, 0.7, 0.7, 1.0]), IntensityUnit.HU)


def uniform_truth(level: NoiseLevel, shape: Shape = (32, 128, 128)) -> Truth:
    """Return the uniform body of a level's modality; MR has 0.8 of R in the body and nothing around it."""
    body = _body(shape)
    if level.is_ct:
        return Truth("uniform", 0, soft_tissue_phantom(shape), CT_RANGE_HU, body)
    array = ndimage.gaussian_filter(np.where(body, _MR_LEVEL, 0.0), (0, 0.7, 0.7)).astype(np.float32)
    volume = Volume(array, np.diag([2.0, 1.0, 1.0, 1.0]), IntensityUnit.ARBITRARY)
    return Truth("uniform", 0, volume, _MR_RANGE, body)


def _body(shape: Shape) -> NDArray[np.bool_]:
    """An ellipse in every slice."""
    _, rows, columns = shape
    y, x = np.mgrid[:rows, :columns]
    body = ((y - rows / 2) / (0.46 * rows)) ** 2 + ((x - columns / 2) / (0.46 * columns)) ** 2 < 1
    return np.broadcast_to(body[None], shape).copy()


def rod_sharpness(
    denoise: Denoise, level: NoiseLevel, contrasts: Sequence[float] = ROD_CONTRASTS_HU, seed: int = 1
) -> list[Row]:
    """Return the f50 of the result over that of the truth for rods of each contrast (CT).

    The edge spread is averaged over angle and slices, so noise cancels; f50 is where the MTF of its
    derivative falls to one half.
    """
    background = soft_tissue_phantom()
    distance = rod_distance(background)
    rod = 1.0 / (1.0 + np.exp((distance - 10.0) / 0.35))
    rows = []
    for contrast in contrasts:
        truth = (background.array + contrast * rod).astype(np.float32)
        noisy = background.with_array(add_noise(truth, level, CT_RANGE_HU, Draw(seed))[0])
        whole = f50(truth, distance)
        rows.append(
            {
                "noise": level.label,
                "rod, HU": contrast,
                "f50 out / truth": f50(denoise(noisy), distance) / whole,
                "f50 in / truth": f50(noisy.array, distance) / whole,
            }
        )
    return rows


def rod_distance(volume: Volume) -> NDArray[np.float64]:
    """Distance in pixels from a rod's axis, a little off the grid."""
    _, y, x = np.indices(volume.array.shape)
    rows, columns = volume.array.shape[1:]
    return np.asarray(np.hypot(y - rows / 2 - 0.3, x - columns / 2 + 0.2), dtype=np.float64)


def f50(image: Array, distance: NDArray[np.float64]) -> float:
    """Frequency in cycles per pixel where the edge's MTF is one half, between bins by a straight line."""
    step = 0.25
    chosen = (distance > 3) & (distance < 17)
    bins = ((distance[chosen] - 3) / step).astype(int)
    profile = np.bincount(bins, image[chosen].astype(np.float64)) / np.maximum(np.bincount(bins), 1)
    line = np.gradient(ndimage.gaussian_filter1d(profile, 1.0)) * np.hanning(len(profile))
    mtf = np.abs(np.fft.rfft(line, 1024))
    mtf /= max(float(mtf[0]), 1e-12)
    f = np.fft.rfftfreq(1024, step)
    below = max(1, int(np.argmax(mtf < 0.5)))
    share = (mtf[below - 1] - 0.5) / max(float(mtf[below - 1] - mtf[below]), 1e-12)
    return float(f[below - 1] + share * (f[below] - f[below - 1]))


def texture(denoise: Denoise, level: NoiseLevel, seed: int = 2) -> Row:
    """Return noise removed, NPS and blobs in the uniform body.

    A blob is a local extremum of the Laplacian of Gaussian (SD 2) beyond three deviations of the response to
    the input's own noise: chance gives `blobs in`, and a result must not show more.
    """
    truth = uniform_truth(level)
    clean = truth.volume.array
    noisy, _ = add_noise(clean, level, truth.value_range, Draw(seed))
    result = denoise(truth.volume.with_array(noisy))
    inside = ndimage.binary_erosion(truth.body, iterations=8)
    before, after = noisy - clean, result - clean
    count_in, count_out = count_blobs(before, after, inside)
    tile = (slice(None), slice(32, 96), slice(32, 96))
    peak_in, mean_in = metrics.spectrum_frequencies(metrics.noise_spectrum(before[tile]))
    peak, mean = metrics.spectrum_frequencies(metrics.noise_spectrum(after[tile]))
    return {
        "noise": level.label,
        "SD out / in": float(after[inside].std() / before[inside].std()),
        "NPS peak out / in": peak / peak_in,
        "NPS mean out / in": mean / mean_in,
        "blobs in": count_in,
        "blobs out": count_out,
        "bias, % of R": 100 * float(after[inside].mean()) / truth.value_range,
    }


def anatomy_blobs(denoise: Denoise, level: NoiseLevel, seed: int = 3) -> Row:
    """Count blobs in the error of a noisy head phantom (CT), as `texture` does in the uniform body."""
    head = head_phantom(_HEAD, (2.0, 0.8, 0.8), seed)
    noisy, _ = add_noise(head.array, level, CT_RANGE_HU, Draw(seed))
    inside = ndimage.binary_erosion(head.array > -200, iterations=3)
    result = denoise(head.with_array(noisy))
    count_in, count_out = count_blobs(noisy - head.array, result - head.array, inside)
    return {"noise": level.label, "blobs in": count_in, "blobs out": count_out}


def count_blobs(before: Array, after: Array, inside: NDArray[np.bool_]) -> tuple[int, int]:
    """Count extrema beyond three deviations of the LoG of `before`, in `before` and in `after`."""
    responses = [ndimage.gaussian_laplace(e.astype(np.float64), _BLOB_WIDTH) for e in (before, after)]
    limit = 3.0 * float(responses[0][inside].std())
    counts = []
    for size in map(np.abs, responses):
        top = size == ndimage.maximum_filter(size, 3)
        counts.append(int((top & (size > limit) & inside).sum()))
    return counts[0], counts[1]


def do_no_harm(denoise: Denoise, case: NoisyCase) -> Row:
    """Return what must be small, in deviations of the case's noise (constant: in R).

    removed          RMS of D(y) - y: the rest says nothing of a scan that was left alone
    again            RMS of D(D(y)) - D(y)
    flips            RMS deviation of D over the eight mirror images
    constant         largest change of a constant volume, in parts of R
    """
    result = denoise(case.noisy)
    again = denoise(case.noisy.with_array(result))
    results = []
    for count in range(4):
        for axes in itertools.combinations(range(3), count):
            turned = case.noisy.with_array(np.ascontiguousarray(np.flip(case.noisy.array, axes)))
            results.append(np.flip(denoise(turned), axes))
    level = np.float32(_LEVEL_HU if case.level.is_ct else 0.5 * case.value_range)
    flat = case.noisy.with_array(np.full_like(case.noisy.array, level))
    return {
        "scan": case.scan,
        "noise": case.level.label,
        "D(y) - y, sigma": float(np.sqrt(np.mean((result - case.noisy.array) ** 2)) / case.sigma),
        "D(D(y)) - D(y), sigma": float(np.sqrt(np.mean((again - result) ** 2)) / case.sigma),
        "flips, sigma": float(np.sqrt(np.var(np.stack(results), axis=0).mean()) / case.sigma),
        "constant, R": float(np.abs(denoise(flat) - level).max() / case.value_range),
    }


def near_clean_change(denoise: Denoise, level: NoiseLevel) -> Row:
    """Return the RMS change of a phantom of rods with almost no noise, in units of that noise's deviation."""
    truth = uniform_truth(level)
    contrast = 80.0 if level.is_ct else 0.15 * truth.value_range
    rods = (truth.volume.array + contrast * (rod_distance(truth.volume) < 10)).astype(np.float32)
    noisy, sigma = add_noise(rods, level, truth.value_range, Draw(4))
    change = denoise(truth.volume.with_array(noisy)) - noisy
    body = truth.body
    return {"noise": level.label, "change, sigma": float(np.sqrt(np.mean(change[body] ** 2)) / sigma)}
