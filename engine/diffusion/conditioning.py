"""What the network is told of a scan besides its voxels: noise level and colour, modality, spacing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.diffusion.haar import haar_split
from engine.diffusion.network import COLOUR_SIZE

_FINE = ((4,), (2, 1), (3,), (6, 5), (7,))
"""Level-1 bands pooled: slices; rows or columns; both; slices with one of them; all three."""
_COARSE = ((4,), (2, 1), (3,))
"""Level-2 bands pooled in the same way."""
COLOUR_RANGE = (-4.0, 1.5)
"""Natural log of band noise over total noise is clamped to this range."""


@dataclass(frozen=True)
class Condition:
    """Facts of each volume of a batch.

    noise    (N,) estimated noise of the scan, model units
    colour   (N, COLOUR_SIZE) log band noise over total noise, all zero when unknown
    is_ct    (N,) 1.0 for CT, 0.0 for MR
    spacing  (N, 2) log(slice spacing / pixel spacing), log of the mean voxel edge in mm
    """

    noise: Tensor
    colour: Tensor
    is_ct: Tensor
    spacing: Tensor

    def vector(self, sigma: Tensor) -> Tensor:
        """Return the (N, CONDITION_SIZE) conditioning vector for a state with noise `sigma` (N,)."""
        level = torch.stack((torch.log(sigma.clamp_min(1e-4)), torch.log(self.noise.clamp_min(1e-4))), dim=1)
        modality = torch.stack((self.is_ct, 1.0 - self.is_ct), dim=1)
        return torch.cat((0.5 * level, self.colour, modality, self.spacing), dim=1).float()


def colour_groups(first: Tensor, second: Tensor) -> Tensor:
    """Pool the noise power of Haar bands into the colour descriptor's groups.

    first, second: (N, 8) noise power per band of levels 1 and 2. Result: (N, COLOUR_SIZE) power.
    """
    pooled = [first[:, list(group)].mean(dim=1) for group in _FINE]
    pooled += [second[:, list(group)].mean(dim=1) for group in _COARSE]
    return torch.stack(pooled, dim=1)


def haar_power(noise: Tensor) -> Tensor:
    """Return the mean power of noise (N, 1, Z, Y, X) in every group of the descriptor, (N, COLOUR_SIZE)."""
    first = haar_split(noise)
    second = haar_split(first[:, :1])
    dims = (2, 3, 4)
    return colour_groups(first.square().mean(dims), second.square().mean(dims))


def noise_colour(noise: Tensor, reference: Tensor | None = None) -> Tensor:
    """Return the colour descriptor (N, COLOUR_SIZE) of pure noise (N, 1, Z, Y, X).

    Sizes are multiples of 4. `reference` (N,) is the total noise to compare with; without it the noise's
    own RMS. Pure white noise gives zeros.
    """
    power = haar_power(noise)
    total = noise.square().mean((1, 2, 3, 4)) if reference is None else reference.square()
    ratio = 0.5 * torch.log(power.clamp_min(1e-12) / total.clamp_min(1e-12)[:, None])
    if ratio.shape[1] != COLOUR_SIZE:
        raise ValueError("the colour descriptor and the network disagree on its length")
    return ratio.clamp(*COLOUR_RANGE)
