"""The cosine schedule of T = 1000 steps and its closed forms (Nichol and Dhariwal 2021, eq. 17).

The image-unit noise of step t is sigma(t) = sqrt((1 - abar) / abar); a scan whose noise is s_hat model
units IS the state of the step t with sigma(t) = s_hat, and that step has a closed form.
"""

from __future__ import annotations

import math

STEPS = 1000
"""T of the discrete chain."""
_OFFSET = 0.008
_MAX_BETA = 0.999


def _raw(t: float) -> float:
    """f(t) of the cosine schedule."""
    return math.cos((t / STEPS + _OFFSET) / (1 + _OFFSET) * math.pi / 2) ** 2


def alpha_bar(t: float) -> float:
    """Return the share of signal power left at continuous time `t` in [0, STEPS].

    The last step is limited by beta <= 0.999, so the result is positive everywhere.
    """
    if not 0 <= t <= STEPS:
        raise ValueError(f"t must lie in [0, {STEPS}], found {t}")
    floor = (1 - _MAX_BETA) * _raw(STEPS - 1) / _raw(0)
    return max(_raw(t) / _raw(0), floor)


def sigma_of_time(t: float) -> float:
    """Return the noise standard deviation of step `t` in units of the clean image."""
    abar = alpha_bar(t)
    return math.sqrt(max(1 - abar, 0.0) / abar)


def time_of_sigma(sigma: float) -> float:
    """Return the continuous time t* with sigma(t*) = `sigma`; the inverse of `sigma_of_time`.

    t* = T [(1 + s)(2/pi) arccos(sqrt(f(0) / (1 + sigma^2))) - s]. Raises `ValueError` for a negative sigma.
    """
    if sigma < 0:
        raise ValueError(f"sigma cannot be negative, found {sigma}")
    root = math.sqrt(_raw(0) / (1 + sigma * sigma))
    t = STEPS * ((1 + _OFFSET) * 2 / math.pi * math.acos(root) - _OFFSET)
    return min(max(t, 0.0), float(STEPS))


def nearest_timestep(sigma: float) -> int:
    """Return the discrete DDPM step in 1..STEPS nearest to the noise `sigma`."""
    return min(max(round(time_of_sigma(sigma)), 1), STEPS)


def descending_sigmas(start: float, steps: int, end: float = 0.0) -> list[float]:
    """Return `steps` + 1 noise levels from `start` down to `end`, evenly spaced in time t.

    Raises `ValueError` unless steps >= 1 and start > end >= 0.
    """
    if steps < 1 or not start > end >= 0:
        raise ValueError(f"cannot descend from {start} to {end} in {steps} steps")
    first, last = time_of_sigma(start), time_of_sigma(end)
    times = [first + (last - first) * i / steps for i in range(1, steps)]
    return [start, *(sigma_of_time(t) for t in times), end]
