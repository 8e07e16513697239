"""MR noise: complex Gaussian in k-space, seen as a magnitude (Rician), with g-factor and zero filling."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.simulation.randomness import Draw


@dataclass(frozen=True)
class MrNoiseShape:
    """How an MR image was sampled.

    sampled   share of k-space measured per axis (slices, rows, columns); the rest is zero-filled
    apodise   whether the measured part is tapered by a Hann-like window
    channels  coils combined by sum of squares (1: Rician)
    """

    sampled: tuple[float, float, float] = (1.0, 1.0, 1.0)
    apodise: bool = False
    channels: int = 1


def draw_mr_shape(draw: Draw) -> MrNoiseShape:
    """Draw a shape: seven in ten fully sampled, the others zero-filled in-plane, some tapered."""
    if draw.chance(0.7):
        return MrNoiseShape(channels=1 if draw.chance(0.92) else 4)
    inplane = draw.uniform(0.55, 1.0)
    other = inplane if draw.chance(0.6) else draw.uniform(0.55, 1.0)
    along = draw.uniform(0.6, 1.0) if draw.chance(0.35) else 1.0
    return MrNoiseShape(sampled=(along, inplane, other), apodise=draw.chance(0.5))


def filter_kspace(x: Tensor, shape: MrNoiseShape) -> Tensor:
    """Keep the measured part of k-space of `x` (Z, Y, X), real or complex; complex result."""
    # One axis at a time: a 3D transform of torch 2.13 overran its buffer on a 16x512x512 CPU tensor.
    spectrum = torch.fft.fft(torch.fft.fft(torch.fft.fft(x, dim=2), dim=1), dim=0)
    for axis, share in enumerate(shape.sampled):
        if share >= 1.0 and not (shape.apodise and axis > 0):
            continue
        f = torch.fft.fftfreq(x.shape[axis], device=x.device).abs() * 2 / share
        window = (f <= 1.0).float()
        if shape.apodise:
            window = window * (0.5 + 0.5 * torch.cos(math.pi * f.clamp(max=1.0))).clamp_min(0.0).sqrt()
        spectrum = spectrum * window.reshape([-1 if a == axis else 1 for a in range(3)])
    filtered: Tensor = torch.fft.ifft(torch.fft.ifft(torch.fft.ifft(spectrum, dim=0), dim=1), dim=2)
    return filtered


def is_full(shape: MrNoiseShape) -> bool:
    """Whether all of k-space was measured, untapered."""
    return min(shape.sampled) >= 1.0 and not shape.apodise


def g_factor_map(size: tuple[int, int, int], draw: Draw) -> Tensor:
    """Return a smooth noise amplification (Z, Y, X) of mean near one; flat half of the time."""
    if draw.chance(0.5):
        return torch.ones(size, device=draw.device)
    coarse = draw.normal((1, 1, 3, 3, 3)) * draw.uniform(0.05, 0.3)
    smooth = F.interpolate(coarse, size=size, mode="trilinear", align_corners=True)[0, 0]
    return torch.exp(smooth)


def add_mr_noise(clean: Tensor, sigma: float, shape: MrNoiseShape, draw: Draw) -> tuple[Tensor, Tensor]:
    """Return the clean image as this sampling shows it and its noisy magnitude.

    `clean`: (Z, Y, X) >= 0. `sigma`: SD of the real and imaginary noise after sampling, same unit.
    With N coils the magnitude is the root sum of squares, less its noise-only bias being left in.
    """
    size = (clean.shape[0], clean.shape[1], clean.shape[2])
    gain = g_factor_map(size, draw) * sigma
    seen = clean if is_full(shape) else filter_kspace(clean, shape).abs()
    power = torch.zeros_like(seen)
    for channel in range(shape.channels):
        noise = torch.complex(draw.normal(size), draw.normal(size))
        if not is_full(shape):
            noise = filter_kspace(noise, shape)
            noise = noise / noise.real.square().mean().sqrt().clamp_min(1e-6)
        signal = seen if channel == 0 else torch.zeros_like(seen)
        power = power + (signal + gain * noise.real).square() + (gain * noise.imag).square()
    return seen, power.sqrt()
