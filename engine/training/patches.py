"""Clean patches: crops of scans, thicker slices, other scales, turned and altered, and phantoms."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.simulation.phantoms import draw_phantom, insert_lesions
from engine.simulation.randomness import Draw
from engine.training.config import TrainingConfig
from engine.training.volumes import TrainingVolume

Size = tuple[int, int, int]
Spacing = tuple[float, float, float]
_TRIES = 4
_STRETCHED = 0.08
_SPACING_ERROR = 0.35
"""Share of patches told a thinner slice than theirs: real thin slices differ as much as thick ones."""
_MAX_MODEL_CT = 12.3
"""3071 HU in model units."""


@dataclass(frozen=True)
class CleanPatch:
    """A target.

    image        (slices, rows, columns) fp32 model units
    spacing_mm   (slice, row, column) after resampling
    noise        what is left of the scan's own noise, model units
    """

    image: Tensor
    is_ct: bool
    spacing_mm: Spacing
    noise: float


class PatchSource:
    """Draws clean patches from the volumes of a run."""

    def __init__(self, volumes: list[TrainingVolume], config: TrainingConfig, draw: Draw) -> None:
        self._by_modality = {flag: [v for v in volumes if v.is_ct is flag] for flag in (True, False)}
        self._config, self._draw = config, draw

    def clean(self, size: Size) -> CleanPatch:
        """Return one augmented patch of `size`."""
        draw, config = self._draw, self._config
        is_ct = draw.chance(config.ct_share)
        if not self._by_modality[is_ct] or draw.chance(config.phantom_share):
            patch = self._phantom(size, is_ct=is_ct)
        else:
            patch = self._real(size, is_ct=is_ct)
        if draw.chance(config.lesion_share):
            span = (0.02, 0.32) if patch.is_ct else (0.1, 0.8)
            image = insert_lesions(patch.image, patch.spacing_mm, span, draw)
            patch = CleanPatch(image, patch.is_ct, patch.spacing_mm, patch.noise)
        image = patch.image if patch.is_ct else patch.image.clamp_min(0.0)
        return CleanPatch(image.contiguous(), patch.is_ct, patch.spacing_mm, patch.noise)

    def _phantom(self, size: Size, *, is_ct: bool) -> CleanPatch:
        draw = self._draw
        edge = draw.log_uniform(0.5, 1.2)
        spacing = (edge * (draw.log_uniform(1, 6) if draw.chance(0.6) else 1.0), edge, edge)
        span = ((-4.0, 3.0) if draw.chance(0.3) else (-0.5, 0.6)) if is_ct else (0.0, 4.0)
        return CleanPatch(draw_phantom(size, spacing, span, draw), is_ct, spacing, 0.0)

    def _real(self, size: Size, *, is_ct: bool) -> CleanPatch:
        draw = self._draw
        pool = self._by_modality[is_ct]
        volume = pool[draw.pick([v.source.weight for v in pool])]
        if not is_ct and draw.chance(volume.source.as_ct):
            return _as_ct(crop(volume, size, draw), draw)
        patch = crop(volume, size, draw)
        for _ in range(_TRIES):
            if _has_anatomy(patch) or draw.chance(0.1):
                break
            patch = crop(volume, size, draw)
        return CleanPatch(_alter(patch, draw), is_ct, patch.spacing_mm, patch.noise)


def crop(volume: TrainingVolume, size: Size, draw: Draw) -> CleanPatch:
    """Cut, average, rescale and turn a patch out of a scan."""
    array, spacing = volume.array, volume.spacing_mm
    if volume.isotropic:
        order = [(0, 1, 2), (1, 0, 2), (2, 0, 1)][draw.integer(0, 2)]
        array = array.permute(order)
        spacing = (spacing[order[0]], spacing[order[1]], spacing[order[2]])
    halve = draw.chance(volume.source.halve)
    pool = [1, 2, 2] if halve else [1, 1, 1]
    pool[0] = draw.integer(1, volume.source.average)
    if halve and volume.isotropic:
        pool[0] = max(pool[0], 2)
    grow = _growth(volume, pool, draw)
    need = [math.ceil(n / g) * p for n, g, p in zip(size, grow, pool, strict=True)]
    image = _cut(array, need, draw).float() * volume.step
    if array.shape[0] == 1:
        image = _slide(image, draw)
    image = image[None, None]
    if max(pool) > 1:
        image = F.avg_pool3d(image, pool)
    if max(grow) > 1.0:
        image = F.interpolate(image, size=size, mode="trilinear", align_corners=False)
    image = _turn(image[0, 0, : size[0], : size[1], : size[2]], draw)
    noise = volume.noise / math.sqrt(math.prod(pool))
    step = tuple(s * p / g for s, p, g in zip(spacing, pool, grow, strict=True))
    told = step[0] * (draw.log_uniform(0.4, 1.0) if draw.chance(_SPACING_ERROR) else 1.0)
    return CleanPatch(image, volume.is_ct, (told, step[1], step[2]), noise)


def _growth(volume: TrainingVolume, pool: list[int], draw: Draw) -> tuple[float, float, float]:
    """Magnification per axis; interpolated slices are smoother than measured ones, so they stay rare."""
    inplane = draw.uniform(1.05, 1.4) if draw.chance(0.3) else 1.0
    along = 1.0
    thick = volume.spacing_mm[0] * pool[0] / (volume.spacing_mm[1] * pool[1])
    if thick > 2.0 and volume.array.shape[0] > 1 and draw.chance(_STRETCHED):
        along = draw.uniform(1.3, min(thick, 4.0))
    return along, inplane, inplane


def _cut(array: Tensor, need: list[int], draw: Draw) -> Tensor:
    """Return a block of `need` voxels; short axes are mirrored."""
    starts = [draw.integer(0, max(n - k, 0)) for n, k in zip(array.shape, need, strict=True)]
    block = array
    for axis, (start, k) in enumerate(zip(starts, need, strict=True)):
        if array.shape[axis] >= k:
            block = block.narrow(axis, start, k)
    for axis, k in enumerate(need):
        n = array.shape[axis]
        if n < k:
            index = (torch.arange(k, device=array.device) + draw.integer(0, 2 * n)) % (2 * n)
            block = block.index_select(axis, torch.where(index < n, index, 2 * n - 1 - index))
    return block


def _slide(image: Tensor, draw: Draw) -> Tensor:
    """Turn copies of one slice into neighbouring slices by a smooth, slowly growing warp."""
    z, y, x = image.shape
    steps = torch.cumsum(torch.cumsum(draw.normal((z, 2)), 0) * 0.15, 0)
    steps = (steps - steps.mean(0)) / steps.abs().amax(0).clamp_min(1e-3) * draw.log_uniform(2.0, 25.0)
    field = F.interpolate(draw.normal((1, 2, 5, 5)), size=(y, x), mode="bicubic", align_corners=True)[0]
    base_y = torch.linspace(-1, 1, y, device=image.device)[None, :, None]
    base_x = torch.linspace(-1, 1, x, device=image.device)[None, None, :]
    grid_y = base_y + steps[:, 0, None, None] * field[0] * 2 / y
    grid_x = base_x + steps[:, 1, None, None] * field[1] * 2 / x
    grid = torch.stack((grid_x.expand(z, y, x), grid_y.expand(z, y, x)), dim=-1)
    return F.grid_sample(
        image[:, None], grid, mode="bilinear", padding_mode="reflection", align_corners=True
    )[:, 0]


def _turn(image: Tensor, draw: Draw) -> Tensor:
    """Flip every axis at random and turn square slices by a right angle."""
    flips = [axis for axis in range(3) if draw.chance(0.5)]
    if flips:
        image = image.flip(flips)
    if image.shape[1] == image.shape[2] and draw.chance(0.5):
        image = image.transpose(1, 2)
    return image


def _has_anatomy(patch: CleanPatch) -> bool:
    """Whether a fair share of the patch is not air."""
    level = -2.5 if patch.is_ct else 0.3
    return float((patch.image > level).float().mean()) > 0.25


def _alter(patch: CleanPatch, draw: Draw) -> Tensor:
    """Vary gain and offset (CT), or gain, gamma and bias field (MR)."""
    image = patch.image
    if patch.is_ct:
        return image * draw.uniform(0.98, 1.02) + draw.uniform(-0.08, 0.08)
    if draw.chance(0.5):
        image = 4.0 * (image.clamp_min(0.0) / 4.0) ** draw.uniform(0.8, 1.2)
    if draw.chance(0.4):
        coarse = draw.normal((1, 1, 2, 3, 3)) * 0.12
        field = F.interpolate(coarse, size=image.shape, mode="trilinear", align_corners=True)[0, 0]
        image = image * torch.exp(field)
    return image * draw.uniform(0.7, 1.3)


def _as_ct(patch: CleanPatch, draw: Draw) -> CleanPatch:
    """Show MR anatomy through a random CT-like grey scale: more shapes for CT."""
    low = -4.0 if draw.chance(0.4) else draw.uniform(-0.6, 0.0)
    high = draw.uniform(0.2, 1.2) if draw.chance(0.8) else draw.uniform(1.2, 5.0)
    gain = (high - low) / 4.0
    image = (low + patch.image * gain).clamp(max=_MAX_MODEL_CT)
    return CleanPatch(image, True, patch.spacing_mm, patch.noise * abs(gain))
