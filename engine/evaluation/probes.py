"""Probes with exact truth: lesion contrast, edge sharpness, false structure, near-clean input."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engine.evaluation.cases import NoiseLevel, add_noise
from engine.evaluation.metrics import Array
from engine.simulation.randomness import Draw
from engine.volume import IntensityUnit, Volume

Denoise = Callable[[Volume], Array]
_RADII_MM = (2.5, 4.0, 6.0)
_LEVEL_HU = 60.0
"""Soft-tissue background of the phantom."""


@dataclass(frozen=True)
class LesionResult:
    """Recovery of inserted spheres of one contrast: 1 is exact, below 1 is lost contrast."""

    contrast_hu: float
    diameter_mm: float
    cnr_in: float
    recovery: float


def soft_tissue_phantom(shape: tuple[int, int, int] = (32, 128, 128)) -> Volume:
    """Return a uniform body in air, 2.5 mm slices of 0.7 mm pixels."""
    _, rows, columns = shape
    y, x = np.mgrid[:rows, :columns]
    body = ((y - rows / 2) / (0.46 * rows)) ** 2 + ((x - columns / 2) / (0.46 * columns)) ** 2 < 1
    array = np.where(body[None], _LEVEL_HU, -1000.0) + np.zeros(shape)
    smooth = ndimage.gaussian_filter(array, (0, 0.7, 0.7)).astype(np.float32)
    return Volume(smooth, np.diag([2.5, 0.7, 0.7, 1.0]), IntensityUnit.HU)


def lesion_recovery(
    denoise: Denoise, level: NoiseLevel, background: Volume, seed: int = 0
) -> list[LesionResult]:
    """Insert spheres before the noise, denoise with and without them, compare the difference with truth.

    The same noise with and without, so only the treatment of the lesion differs.
    """
    results = []
    without = denoise(background.with_array(add_noise(background.array, level, 2000.0, Draw(seed))[0]))
    for contrast in (-40.0, -20.0, 20.0, 40.0):
        for radius in _RADII_MM:
            lesions = _spheres(background, radius)
            array = (background.array + contrast * lesions).astype(np.float32)
            noisy = add_noise(array, level, 2000.0, Draw(seed))[0]
            change = denoise(background.with_array(noisy)) - without
            # Least squares of the change on the true lesion profile: the matched filter's contrast.
            recovery = float((change * lesions).sum() / (contrast * (lesions**2).sum()))
            voxel = math.prod(background.spacing_mm)
            voxels = 4 / 3 * math.pi * radius**3 / voxel
            cnr = abs(contrast) / level.amount * math.sqrt(voxels)
            results.append(LesionResult(contrast, 2 * radius, cnr, recovery))
    return results


def _spheres(volume: Volume, radius_mm: float) -> NDArray[np.float64]:
    """Coverage of spheres on a grid of sites inside the body, edges one voxel soft."""
    z, y, x = np.indices(volume.array.shape)
    dz, dy, dx = volume.spacing_mm
    out = np.zeros(volume.array.shape)
    depth, rows, columns = volume.array.shape
    for fz in (0.3, 0.7):
        for fy, fx in ((0.35, 0.35), (0.35, 0.65), (0.65, 0.35), (0.65, 0.65)):
            distance = np.sqrt(
                ((z - fz * depth) * dz) ** 2 + ((y - fy * rows) * dy) ** 2 + ((x - fx * columns) * dx) ** 2
            )
            out += np.clip((radius_mm - distance) / min(dy, dx) + 0.5, 0.0, 1.0)
    return out


def edge_sharpness(denoise: Denoise, level: NoiseLevel, contrast_hu: float = 200.0, seed: int = 1) -> float:
    """Return the f50 of the result over that of the truth for a rod of `contrast_hu` HU.

    The edge spread is averaged over angle and slices, so noise cancels; f50 is where the MTF of its
    derivative falls to one half.
    """
    background = soft_tissue_phantom()
    distance = _rod_distance(background)
    rod = 1.0 / (1.0 + np.exp((distance - 10.0) / 0.35))
    truth = (background.array + contrast_hu * rod).astype(np.float32)
    noisy = background.with_array(add_noise(truth, level, 2000.0, Draw(seed))[0])
    return _f50(denoise(noisy), distance) / _f50(truth, distance)


def _rod_distance(volume: Volume) -> NDArray[np.float64]:
    """Distance in pixels from a rod's axis, a little off the grid."""
    _, y, x = np.indices(volume.array.shape)
    rows, columns = volume.array.shape[1:]
    return np.asarray(np.hypot(y - rows / 2 - 0.3, x - columns / 2 + 0.2), dtype=np.float64)


def _f50(image: Array, distance: NDArray[np.float64]) -> float:
    """Frequency in cycles per pixel where the edge's MTF is one half."""
    step = 0.25
    chosen = (distance > 3) & (distance < 17)
    bins = ((distance[chosen] - 3) / step).astype(int)
    profile = np.bincount(bins, image[chosen].astype(np.float64)) / np.maximum(np.bincount(bins), 1)
    line = np.gradient(ndimage.gaussian_filter1d(profile, 1.0)) * np.hanning(len(profile))
    mtf = np.abs(np.fft.rfft(line, 1024))
    mtf /= mtf[0]
    below = int(np.argmax(mtf < 0.5))
    return float(np.fft.rfftfreq(1024, step)[below])


def false_structure(denoise: Denoise, level: NoiseLevel, seed: int = 2) -> float:
    """Return the share of blobs that stand out of a denoised uniform body, in parts of its voxels.

    A blob is a Laplacian-of-Gaussian response (SD 2) beyond three times what the pure noise shows, so
    zero means that nothing was invented.
    """
    background = soft_tissue_phantom()
    noisy = background.with_array(add_noise(background.array, level, 2000.0, Draw(seed))[0])
    inside = ndimage.binary_erosion(background.array > 0, iterations=8)
    before = ndimage.gaussian_laplace(noisy.array - background.array, 2.0)[inside]
    after = ndimage.gaussian_laplace(denoise(noisy) - background.array, 2.0)[inside]
    return float(np.mean(np.abs(after) > 3.0 * before.std()))


def near_clean_change(denoise: Denoise, sigma_hu: float = 1.0) -> float:
    """Return the RMS change of a phantom with almost no noise, in units of that noise's deviation."""
    background = soft_tissue_phantom()
    rods = (background.array + 80.0 * (_rod_distance(background) < 10)).astype(np.float32)
    noisy = background.with_array(add_noise(rods, NoiseLevel(True, sigma_hu, False), 2000.0, Draw(3))[0])
    return float(np.sqrt(np.mean((denoise(noisy) - noisy.array) ** 2)) / sigma_hu)
