"""Variance stabilisation of magnitude MR, so that a method made for Gaussian noise may be used on it.

The magnitude of a signal a in complex Gaussian noise of deviation 1 has mean m(a) and deviation s(a), both
in closed form. The transform is the integral of 1 / s over m (the delta method), extended in a straight
line below m(0). Its inverse is the exact unbiased one (Foi 2011): the a for which the expected transform of
the magnitude is the value given, from quadrature of Rice's density.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import ive

Array = NDArray[np.float32]
Curve = NDArray[np.float64]

_FAR = 60.0
"""Beyond this many deviations the noise is Gaussian and the transform a straight line."""


def rice_moments(a: Curve) -> tuple[Curve, Curve]:
    """Return mean and standard deviation of the magnitude of a signal `a` in noise of deviation 1."""
    half = a**2 / 4
    mean = np.sqrt(np.pi / 2) * ((1 + 2 * half) * ive(0, half) + 2 * half * ive(1, half))
    return mean, np.sqrt(np.maximum(2 + a**2 - mean**2, 1e-9))


def stabilised(denoise: Callable[[Array, float], Array], noisy: Array, sigma: float) -> Array:
    """Transform, denoise with a method for white Gaussian noise of deviation 1, and transform back."""
    magnitude, value, expected, a = _tables()
    slope = (value[1] - value[0]) / (magnitude[1] - magnitude[0])
    z = noisy.astype(np.float64) / sigma
    forward = np.interp(z, magnitude, value)
    forward = np.where(z < magnitude[0], value[0] + (z - magnitude[0]) * slope, forward)
    forward = np.where(z > magnitude[-1], value[-1] + (z - magnitude[-1]), forward)
    clean = denoise(forward.astype(np.float32), 1.0).astype(np.float64)
    back = np.interp(clean, expected, a)
    back = np.where(clean > expected[-1], a[-1] + (clean - expected[-1]), back)
    return np.asarray(back * sigma, dtype=np.float32)


@cache
def _tables() -> tuple[Curve, Curve, Curve, Curve]:
    """Magnitude and its transform; expected transform and its signal."""
    a = np.concatenate([np.linspace(0, 8, 801), np.linspace(8.2, _FAR, 260)])
    mean, deviation = rice_moments(a)
    slope = (1 / deviation[1:] + 1 / deviation[:-1]) / 2
    value = np.concatenate([[0.0], np.cumsum(np.diff(mean) * slope)])
    expected = np.array([_expected(s, mean, value) for s in a])
    return mean, value, np.maximum.accumulate(expected + 1e-9 * a), a


def _expected(a: float, magnitude: Curve, value: Curve) -> float:
    """Expectation of the transform over Rice's density."""
    z = np.linspace(max(0.0, a - 7.0), a + 7.0, 701)
    density = z * np.exp(-((z - a) ** 2) / 2) * ive(0, z * a)
    slope = (value[1] - value[0]) / (magnitude[1] - magnitude[0])
    f = np.interp(z, magnitude, value)
    f = np.where(z < magnitude[0], value[0] + (z - magnitude[0]) * slope, f)
    f = np.where(z > magnitude[-1], value[-1] + (z - magnitude[-1]), f)
    return float((f * density).sum() / density.sum())
