"""A head that nobody owns: an anatomy-like CT phantom and the noise of a scanner, both from a seed.

The phantom serves the demo, the tests and the measurements. It has what a denoiser can spoil: a skull of
varying thickness, a folded cortex of low contrast, ventricles, thin vessels, small lesions and sinus air,
all with partial volume at their edges. It stands for no patient and is no reference for diagnosis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from engine.volume import IntensityUnit, Volume

_AIR, _FAT, _SKIN, _MUSCLE = -1000.0, -90.0, 55.0, 50.0
_TABLE_BONE, _DIPLOE = 1250.0, 650.0
_CSF, _GREY, _WHITE = 8.0, 39.0, 30.0

Field = NDArray[np.float32]  # (slices, rows, columns)
Grid = tuple[Field, Field, Field]
"""Open grid of patient millimetres (superior, posterior, left), zero in the middle."""


@dataclass(frozen=True)
class _Ellipsoid:
    """A blob in patient millimetres (superior, posterior, left) and the intensity inside it."""

    centre_mm: tuple[float, float, float]
    radii_mm: tuple[float, float, float]
    hu: float


_VENTRICLES = (
    _Ellipsoid((10, 8, 9), (8, 32, 5), _CSF),
    _Ellipsoid((10, 8, -9), (8, 32, 5), _CSF),
    _Ellipsoid((2, 38, 19), (9, 15, 5), _CSF),
    _Ellipsoid((2, 38, -19), (9, 15, 5), _CSF),
    _Ellipsoid((-8, 10, 0), (11, 14, 2.5), _CSF),
    _Ellipsoid((-38, 40, 0), (9, 7, 6), _CSF),
)
_DEEP_GREY = (
    _Ellipsoid((2, -6, 17), (10, 15, 6), _GREY),
    _Ellipsoid((2, -6, -17), (10, 15, 6), _GREY),
    _Ellipsoid((0, 18, 11), (9, 13, 7), _GREY),
    _Ellipsoid((0, 18, -11), (9, 13, 7), _GREY),
)
_LESIONS = (
    _Ellipsoid((18, -24, 36), (7, 8, 6), 64.0),
    _Ellipsoid((22, 30, -38), (9, 11, 9), 20.0),
    _Ellipsoid((-4, -36, -28), (4, 4, 4), 48.0),
    _Ellipsoid((30, 6, 30), (3, 2.5, 2.5), 55.0),
    _Ellipsoid((4, 32, 16), (3, 2, 2), 180.0),
    _Ellipsoid((2, 26, 0), (3, 2.2, 2.2), 220.0),
)
_SINUSES = (
    _Ellipsoid((-20, -84, 12), (14, 6, 10), _AIR),
    _Ellipsoid((-20, -84, -10), (12, 6, 9), _AIR),
    _Ellipsoid((-52, -46, 0), (9, 13, 12), _AIR),
    _Ellipsoid((-56, 24, 56), (11, 9, 6), -750.0),
    _Ellipsoid((-56, 24, -56), (11, 9, 6), -750.0),
)


def head_phantom(
    shape: tuple[int, int, int] = (48, 256, 256),
    spacing_mm: tuple[float, float, float] = (3.0, 0.9, 0.9),
    seed: int = 0,
) -> Volume:
    """Return a noise-free head in Hounsfield units, the same bits for the same arguments.

    The head is about 150 mm wide and 195 mm long; the grid is centred on the brain, slices run from
    inferior to superior, rows to posterior, columns to left. `seed` varies the shape of the folds, the
    thickness of the skull and the course of the vessels.
    """
    rng = np.random.default_rng(seed)
    grid = _millimetre_grid(shape, spacing_mm)
    wobble = _smooth_field(shape, spacing_mm, rng, scale_mm=45.0)
    skull = _smooth_field(shape, spacing_mm, rng, scale_mm=30.0)

    surface: Field = _head_depth(grid) + np.float32(1.5) * wobble
    inner: Field = surface - np.float32(13.5) - np.float32(2.2) * skull
    outer: Field = surface - np.float32(6.5) - np.float32(0.7) * wobble
    head = np.full(shape, _AIR, np.float32)
    head = _paint(head, surface, _SKIN)
    head = _paint(head, surface - np.float32(2), np.float32(_FAT) + np.float32(25) * wobble)
    head = _paint(head, surface - np.float32(5) - wobble, _MUSCLE)
    head = _paint(head, outer, _TABLE_BONE)
    head = _paint(
        head,
        np.minimum(outer - np.float32(2.1), -(inner + np.float32(2))),
        np.float32(_DIPLOE) + np.float32(80) * skull,
    )
    head = _paint(head, inner, _brain(inner, grid, spacing_mm, rng))
    for blob in (*_DEEP_GREY, *_VENTRICLES, *_LESIONS, *_SINUSES):
        _stamp(head, blob, grid)
    _add_vessels(head, inner, grid, rng)
    return Volume(head, _axial_affine(shape, spacing_mm), IntensityUnit.HU)


def noisy_ct(volume: Volume, sigma_hu: float, seed: int) -> Volume:
    """Add the noise of a soft CT kernel: coloured in the slice, slightly correlated between slices.

    The standard deviation follows the attenuation around a voxel (deep inside the head more than under
    the skin, little in air), scaled so that its root mean square over the body (above -500 HU) is
    `sigma_hu`. Intensities do not fall below -1024 HU, as in a stored scan. Padding stays untouched.
    """
    rng = np.random.default_rng(seed)
    noise = _soft_kernel_noise(volume.array.shape, volume.spacing_mm, rng)
    gain = _noise_gain(volume)
    noisy = np.maximum(volume.array + np.float32(sigma_hu) * gain * noise, np.float32(-1024.0))
    return _keep_padding(volume, noisy)


def noisy_mr(volume: Volume, sigma: float, seed: int) -> Volume:
    """Return the magnitude of `volume` after complex Gaussian noise of `sigma` per channel (Rician)."""
    rng = np.random.default_rng(seed)
    real = volume.array + np.float32(sigma) * rng.standard_normal(volume.array.shape, np.float32)
    imaginary = np.float32(sigma) * rng.standard_normal(volume.array.shape, np.float32)
    return _keep_padding(volume, np.hypot(real, imaginary))


def _keep_padding(volume: Volume, noisy: Field) -> Volume:
    if volume.valid is not None:
        noisy = np.where(volume.valid, noisy, volume.array)
    return volume.with_array(noisy.astype(np.float32, copy=False))


def _soft_kernel_noise(
    shape: tuple[int, ...], spacing_mm: tuple[float, float, float], rng: np.random.Generator
) -> Field:
    """Unit-variance noise whose power rises like a ramp and falls with the kernel (peak 0.25 per mm)."""
    fy = fft.fftfreq(shape[1], spacing_mm[1])[:, None]
    fx = fft.rfftfreq(shape[2], spacing_mm[2])[None, :]
    f = np.hypot(fy, fx)
    amplitude = np.sqrt(f + 0.02) * np.exp(-((f / 0.36) ** 2))
    white = rng.standard_normal(shape, np.float32)
    noise = fft.irfft2(fft.rfft2(white, workers=2) * amplitude.astype(np.float32), s=shape[1:], workers=2)
    noise = ndimage.correlate1d(noise, [0.22, 1.0, 0.22], axis=0, mode="reflect")
    return np.asarray(noise / noise.std(), np.float32)


def _noise_gain(volume: Volume) -> Field:
    """Share of the noise level at each voxel, root mean square 1 over the body."""
    body = volume.array > -500.0
    if not body.any():
        return np.ones(volume.array.shape, np.float32)
    widths = [25.0 / step for step in volume.spacing_mm]
    around = ndimage.gaussian_filter(body.astype(np.float32), widths, mode="nearest", truncate=2.0)
    gain = 0.35 + 0.9 * around
    rms = np.sqrt(np.mean(gain[body] ** 2, dtype=np.float64))
    return np.asarray(gain / rms, np.float32)


def _millimetre_grid(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> Grid:
    """Millimetres along each axis, shaped to broadcast."""
    axes = [
        ((np.arange(n) - (n - 1) / 2) * step).astype(np.float32)
        for n, step in zip(shape, spacing_mm, strict=True)
    ]
    return axes[0][:, None, None], axes[1][None, :, None], axes[2][None, None, :]


def _axial_affine(shape: tuple[int, int, int], spacing_mm: tuple[float, float, float]) -> NDArray[np.float64]:
    """Index (slice, row, column, 1) to LPS millimetres of an axial grid centred on the origin."""
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = *spacing_mm, 1.0
    for row, axis in ((2, 0), (1, 1), (0, 2)):
        affine[row, 3] = -(shape[axis] - 1) / 2 * spacing_mm[axis]
    return affine


def _smooth_field(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    rng: np.random.Generator,
    *,
    scale_mm: float,
) -> Field:
    """Random field of about unit size that varies over `scale_mm`, from a coarse lattice."""
    nodes = [max(4, int(np.ceil(n * step / scale_mm)) + 3) for n, step in zip(shape, spacing_mm, strict=True)]
    field = rng.standard_normal(nodes, np.float32)
    for axis, (n, step) in enumerate(zip(shape, spacing_mm, strict=True)):
        at = 1.0 + np.arange(n, dtype=np.float64) * (step / scale_mm)
        field = np.moveaxis(np.tensordot(_cubic_weights(at, nodes[axis]), field, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(field * np.float32(1.7))


def _cubic_weights(at: NDArray[np.float64], nodes: int) -> Field:
    """Weights of the cubic B-spline on a lattice, one row per position."""
    distance = np.abs(at[:, None] - np.arange(nodes)[None, :])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


def _head_depth(grid: Grid) -> Field:
    """Approximate depth under the skin in mm (positive inside) of a head that narrows to the front."""
    z, y, x = grid
    width = 77.0 + 0.06 * y
    norm = np.sqrt((z / 96.0) ** 2 + (y / 98.0) ** 2 + (x / width) ** 2)
    return np.asarray((1.0 - norm) * 86.0, np.float32)


def _brain(
    depth: Field, grid: Grid, spacing_mm: tuple[float, float, float], rng: np.random.Generator
) -> Field:
    """Cerebrospinal fluid around a folded cortex around white matter; `depth` is mm under the dura."""
    z, y, x = grid
    shape = (z.size, y.size, x.size)
    bend = [9.0 * _smooth_field(shape, spacing_mm, rng, scale_mm=32.0) for _ in range(3)]
    k = np.float32(2 * np.pi / 44.0)
    u, v, w = k * (z + bend[0]), k * (y + bend[1]), k * (x + bend[2])
    gyroid = np.sin(u) * np.cos(v) + np.sin(v) * np.cos(w) + np.sin(w) * np.cos(u)
    to_fold = np.abs(gyroid) / (1.2 * k)  # mm to the nearest fold sheet
    sulcus = 1.1 - to_fold - np.clip(depth - 14.0, 0, None) * 0.25
    ribbon = np.maximum(4.2 - to_fold - np.clip(depth - 17.0, 0, None) * 0.35, 4.5 - depth)

    brain = np.full(shape, _WHITE, np.float32)
    brain += np.float32(0.8) * _smooth_field(shape, spacing_mm, rng, scale_mm=18.0)
    brain = _paint(brain, ribbon, _GREY)
    brain = _paint(brain, np.maximum(sulcus, 1.6 - depth), _CSF)
    return _paint(brain, np.minimum(1.0 - np.abs(x), 22.0 - depth), _GREY + 18.0)  # falx


def _paint(image: Field, level: Field, hu: float | Field) -> Field:
    """Blend `hu` into `image` where `level` is positive, with the partial volume of a voxel-wide edge."""
    slope = np.zeros(image.shape, np.float32)
    for axis in range(3):
        if level.shape[axis] > 1:
            slope += np.abs(np.gradient(level, axis=axis))
    share = np.clip(level / np.maximum(slope, np.float32(1e-3)) + np.float32(0.5), 0, 1)
    return np.asarray(image + share * (hu - image), np.float32)


def _stamp(image: Field, blob: _Ellipsoid, grid: Grid) -> None:
    """Blend an ellipsoid into `image`, working only on its box."""
    box = []
    for axis, centre, radius in zip(grid, blob.centre_mm, blob.radii_mm, strict=True):
        flat = axis.ravel()
        step = float(flat[1] - flat[0]) if flat.size > 1 else 1.0
        inside = np.flatnonzero(np.abs(flat - centre) <= radius + 2 * step)
        if inside.size < 2:
            return
        box.append(slice(int(inside[0]), int(inside[-1]) + 1))
    (cz, cy, cx), (rz, ry, rx) = blob.centre_mm, blob.radii_mm
    zs, ys, xs = grid[0][box[0]], grid[1][:, box[1]], grid[2][:, :, box[2]]
    norm = np.sqrt(((zs - cz) / rz) ** 2 + ((ys - cy) / ry) ** 2 + ((xs - cx) / rx) ** 2)
    level = np.asarray((1.0 - norm) * min(blob.radii_mm), np.float32)
    part = tuple(box)
    image[part] = _paint(image[part], level, blob.hu)


def _add_vessels(image: Field, depth: Field, grid: Grid, rng: np.random.Generator) -> None:
    """Draw winding vessels of 1 to 2 mm radius through the brain, as chains of small blobs."""
    for _ in range(10):
        radius = float(rng.uniform(0.9, 1.9))
        at = rng.uniform((-30, -45, -35), (30, 45, 35))
        heading = rng.standard_normal(3)
        for _ in range(28):
            heading = heading / np.linalg.norm(heading) + 0.35 * rng.standard_normal(3)
            at = at + 1.6 * heading / np.linalg.norm(heading)
            if _value_at(depth, at, grid) > 6.0:
                centre = (float(at[0]), float(at[1]), float(at[2]))
                _stamp(image, _Ellipsoid(centre, (max(radius, 1.6), radius, radius), 68.0), grid)


def _value_at(field: Field, at_mm: NDArray[np.float64], grid: Grid) -> float:
    """Value at the voxel nearest to a point in mm; minus infinity outside the grid."""
    index = []
    for axis, value in zip(grid, at_mm, strict=True):
        flat = axis.ravel()
        if not flat[0] <= value <= flat[-1]:
            return float("-inf")
        index.append(int(np.argmin(np.abs(flat - value))))
    return float(field[tuple(index)])
