"""Numbers that say how close two volumes are, with every convention fixed here.

Errors are in the volume's unit. `value_range` of PSNR and SSIM is always given, never guessed from the data:
2000 for CT (-1000 to 1000 HU), the 99.5th percentile of the reference for MR. `mask` restricts a figure to
the voxels where it is True; None means all of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engine.errors import EngineInputError

Array = NDArray[np.float32]
Mask = NDArray[np.bool_]

CT_RANGE_HU = 2000.0
"""Value range of CT figures, -1000 to 1000 HU."""
_SSIM_SIGMA = 1.5
_SSIM_RADIUS = 5
_K1, _K2 = 0.01, 0.03


def mr_range(reference: Array) -> float:
    """Return the value range of MR figures: the 99.5th percentile of the reference."""
    return float(np.percentile(reference, 99.5))


def rmse(image: Array, reference: Array, mask: Mask | None = None) -> float:
    """Return the root mean square error."""
    return float(np.sqrt(np.mean(np.square(_difference(image, reference, mask)))))


def bias(image: Array, reference: Array, mask: Mask | None = None) -> float:
    """Return the mean signed error; positive when `image` is too bright."""
    return float(np.mean(_difference(image, reference, mask)))


def psnr(image: Array, reference: Array, *, value_range: float, mask: Mask | None = None) -> float:
    """Return the peak signal-to-noise ratio in dB; infinite for identical arrays."""
    _check_range(value_range)
    error = rmse(image, reference, mask)
    return float("inf") if error == 0 else float(20 * np.log10(value_range / error))


def ssim(image: Array, reference: Array, *, value_range: float, mask: Mask | None = None) -> float:
    """Return the mean structural similarity (Wang 2004), 3D.

    Gaussian weights of sigma 1.5 in 11 x 11 x 11 voxels, K 0.01 and 0.03, population covariance; the five
    outermost voxels of every side are left out. Raises `EngineInputError` when a side is below 11.
    """
    _check_range(value_range)
    _check_shapes(image, reference, mask)
    if min(image.shape) < 2 * _SSIM_RADIUS + 1:
        raise EngineInputError(f"SSIM needs at least 11 voxels along every axis, found {image.shape}")
    similarity = _similarity_map(image.astype(np.float64), reference.astype(np.float64), value_range)
    inner = (slice(_SSIM_RADIUS, -_SSIM_RADIUS),) * 3
    values = similarity[inner] if mask is None else similarity[inner][mask[inner]]
    if values.size == 0:
        raise EngineInputError("the mask holds no voxel away from the border")
    return float(values.mean())


def noise_sd(image: Array, roi: Mask) -> float:
    """Return the standard deviation inside a homogeneous region, around the mean of each of its slices.

    Slice means are removed so that a drift from slice to slice does not count as noise. Raises
    `EngineInputError` when no slice holds two voxels of the region.
    """
    _check_shapes(image, image, roi)
    squares, freedom = 0.0, 0
    for plane, inside in zip(image, roi, strict=True):
        values = plane[inside].astype(np.float64)
        if values.size > 1:
            squares += float(np.sum(np.square(values - values.mean())))
            freedom += values.size - 1
    if freedom == 0:
        raise EngineInputError("the region is too small for a standard deviation")
    return float(np.sqrt(squares / freedom))


def _similarity_map(image: NDArray[np.float64], reference: NDArray[np.float64], value_range: float) -> Array:
    """Structural similarity at every voxel."""

    def smooth(array: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(ndimage.gaussian_filter(array, _SSIM_SIGMA, radius=_SSIM_RADIUS))

    mean_i, mean_r = smooth(image), smooth(reference)
    variances = smooth(image**2) - mean_i**2 + smooth(reference**2) - mean_r**2
    covariance = smooth(image * reference) - mean_i * mean_r
    c1, c2 = (_K1 * value_range) ** 2, (_K2 * value_range) ** 2
    luminance = (2 * mean_i * mean_r + c1) / (mean_i**2 + mean_r**2 + c1)
    return np.asarray(luminance * (2 * covariance + c2) / (variances + c2), np.float32)


def _difference(image: Array, reference: Array, mask: Mask | None) -> NDArray[np.float64]:
    """Errors inside the mask, in double precision."""
    _check_shapes(image, reference, mask)
    difference = np.subtract(image, reference, dtype=np.float64)
    chosen = difference.ravel() if mask is None else difference[mask]
    if chosen.size == 0:
        raise EngineInputError("there is no voxel to compare")
    return chosen


def _check_shapes(image: Array, reference: Array, mask: Mask | None) -> None:
    if image.shape != reference.shape or (mask is not None and mask.shape != image.shape):
        raise EngineInputError(
            f"shapes differ: image {image.shape}, reference {reference.shape}, "
            f"mask {'none' if mask is None else mask.shape}"
        )


def _check_range(value_range: float) -> None:
    if not value_range > 0:
        raise EngineInputError(f"the value range is positive, found {value_range:g}")
