"""Content with exact truth: geometric phantoms, and lesions inserted into real patches."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.simulation.randomness import Draw

Spacing = tuple[float, float, float]


def _grid(size: tuple[int, int, int], spacing: Spacing, device: torch.device) -> list[Tensor]:
    """Coordinates in mm of every axis, shaped to broadcast, origin at the corner."""
    axes = []
    for axis, (count, step) in enumerate(zip(size, spacing, strict=True)):
        shape = [-1 if a == axis else 1 for a in range(3)]
        axes.append((torch.arange(count, device=device, dtype=torch.float32) * step).reshape(shape))
    return axes


def _rotation(draw: Draw) -> list[list[float]]:
    """A random rotation, as rows, from a random unit quaternion."""
    q = [draw.gauss() for _ in range(4)]
    norm = math.sqrt(sum(v * v for v in q)) or 1.0
    a, b, c, d = (v / norm for v in q)
    return [
        [1 - 2 * (c * c + d * d), 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), 1 - 2 * (b * b + d * d), 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), 1 - 2 * (b * b + c * c)],
    ]


def ellipsoid(
    size: tuple[int, int, int], spacing: Spacing, radii_mm: tuple[float, float, float], draw: Draw
) -> Tensor:
    """Return the coverage in [0, 1] of a randomly placed and turned ellipsoid; edges one voxel soft."""
    axes = _grid(size, spacing, draw.device)
    rel = [g - draw.uniform(0, n * s) for g, n, s in zip(axes, size, spacing, strict=True)]
    rows = _rotation(draw)
    distance = torch.zeros(size, device=draw.device)
    for row, radius in zip(rows, radii_mm, strict=True):
        along = row[0] * rel[0] + row[1] * rel[1] + row[2] * rel[2]
        distance = distance + (along / radius) ** 2
    softness = min(radii_mm) / (0.5 * min(spacing) + 1e-6)
    return torch.sigmoid((1.0 - distance.clamp_min(1e-8).sqrt()) * softness * 2.0)


def insert_lesions(clean: Tensor, spacing: Spacing, amplitudes: tuple[float, float], draw: Draw) -> Tensor:
    """Add one to three ellipsoids of 2-12 mm and a contrast of either sign in `amplitudes`, anywhere.

    Teaches the network that unlikely small structures are signal.
    """
    size = (clean.shape[0], clean.shape[1], clean.shape[2])
    for _ in range(draw.integer(1, 3)):
        base = draw.uniform(1.0, 6.0)
        radii = (base, base * draw.uniform(0.6, 1.4), base * draw.uniform(0.6, 1.4))
        sign = 1.0 if draw.chance(0.5) else -1.0
        clean = clean + sign * draw.log_uniform(*amplitudes) * ellipsoid(size, spacing, radii, draw)
    return clean


def draw_phantom(
    size: tuple[int, int, int], spacing: Spacing, span: tuple[float, float], draw: Draw
) -> Tensor:
    """Return a random scene (Z, Y, X) of nested bodies, vessels and smooth shading, values near `span`."""
    low, high = span
    scene = torch.full(size, draw.uniform(low, high), device=draw.device)
    extent = max(n * s for n, s in zip(size, spacing, strict=True))
    for _ in range(draw.integer(4, 14)):
        base = draw.log_uniform(0.02, 0.6) * extent
        stretch = draw.log_uniform(1, 8) if draw.chance(0.4) else 1.0
        radii = (base * stretch, base * draw.uniform(0.5, 1.3), base * draw.uniform(0.5, 1.3))
        cover = ellipsoid(size, spacing, radii, draw)
        level = draw.uniform(low, high) if draw.chance(0.5) else None
        if level is None:
            scene = scene + cover * draw.gauss() * 0.08 * (high - low)
        else:
            scene = scene * (1 - cover) + level * cover
    if draw.chance(0.5):
        coarse = draw.normal((1, 1, 4, 6, 6)) * 0.02 * (high - low)
        scene = scene + F.interpolate(coarse, size=size, mode="trilinear", align_corners=True)[0, 0]
    return scene
