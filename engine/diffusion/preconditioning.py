"""The denoiser D(z; sigma): network F with data-scaled v-prediction, the skip in fp32.

D = c_skip z + c_out F with Karras et al. 2022, table 1; for sigma_data = 1 this is v-prediction on the
variance-preserving chain. In deployment sigma is far below sigma_data, so F only supplies the noise and
its errors are scaled by the noise, never by the image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.diffusion import fused
from engine.diffusion.conditioning import Condition
from engine.diffusion.haar import haar_merge, haar_split
from engine.diffusion.network import GATE_LIMIT, UNet

SIGMA_DATA = 2.5
"""RMS of the training volumes in model units."""


class Denoised(NamedTuple):
    """What the denoiser says of a state.

    mean          (N, 1, Z, Y, X) fp32, the posterior mean D in model units
    log_variance  (N, 1, Z, Y, X) fp32, log of the variance of (clean - D) in units of c_out^2
    """

    mean: Tensor
    log_variance: Tensor


def preconditioning(sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return c_skip, c_out, c_in for noise `sigma` of any shape."""
    total = sigma.square() + SIGMA_DATA**2
    return SIGMA_DATA**2 / total, sigma * SIGMA_DATA * total.rsqrt(), total.rsqrt()


def network_input(z: Tensor, pilot: Tensor, sigma: Tensor) -> Tensor:
    """Return the 24 half-resolution channels of the network, fp32.

    z, pilot: (N, 1, Z, Y, X) model units; sigma: (N, 1, 1, 1, 1). The bands of z come first, then what the
    pilot took away and the bands of z in units of the noise, compressed by asinh: bf16 keeps fine noise
    beside large intensities there. The low-pass band of z is taken as the difference from its 3x3x3
    neighbourhood.
    """
    c_in = preconditioning(sigma)[2]
    bands_z, taken = haar_split(z), haar_split(z - pilot) / sigma.clamp_min(1e-4)
    low = bands_z[:, :1]
    relative = torch.cat((low - _around(low), bands_z[:, 1:]), dim=1) / sigma.clamp_min(1e-4)
    return torch.cat((bands_z * c_in, torch.asinh(taken), torch.asinh(relative)), dim=1)


def _around(low: Tensor) -> Tensor:
    """The mean of a band over the 3x3x3 cells around each."""
    return F.avg_pool3d(F.pad(low, (1,) * 6, mode="replicate"), 3, stride=1)


@dataclass(frozen=True)
class Denoiser:
    """D(z; sigma) around a network; `precision` is the dtype of the network's convolutions."""

    network: UNet
    precision: torch.dtype = torch.float32

    def __call__(self, z: Tensor, pilot: Tensor, sigma: Tensor, condition: Condition) -> Denoised:
        """Denoise the state `z` of a scan whose first estimate is `pilot`.

        z, pilot: (N, 1, Z, Y, X) fp32 model units, spatial sizes multiples of `network.STRIDE`.
        sigma: (N,) noise of z in model units.
        """
        if self._in_kernels(z):
            return self._by_kernels(z, pilot, sigma, condition)
        raw, log_variance = self.raw(z, pilot, sigma, condition)
        level = sigma[:, None, None, None, None]
        c_skip, c_out, _ = preconditioning(level)
        mean = c_skip * z + c_out * raw
        return Denoised(mean, F.interpolate(log_variance, scale_factor=2.0, mode="nearest"))

    def _in_kernels(self, z: Tensor) -> bool:
        """Whether what comes before and after the network is done by kernels: bf16 on a GPU, no gradients."""
        gated = getattr(self.network, "gate", None) is not None
        return gated and self.precision is torch.bfloat16 and fused.usable(z) and not torch.is_grad_enabled()

    def _by_kernels(self, z: Tensor, pilot: Tensor, sigma: Tensor, condition: Condition) -> Denoised:
        """The same in a few passes over the volume."""
        low = F.avg_pool3d(z, 2) * math.sqrt(8.0)
        seen = fused.Seen(z.contiguous(), pilot.contiguous(), _around(low), sigma, SIGMA_DATA**2)
        with torch.autocast(z.device.type, dtype=torch.bfloat16):
            said = self.network.head_and_gate(seen.bands(), condition.vector(sigma))
        said = said.contiguous(memory_format=torch.channels_last_3d)
        return Denoised(*seen.denoised(said, GATE_LIMIT))

    def raw(self, z: Tensor, pilot: Tensor, sigma: Tensor, condition: Condition) -> tuple[Tensor, Tensor]:
        """Return F in the image domain (N, 1, Z, Y, X) and the half-resolution log-variance, fp32."""
        bands = network_input(z, pilot, sigma[:, None, None, None, None])
        bands = bands.contiguous(memory_format=torch.channels_last_3d)
        vector = condition.vector(sigma)
        enabled = self.precision is not torch.float32
        with torch.autocast(z.device.type, dtype=torch.bfloat16, enabled=enabled):
            out, log_variance = self.network(bands, vector)
        return haar_merge(out.float()), log_variance.float().clamp(-8.0, 4.0)
