"""One update rule from the scan to its denoised image, z' = D + rho (z - D), in image units.

Deterministic methods differ only in rho: (s'/s)^1 is DDIM, (s'/s)^2 is the DDPM mean without re-noising.
The noise part of z stays a scaled copy of the scanner's own noise, so coloured noise stays coloured.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Denoise = Callable[[Tensor, float], Tensor]
"""D(z, sigma): both of one shape."""


def sample_mean(denoise: Denoise, y: Tensor, sigma: float) -> Tensor:
    """Return the posterior mean D(y, sigma): one evaluation."""
    return denoise(y, sigma)


def refine(denoise: Denoise, y: Tensor, sigmas: Sequence[float], power: float = 2.0) -> Tensor:
    """Descend deterministically from the scan `y` at `sigmas[0]`.

    `sigmas`: strictly descending, last 0; len - 1 evaluations. `power` 2 keeps a Gaussian prior's
    posterior mean on any grid, 1 is the probability flow of DDIM. Raises `ValueError` if not descending.
    """
    _check(sigmas)
    z = y
    for now, after in itertools.pairwise(sigmas):
        mean = denoise(z, now)
        z = mean + (after / now) ** power * (z - mean)
    return z


def sample_ancestral(
    denoise: Denoise, y: Tensor, sigmas: Sequence[float], normal: Callable[[Tensor], Tensor]
) -> Tensor:
    """Draw one posterior sample by ancestral DDPM steps from `y` at `sigmas[0]`.

    `normal` returns white noise shaped like its argument. The steps add white noise of SD
    s' sqrt(1 - (s'/s)^2) to the deterministic update with power 2.
    """
    _check(sigmas)
    z = y
    for now, after in itertools.pairwise(sigmas):
        mean = denoise(z, now)
        ratio = after / now
        z = mean + ratio**2 * (z - mean)
        if after > 0:
            z = z + after * math.sqrt(1 - ratio**2) * normal(z)
    return z


def sample_average(
    denoise: Denoise, y: Tensor, sigmas: Sequence[float], normal: Callable[[Tensor], Tensor], repeats: int
) -> tuple[Tensor, Tensor]:
    """Return the mean and standard deviation of `repeats` ancestral samples (deviation 0 for one)."""
    mean, squares = torch.zeros_like(y), torch.zeros_like(y)
    for count in range(1, repeats + 1):
        sample = sample_ancestral(denoise, y, sigmas, normal)
        change = sample - mean
        mean = mean + change / count
        squares = squares + change * (sample - mean)
    return mean, (squares / max(repeats - 1, 1)).sqrt()


def blend_strength(denoised: Tensor, y: Tensor, strength: float) -> Tensor:
    """Return D + (1 - strength)(y - D): keeps a linear, auditable share of the scanner's own texture."""
    return denoised + (1.0 - strength) * (y - denoised)


def _check(sigmas: Sequence[float]) -> None:
    """Refuse grids that do not descend to zero."""
    if len(sigmas) < 2 or sigmas[-1] != 0 or any(b >= a for a, b in itertools.pairwise(sigmas)):
        raise ValueError("sigmas must descend strictly to zero")
