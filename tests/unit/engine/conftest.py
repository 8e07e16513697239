"""Small volumes with known noise, shared by the tests of the engine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage

from engine.classical import ClassicalEnhancer
from engine.enhancer import EnhancementResult, EnhanceOptions
from engine.phantom import head_phantom, noisy_ct
from engine.volume import IntensityUnit, Volume

MakeVolume = Callable[..., Volume]


@pytest.fixture(scope="session")
def clean_head() -> Volume:
    """A noise-free head, small enough for a test, whole in the plane."""
    return head_phantom((20, 128, 128), (4.0, 1.7, 1.7), seed=3)


@pytest.fixture(scope="session")
def noisy_head(clean_head: Volume) -> Volume:
    """The head under 20 HU of coloured noise."""
    return noisy_ct(clean_head, 20.0, seed=5)


@pytest.fixture(scope="session")
def enhanced_head(noisy_head: Volume) -> EnhancementResult:
    """The noisy head after the classical enhancer at full strength."""
    return ClassicalEnhancer().enhance(noisy_head, options=EnhanceOptions(strength=1.0))


@pytest.fixture(scope="session")
def clean_mr() -> Volume:
    """Ellipsoids of tissue-like brightness in the dark, in scanner units."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (24, 96, 96)), indexing="ij")
    head = 400.0 * (z**2 + y**2 + x**2 < 0.8) + 120.0 * (z**2 + (y / 0.6) ** 2 + (x / 0.7) ** 2 < 0.5)
    smooth = ndimage.gaussian_filter(head.astype(np.float32), 0.7)
    return Volume(smooth, np.diag([1.0, 1.0, 1.0, 1.0]), IntensityUnit.ARBITRARY)


@pytest.fixture(scope="session")
def make_volume() -> MakeVolume:
    """Wrap an array as a CT volume (or another unit) of 1 mm voxels."""

    def make(
        array: np.ndarray, unit: IntensityUnit = IntensityUnit.HU, valid: np.ndarray | None = None
    ) -> Volume:
        return Volume(array.astype(np.float32), np.eye(4), unit, valid)

    return make
