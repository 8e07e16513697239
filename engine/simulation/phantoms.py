"""Content with exact truth: geometric phantoms, and lesions inserted into real patches."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.simulation.randomness import Draw

Spacing = tuple[float, float, float]


class Ellipsoid(NamedTuple):
    """The coverage of an ellipsoid, given only where it is not negligible.

    box     slices of the box around it, (slices, rows, columns)
    cover   coverage in [0, 1] inside the box
    """

    box: tuple[slice, slice, slice]
    cover: Tensor


_FAINT = 4.0
"""Half the logit at which coverage is negligible (3e-4)."""


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
) -> Ellipsoid:
    """Return a randomly placed and turned ellipsoid; edges one voxel soft."""
    centre = [draw.uniform(0, n * s) for n, s in zip(size, spacing, strict=True)]
    rows = _rotation(draw)
    softness = min(radii_mm) / (0.5 * min(spacing) + 1e-6)
    growth = 1.0 + _FAINT / softness
    box, coordinates = [], []
    for axis, (count, step) in enumerate(zip(size, spacing, strict=True)):
        reach = growth * math.hypot(*(r * row[axis] for r, row in zip(radii_mm, rows, strict=True)))
        first = min(max(math.floor((centre[axis] - reach) / step), 0), count - 1)
        last = max(min(math.ceil((centre[axis] + reach) / step) + 1, count), first + 1)
        shape = [-1 if a == axis else 1 for a in range(3)]
        index = torch.arange(first, last, device=draw.device, dtype=torch.float32)
        box.append(slice(first, last))
        coordinates.append((index * step - centre[axis]).reshape(shape))
    distance: Tensor | float = 0.0
    for row, radius in zip(rows, radii_mm, strict=True):
        along = sum(r / radius * c for r, c in zip(row, coordinates, strict=True))
        distance = distance + along * along
    cover = torch.sigmoid((1.0 - distance.clamp_min(1e-8).sqrt()) * (softness * 2.0))  # type: ignore[union-attr]
    return Ellipsoid((box[0], box[1], box[2]), cover)


def insert_lesions(clean: Tensor, spacing: Spacing, amplitudes: tuple[float, float], draw: Draw) -> Tensor:
    """Add one to three ellipsoids of 2-12 mm and a contrast of either sign in `amplitudes`, anywhere.

    Teaches the network that unlikely small structures are signal.
    """
    size = (clean.shape[0], clean.shape[1], clean.shape[2])
    clean = clean.clone()
    for _ in range(draw.integer(1, 3)):
        base = draw.uniform(1.0, 6.0)
        radii = (base, base * draw.uniform(0.6, 1.4), base * draw.uniform(0.6, 1.4))
        sign = 1.0 if draw.chance(0.5) else -1.0
        contrast = sign * draw.log_uniform(*amplitudes)
        box, cover = ellipsoid(size, spacing, radii, draw)
        clean[box] += contrast * cover
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
        box, cover = ellipsoid(size, spacing, radii, draw)
        if draw.chance(0.5):
            scene[box] += (draw.uniform(low, high) - scene[box]) * cover
        else:
            scene[box] += cover * (draw.gauss() * 0.08 * (high - low))
    if draw.chance(0.5):
        coarse = draw.normal((1, 1, 4, 6, 6)) * 0.02 * (high - low)
        scene = scene + F.interpolate(coarse, size=size, mode="trilinear", align_corners=True)[0, 0]
    return scene
