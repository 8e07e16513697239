"""CT noise: coloured by the reconstruction kernel, varying through the body, in the image domain.

Noise filtered by the square root of a noise power spectrum times a local SD map agrees with projection
insertion closely enough for training; the parameters below are the published ranges.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.simulation.randomness import Draw


@dataclass(frozen=True)
class CtNoiseShape:
    """How CT noise is distributed over frequency.

    The in-plane power is f^rise exp(-(f / cut)^fall) with f in units of Nyquist, or a Gaussian of `blur`
    voxels when `blur` is positive; `white` is the share of white noise; `along` the Gaussian correlation
    length between slices, in slices.
    """

    rise: float = 0.0
    cut: float = math.inf
    fall: float = 2.0
    blur: float = 0.0
    white: float = 0.0
    along: float = 0.0


def draw_ct_shape(draw: Draw) -> CtNoiseShape:
    """Draw a noise shape: one in four white, one in five Gaussian-blurred, the rest of a ramp kernel."""
    kind = draw.uniform(0, 1)
    if kind < 0.25:
        return CtNoiseShape()
    along = draw.uniform(0.3, 1.3) if draw.chance(0.5) else 0.0
    if kind < 0.47:
        return CtNoiseShape(blur=draw.uniform(0.35, 1.5), along=along, white=draw.uniform(0, 0.1))
    return CtNoiseShape(
        rise=draw.uniform(0.2, 1.3),
        cut=draw.uniform(0.2, 1.0),
        fall=draw.uniform(2, 6),
        white=draw.uniform(0.02, 0.15),
        along=along,
    )


def coloured_noise(size: tuple[int, int, int], shape: CtNoiseShape, draw: Draw) -> Tensor:
    """Return Gaussian noise (Z, Y, X) of unit variance in expectation with the power of `shape`."""
    white = draw.normal(size)
    if shape == CtNoiseShape():
        return white
    power = _half_power(size, shape, draw.device)
    # One axis at a time: the 3D real transform of torch 2.13 overran its buffer on a 16x512x512 CPU tensor.
    spectrum = torch.fft.fft(torch.fft.fft(torch.fft.rfft(white, dim=2), dim=1), dim=0) * power.sqrt()
    noise: Tensor = torch.fft.irfft(torch.fft.ifft(torch.fft.ifft(spectrum, dim=0), dim=1), n=size[2], dim=2)
    return noise


def noise_power(size: tuple[int, int, int], shape: CtNoiseShape) -> Tensor:
    """Return the power (Z, Y, X) of `shape` over the full spectrum, in FFT order, mean one."""
    z, y, x = size
    if shape == CtNoiseShape():
        return torch.ones(size)
    half = _half_power(size, shape, torch.device("cpu")).expand(z, y, -1)
    mirrored = half[:, :, 1 : x - x // 2].flip(2)
    mirrored = mirrored[torch.arange(z).neg() % z][:, torch.arange(y).neg() % y]
    return torch.cat((half, mirrored), dim=2)


def _half_power(size: tuple[int, int, int], shape: CtNoiseShape, device: torch.device) -> Tensor:
    """Power over the half spectrum of a real transform, mean one over the full spectrum."""
    z, y, x = size
    fz = torch.fft.fftfreq(z, device=device)[:, None, None] * 2
    fy = torch.fft.fftfreq(y, device=device)[None, :, None] * 2
    fx = torch.fft.rfftfreq(x, device=device)[None, None, :] * 2
    f = torch.sqrt(fy * fy + fx * fx)
    if shape.blur > 0:
        power = torch.exp(-((math.pi * shape.blur * f) ** 2))
    else:
        power = f.clamp_min(1e-3) ** shape.rise * torch.exp(-((f / shape.cut) ** shape.fall))
    power = power / _mean_power(power, x) * (1 - shape.white) + shape.white
    power = power * torch.exp(-((math.pi * shape.along * fz) ** 2))
    return power / _mean_power(power.expand(z, y, -1), x)


def _mean_power(power: Tensor, columns: int) -> Tensor:
    """Mean over the full spectrum of a half spectrum with `columns` columns in the image."""
    weight = torch.full((power.shape[-1],), 2.0, device=power.device)
    weight[0] = 1.0
    if columns % 2 == 0:
        weight[-1] = 1.0
    return (power * weight).mean(dim=(0, 1)).sum() / columns


def noise_map(body: Tensor, draw: Draw) -> Tensor:
    """Return the local noise SD relative to the volume's, (Z, Y, X), mean near one.

    `body`: (Z, Y, X) in [0, 1], 1 inside the patient. Noise is higher deep in the body (longer water
    path), has smooth gradients in-plane, and ripples along slices with the tube current.
    """
    size = body.shape
    depth = body[None, None]
    if min(size) >= 8:
        depth = F.avg_pool3d(depth, 8, ceil_mode=True)
    depth = F.interpolate(depth, size=size, mode="trilinear")[0, 0]
    log_map = draw.uniform(0.0, 0.6) * (depth - 0.7)
    for axis, amplitude in ((1, 0.25), (2, 0.25)):
        ramp = torch.linspace(-1, 1, size[axis], device=body.device)
        log_map = log_map + draw.uniform(-amplitude, amplitude) * ramp.reshape(
            [-1 if a == axis else 1 for a in range(3)]
        )
    slices = torch.arange(size[0], device=body.device) / max(size[0], 1)
    ripple = torch.sin(2 * math.pi * (draw.uniform(0.3, 2) * slices + draw.uniform(0, 1)))
    log_map = log_map + draw.uniform(0, 0.12) * ripple[:, None, None] + draw.uniform(-0.2, 0.2)
    return torch.exp(log_map)
