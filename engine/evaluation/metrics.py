"""What the tables of an evaluation hold, with every range fixed and printed; numpy in, plain numbers out.

RMSE, PSNR and 3D SSIM are those of `engine.metrics`. CT: R = 2000 HU, and windows as read at a screen.
MR: R = the 99.5th percentile of the scan's foreground. The noise of an image is its error against the truth.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engine import metrics as plain
from engine.metrics import CT_RANGE_HU, rmse

__all__ = ["CT_RANGE_HU", "rmse"]

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]
Curve = NDArray[np.float64]

TISSUES_HU = {
    "air": (-1100, -950),
    "lung": (-950, -500),
    "fat": (-150, -30),
    "soft": (0, 100),
    "bone": (200, 1500),
}
WINDOWS_HU = {"soft": (-160.0, 240.0), "lung": (-1350.0, 150.0)}
"""Windows of PSNR: level 40, width 400 and level -600, width 1500."""
_ROI = (3, 7, 7)
_FEWEST_VOXELS = 500
BINS = 32
TILE = 64


def psnr(result: Array, truth: Array, value_range: float, mask: Mask | None = None) -> float:
    """Return 20 log10(R / RMSE) in dB; infinity for equal images."""
    return plain.psnr(result, truth, value_range=value_range, mask=mask)


def windowed_psnr(result: Array, truth: Array, window: tuple[float, float]) -> float:
    """Return the PSNR of both images clipped to a window of HU, R its width, where the truth lies in it.

    NaN when fewer than 500 voxels do.
    """
    low, high = window
    inside = (truth > low) & (truth < high)
    if inside.sum() < _FEWEST_VOXELS:
        return math.nan
    return psnr(np.clip(result, low, high), truth, high - low, inside)


def ssim(result: Array, truth: Array, value_range: float, mask: Mask | None = None) -> float:
    """Return the mean 3D SSIM (`engine.metrics.ssim`); NaN where a side is below 11 or the mask is empty."""
    inner = (slice(5, -5),) * 3
    if min(truth.shape) < 11 or (mask is not None and not mask[inner].any()):
        return math.nan
    return plain.ssim(result, truth, value_range=value_range, mask=mask)


def hfen(result: Array, truth: Array, mask: Mask | None = None) -> float:
    """Return the high-frequency error norm: LoG of SD 1.5, relative to that of the truth."""
    chosen = ... if mask is None else mask
    detail = ndimage.gaussian_laplace(truth.astype(np.float64), 1.5)[chosen]
    error = ndimage.gaussian_laplace(result.astype(np.float64) - truth, 1.5)[chosen]
    return float(np.linalg.norm(error)) / max(float(np.linalg.norm(detail)), 1e-12)


def homogeneous(truth: Array, mask: Mask) -> Mask:
    """Mark the centres of the 3x7x7 windows inside `mask` whose own deviation is in the lowest tenth.

    Empty when no window lies inside.
    """
    spread = _window_deviation(truth)
    inside = ndimage.minimum_filter(mask, size=_ROI)
    if not inside.any():
        return np.zeros_like(mask)
    return np.asarray(inside & (spread <= np.percentile(spread[inside], 10)))


def snr_gain(noisy: Array, result: Array, truth: Array, quiet: Mask) -> float:
    """Return (mean/SD of result) / (mean/SD of noisy) - 1 over homogeneous regions `quiet`.

    The same regions for both; deviation of (image - truth) so that anatomy does not count as noise. NaN
    without a region. Any blur raises it: read it beside HFEN and f50.
    """
    if not quiet.any():
        return math.nan
    before = float(np.std((noisy - truth)[quiet]))
    after = float(np.std((result - truth)[quiet]))
    return before / max(after, 1e-12) - 1.0


def tissue_bias(result: Array, truth: Array) -> dict[str, float]:
    """Return the mean signed error in HU per tissue class of the truth (smoothed against its noise)."""
    smooth = ndimage.gaussian_filter(truth, 1.0)
    classes = {name: (smooth >= low) & (smooth < high) for name, (low, high) in TISSUES_HU.items()}
    return _mean_errors(result, truth, classes)


def signal_bias(result: Array, truth: Array, body: Mask) -> dict[str, float]:
    """Return the mean signed error of MR in the dark, middle and bright third of the body, and outside it."""
    if not body.any():
        return {}
    smooth = ndimage.gaussian_filter(truth, 1.0)
    low, high = np.percentile(smooth[body], [33.3, 66.7])
    classes = {
        "background": ~body,
        "dark": body & (smooth < low),
        "middle": body & (smooth >= low) & (smooth < high),
        "bright": body & (smooth >= high),
    }
    return _mean_errors(result, truth, classes)


def _mean_errors(result: Array, truth: Array, classes: dict[str, Mask]) -> dict[str, float]:
    """Mean signed error of every class that is large enough."""
    error = result.astype(np.float64) - truth
    return {
        name: float(error[chosen].mean()) for name, chosen in classes.items() if chosen.sum() > _FEWEST_VOXELS
    }


def slope(result: Array, truth: Array, mask: Mask) -> float:
    """Return the slope of the result against the truth inside the mask; 1 keeps contrasts."""
    if not mask.any():
        return math.nan
    x, y = truth[mask].astype(np.float64), result[mask].astype(np.float64)
    x = x - x.mean()
    return float((x * y).sum() / max(float((x * x).sum()), 1e-12))


def noise_spectrum(noise: Array) -> Curve:
    """Return the in-plane radial noise power, 32 bins up to Nyquist, mean over slices and 64x64 tiles."""
    tiles = _tiles(noise)
    power = (np.abs(np.fft.fft2(tiles - tiles.mean(axis=(1, 2), keepdims=True))) ** 2).mean(axis=0) / TILE**2
    f = np.fft.fftfreq(TILE)
    radius = np.hypot(f[:, None], f[None, :]) * 2
    bins = np.clip((radius * BINS).astype(int), 0, BINS).ravel()
    total = np.bincount(bins, power.ravel(), minlength=BINS + 1)[:BINS]
    return np.asarray(total / np.maximum(np.bincount(bins, minlength=BINS + 1)[:BINS], 1), dtype=np.float64)


def spectrum_frequencies(spectrum: Curve) -> tuple[float, float]:
    """Return peak and mean frequency of a radial spectrum, in parts of Nyquist; the first bin is left out."""
    f = (np.arange(BINS) + 0.5) / BINS
    smooth = ndimage.gaussian_filter1d(spectrum[1:], 1.0)
    return float(f[1:][np.argmax(smooth)]), float(
        (f[1:] * spectrum[1:]).sum() / max(spectrum[1:].sum(), 1e-30)
    )


def residual_ratio(removed: Array, noise: Array) -> Curve:
    """Return the power of what was removed over that of the noise, per bin; above 1 anatomy was taken."""
    return np.asarray(noise_spectrum(removed) / np.maximum(noise_spectrum(noise), 1e-30))


def residual_edge_correlation(removed: Array, result: Array, mask: Mask) -> float:
    """Return the correlation of |removed| with the gradient of the result: 0 when no edge was taken."""
    if not mask.any():
        return math.nan
    edges = ndimage.gaussian_gradient_magnitude(result.astype(np.float64), 1.0)[mask]
    size = np.abs(removed.astype(np.float64))[mask]
    if edges.std() < 1e-9 or size.std() < 1e-9:
        return 0.0
    return float(np.corrcoef(size, edges)[0, 1])


def coverage(error: Array, deviation: Array, mask: Mask, width: float) -> float:
    """Return the share of voxels whose error lies within `width` stated deviations (normal: 0.95 at 1.96)."""
    if not mask.any():
        return math.nan
    return float(np.mean(np.abs(error[mask]) <= width * deviation[mask]))


def foreground(truth: Array, *, is_ct: bool) -> Mask:
    """Return the body: above -500 HU, or above 15 % of the 99.9th percentile for MR, holes closed."""
    limit = -500.0 if is_ct else 0.15 * float(np.percentile(truth, 99.9))
    smooth = ndimage.gaussian_filter(truth, 1.0)
    filled = [ndimage.binary_fill_holes(plane) for plane in smooth > limit]
    return np.asarray(np.stack(filled), dtype=np.bool_)


def mr_range(truth: Array) -> float:
    """Return R of an MR volume: the 99.5th percentile of its foreground."""
    return float(np.percentile(truth[truth > 0.15 * np.percentile(truth, 99.9)], 99.5))


def _window_deviation(x: Array) -> Curve:
    """Deviation inside the window around every voxel."""
    values = x.astype(np.float64)
    mean = ndimage.uniform_filter(values, _ROI)
    return np.sqrt(np.maximum(ndimage.uniform_filter(values**2, _ROI) - mean**2, 0.0))


def _tiles(x: Array) -> Curve:
    """All whole 64x64 tiles of every slice."""
    rows, columns = x.shape[1] // TILE, x.shape[2] // TILE
    if not rows or not columns:
        raise ValueError("a noise spectrum needs slices of at least 64x64")
    cut = x[:, : rows * TILE, : columns * TILE].astype(np.float64)
    cut = cut.reshape(x.shape[0], rows, TILE, columns, TILE).transpose(0, 1, 3, 2, 4)
    return cut.reshape(-1, TILE, TILE)
