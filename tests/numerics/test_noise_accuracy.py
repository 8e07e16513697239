"""The acceptance table of the noise estimate: kernels by anatomies by levels, on noise whose size is known.

CT: three reconstruction kernels, four anatomies, 5 to 100 HU. MR: Rician noise of 1 to 15 % of the bright
foreground on the same anatomies as a magnitude image shows them. `python -m tests.numerics.test_noise_accuracy`
prints the whole table.
"""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage

from engine.evaluation.cases import SOFT_KERNEL
from engine.evaluation.metrics import mr_range
from engine.noise import estimate_noise
from engine.phantom import head_phantom, noisy_mr
from engine.simulation.ct_noise import CtNoiseShape, coloured_noise
from engine.simulation.randomness import Draw
from engine.volume import IntensityUnit, Volume

Field = NDArray[np.float64]

SHAPE, SPACING_MM = (16, 128, 128), (4.0, 1.7, 1.7)
KERNELS = {
    "white": CtNoiseShape(),
    "soft": SOFT_KERNEL,
    "sharp": CtNoiseShape(rise=1.2, cut=0.9, fall=4.0, white=0.05, along=0.3),
}
CT_LEVELS_HU = (5.0, 10.0, 20.0, 40.0, 70.0, 100.0)
MR_LEVELS_PERCENT = (1.0, 2.0, 4.0, 7.0, 11.0, 15.0)
ANATOMIES = ("head", "chest", "abdomen", "uniform")


def _blob(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> NDArray[np.bool_]:
    """An ellipsoid; centre and radii in shares of the volume's sides."""
    axes = np.meshgrid(*((np.arange(n) + 0.5) / n for n in SHAPE), indexing="ij")
    return sum(((a - c) / r) ** 2 for a, c, r in zip(axes, centre, radii, strict=True)) < 1


def _body(hu: float) -> Field:
    array = np.full(SHAPE, -1000.0)
    array[_blob((0.5, 0.5, 0.5), (9.0, 0.38, 0.47))] = -95.0
    array[_blob((0.5, 0.5, 0.5), (9.0, 0.33, 0.42))] = hu
    array[_blob((0.5, 0.76, 0.5), (9.0, 0.06, 0.06))] = 400.0
    return array


def _branches(array: Field, lungs: NDArray[np.bool_], rng: np.random.Generator) -> None:
    """Vessels of a few voxels across the lungs."""
    for _ in range(120):
        centre = rng.uniform((0.0, 0.2, 0.1), (1.0, 0.8, 0.9))
        radii = rng.uniform((0.1, 0.006, 0.006), (0.6, 0.02, 0.02))
        array[_blob(tuple(centre), tuple(radii)) & lungs] = 40.0


@functools.cache
def anatomy(name: str) -> Volume:
    """Return a noise-free body in Hounsfield units, edges with partial volume."""
    rng = np.random.default_rng(4)
    if name == "head":
        return head_phantom(SHAPE, SPACING_MM, seed=1)
    if name == "uniform":
        array = np.where(_blob((0.5, 0.5, 0.5), (9.0, 0.42, 0.42)), 40.0, -1000.0)
    elif name == "chest":
        array = _body(45.0)
        lungs = _blob((0.5, 0.47, 0.29), (9.0, 0.24, 0.15)) | _blob((0.5, 0.47, 0.71), (9.0, 0.24, 0.15))
        array[lungs] = -860.0
        _branches(array, lungs, rng)
        array[_blob((0.6, 0.42, 0.56), (0.6, 0.13, 0.13))] = 150.0
    else:
        array = _body(-100.0)
        array[_blob((0.5, 0.45, 0.32), (1.2, 0.22, 0.19))] = 105.0
        array[_blob((0.4, 0.42, 0.70), (0.8, 0.12, 0.10))] = 120.0
        array[_blob((0.5, 0.64, 0.33), (0.7, 0.06, 0.05))] = 160.0
        array[_blob((0.5, 0.64, 0.67), (0.7, 0.06, 0.05))] = 160.0
        for _ in range(14):
            centre = rng.uniform((0.0, 0.3, 0.35), (1.0, 0.55, 0.65))
            array[_blob(tuple(centre), (0.3, 0.04, 0.05))] = 40.0
            array[_blob(tuple(centre), (0.2, 0.015, 0.02))] = -900.0
    smooth = ndimage.gaussian_filter(array, (0.3, 0.5, 0.5)).astype(np.float32)
    return Volume(smooth, np.diag([*SPACING_MM, 1.0]), IntensityUnit.HU)


@functools.cache
def magnitude(name: str) -> Volume:
    """Return the same body as MR may show it: dark air and bone, grey tissue, bright fat."""
    array = anatomy(name).array
    shown = np.interp(array, [-900, -120, -60, 0, 60, 120, 250, 500], [0, 700, 650, 250, 420, 500, 150, 40])
    return Volume(shown.astype(np.float32), anatomy(name).affine, IntensityUnit.ARBITRARY)


def ct_error(kernel: str, name: str, level: float, seed: int) -> float:
    """Return estimate over truth, less one."""
    noise = level * coloured_noise(SHAPE, KERNELS[kernel], Draw(seed)).numpy()
    clean = anatomy(name)
    return estimate_noise(clean.with_array(clean.array + noise)).sigma / level - 1


def mr_error(name: str, percent: float, seed: int) -> float:
    """Return estimate over truth, less one; truth is the deviation of each channel."""
    clean = magnitude(name)
    sigma = percent / 100 * mr_range(clean.array)
    return estimate_noise(noisy_mr(clean, sigma, seed)).sigma / sigma - 1


def ct_table() -> dict[tuple[str, str], list[float]]:
    """Errors over the levels, per kernel and anatomy."""
    return {
        (kernel, name): [ct_error(kernel, name, level, seed) for seed, level in enumerate(CT_LEVELS_HU)]
        for kernel, name in itertools.product(KERNELS, ANATOMIES)
    }


def mr_table() -> dict[tuple[str, str], list[float]]:
    """Errors over the levels, per anatomy."""
    return {
        ("rician", name): [mr_error(name, percent, seed) for seed, percent in enumerate(MR_LEVELS_PERCENT)]
        for name in ANATOMIES
    }


@pytest.mark.parametrize("table", [ct_table, mr_table], ids=["CT", "MR"])
def test_the_estimate_is_within_a_tenth_of_known_noise(table) -> None:
    errors = np.abs(np.concatenate(list(table().values())))

    assert np.median(errors) <= 0.10
    assert np.percentile(errors, 95) <= 0.25


if __name__ == "__main__":
    torch.set_num_threads(2)
    for levels, rows in ((CT_LEVELS_HU, ct_table()), (MR_LEVELS_PERCENT, mr_table())):
        print("noise", *(f"{level:g}" for level in levels))
        for key, cells in rows.items():
            print(*key, *(f"{100 * error:+.1f}" for error in cells))
        sizes = np.abs(np.concatenate(list(rows.values())))
        print(f"median {np.median(sizes):.3f}, p95 {np.percentile(sizes, 95):.3f}, max {sizes.max():.3f}")
