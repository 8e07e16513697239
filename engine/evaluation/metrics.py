"""Image metrics with their ranges fixed and printed; numpy in, plain numbers out.

CT: R = 2000 HU. MR: R = the 99.5th percentile of the reference's foreground. Metrics are taken over the
body mask where one is given.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

CT_RANGE_HU = 2000.0
TISSUES_HU = {
    "air": (-1100, -950),
    "lung": (-950, -500),
    "fat": (-150, -30),
    "soft": (0, 100),
    "bone": (200, 1500),
}
_ROI = (3, 7, 7)


def rmse(result: Array, truth: Array, mask: Mask | None = None) -> float:
    """Return the root mean square error, in the images' unit."""
    error = (result.astype(np.float64) - truth)[... if mask is None else mask]
    return float(np.sqrt(np.mean(error**2)))


def psnr(result: Array, truth: Array, value_range: float, mask: Mask | None = None) -> float:
    """Return 20 log10(R / RMSE) in dB; infinity for equal images."""
    error = rmse(result, truth, mask)
    return math.inf if error == 0 else 20.0 * math.log10(value_range / error)


def ssim(result: Array, truth: Array, value_range: float, mask: Mask | None = None) -> float:
    """Return the mean 3D SSIM: Gaussian window of SD 1.5 cut at 11 voxels, K 0.01 and 0.03.

    With population (not sample) covariance, as in Wang et al. 2004.
    """

    def blur(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return ndimage.gaussian_filter(x, 1.5, truncate=3.34, mode="reflect")

    a, b = result.astype(np.float64), truth.astype(np.float64)
    c1, c2 = (0.01 * value_range) ** 2, (0.03 * value_range) ** 2
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2
    cov = blur(a * b) - mean_a * mean_b
    score = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    score /= (mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)
    return float(score[... if mask is None else mask].mean())


def hfen(result: Array, truth: Array, mask: Mask | None = None) -> float:
    """Return the high-frequency error norm: LoG of SD 1.5, relative to that of the truth."""
    chosen = ... if mask is None else mask
    detail = ndimage.gaussian_laplace(truth.astype(np.float64), 1.5)[chosen]
    error = ndimage.gaussian_laplace(result.astype(np.float64) - truth, 1.5)[chosen]
    return float(np.linalg.norm(error)) / max(float(np.linalg.norm(detail)), 1e-12)


def snr_gain(noisy: Array, result: Array, truth: Array, mask: Mask) -> float:
    """Return (mean/SD of result) / (mean/SD of noisy) - 1 over homogeneous regions of the truth.

    Regions: 3x7x7 windows inside `mask` with the lowest tenth of the truth's own deviation; the same
    windows for both images, deviation of (image - truth) so that anatomy does not count as noise.
    """
    spread = _window_deviation(truth)
    inside = ndimage.minimum_filter(mask, size=_ROI)
    if not inside.any():
        return math.nan
    quiet = inside & (spread <= np.percentile(spread[inside], 10))
    before = float(np.std((noisy - truth)[quiet]))
    after = float(np.std((result - truth)[quiet]))
    return before / max(after, 1e-12) - 1.0


def tissue_bias(result: Array, truth: Array) -> dict[str, float]:
    """Return the mean signed error in HU per tissue class of the truth (smoothed against its noise)."""
    smooth = ndimage.gaussian_filter(truth, 1.0)
    out = {}
    for name, (low, high) in TISSUES_HU.items():
        chosen = (smooth >= low) & (smooth < high)
        if chosen.sum() > 500:
            out[name] = float(np.mean((result.astype(np.float64) - truth)[chosen]))
    return out


def noise_spectrum(noise: Array) -> NDArray[np.float64]:
    """Return the in-plane radial noise power, 32 bins up to Nyquist, mean over slices and 64x64 tiles."""
    tiles = _tiles(noise)
    power = (np.abs(np.fft.fft2(tiles - tiles.mean(axis=(1, 2), keepdims=True))) ** 2).mean(axis=0) / 64**2
    f = np.fft.fftfreq(64)
    radius = np.hypot(f[:, None], f[None, :]) * 2
    bins = np.clip((radius * 32).astype(int), 0, 32).ravel()
    total = np.bincount(bins, power.ravel(), minlength=33)[:32]
    return np.asarray(total / np.maximum(np.bincount(bins, minlength=33)[:32], 1), dtype=np.float64)


def foreground(truth: Array, *, is_ct: bool) -> Mask:
    """Return the body: above -500 HU, or above 15 % of the 99.9th percentile for MR, holes closed."""
    limit = -500.0 if is_ct else 0.15 * float(np.percentile(truth, 99.9))
    smooth = ndimage.gaussian_filter(truth, 1.0)
    filled = [ndimage.binary_fill_holes(plane) for plane in smooth > limit]
    return np.asarray(np.stack(filled), dtype=np.bool_)


def mr_range(truth: Array) -> float:
    """Return R of an MR volume: the 99.5th percentile of its foreground."""
    return float(np.percentile(truth[truth > 0.15 * np.percentile(truth, 99.9)], 99.5))


def _window_deviation(x: Array) -> NDArray[np.float64]:
    """Deviation inside the window around every voxel."""
    values = x.astype(np.float64)
    mean = ndimage.uniform_filter(values, _ROI)
    return np.sqrt(np.maximum(ndimage.uniform_filter(values**2, _ROI) - mean**2, 0.0))


def _tiles(x: Array) -> NDArray[np.float64]:
    """All whole 64x64 tiles of every slice."""
    rows, columns = x.shape[1] // 64, x.shape[2] // 64
    if not rows or not columns:
        raise ValueError("a noise spectrum needs slices of at least 64x64")
    cut = x[:, : rows * 64, : columns * 64].astype(np.float64)
    cut = cut.reshape(x.shape[0], rows, 64, columns, 64).transpose(0, 1, 3, 2, 4)
    return cut.reshape(-1, 64, 64)
