"""Validation during training: fixed noise on fixed crops of held-out scans, in decibels gained."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.diffusion.conditioning import Condition, noise_colour
from engine.diffusion.pilot import pilot
from engine.diffusion.preconditioning import Denoiser
from engine.simulation.ct_noise import CtNoiseShape, coloured_noise
from engine.simulation.mr_noise import MrNoiseShape, add_mr_noise
from engine.simulation.randomness import Draw
from engine.training.batches import measured_bands
from engine.training.config import SourceConfig
from engine.training.volumes import TrainingVolume, load_volumes

COLOURED = CtNoiseShape(rise=0.8, cut=0.5, fall=3.0, white=0.08, along=0.4)
"""A soft body kernel."""
_CROP = (32, 128, 128)
_CT_LEVELS = ((15.0, COLOURED), (30.0, COLOURED), (60.0, COLOURED), (30.0, CtNoiseShape()))
_MR_LEVELS = (0.03, 0.07, 0.12)


@dataclass(frozen=True)
class Case:
    """One noisy crop: images (1, 1, Z, Y, X) in model units and what the estimator would say of it."""

    name: str
    clean: Tensor
    scan: Tensor
    pilot: Tensor
    condition: Condition


def load_cases(folder: Path, patterns: tuple[str, ...], device: torch.device) -> list[Case]:
    """Build the fixed cases of a run from the files matching `patterns`."""
    volumes = load_volumes(folder, tuple(SourceConfig(match=p) for p in patterns), device)
    return [case for number, volume in enumerate(volumes) for case in _cases(volume, number)]


def _cases(volume: TrainingVolume, number: int) -> list[Case]:
    """All noise levels on the central crop of one volume."""
    draw = Draw(1000 + number, volume.array.device)
    clean = _central(volume.array).float() * volume.step
    size = (clean.shape[0], clean.shape[1], clean.shape[2])
    cases = []
    if volume.is_ct:
        for hu, shape in _CT_LEVELS:
            colour = "white" if shape == CtNoiseShape() else "coloured"
            level = hu / 250.0
            scan = clean + level * coloured_noise(size, shape, draw)
            cases.append(_case(f"CT {hu:.0f} HU {colour}", clean, scan, level, volume))
        return cases
    for share in _MR_LEVELS:
        level = share * 4.0
        seen, scan = add_mr_noise(clean, level, MrNoiseShape(), draw)
        cases.append(_case(f"MR {share:.0%}", seen, scan, level, volume))
    return cases


def _central(array: Tensor) -> Tensor:
    """Cut the centre, sizes multiples of 16."""
    for axis, wanted in enumerate(_CROP):
        length = min(wanted, array.shape[axis] // 16 * 16)
        array = array.narrow(axis, (array.shape[axis] - length) // 2, length)
    return array


def _case(name: str, clean: Tensor, scan: Tensor, level: float, volume: TrainingVolume) -> Case:
    """Attach the condition of the true noise."""
    total = torch.tensor([math.hypot(level, volume.noise)], device=clean.device)
    slice_mm, row_mm, column_mm = volume.spacing_mm
    spacing = [math.log(slice_mm / row_mm), math.log((slice_mm * row_mm * column_mm) ** (1 / 3))]
    condition = Condition(
        noise=total,
        colour=noise_colour((scan - clean)[None, None], total),
        is_ct=torch.tensor([float(volume.is_ct)], device=clean.device),
        spacing=torch.tensor([spacing], device=clean.device),
    )
    bands = measured_bands((scan - clean)[None, None], total)
    return Case(name, clean[None, None], scan[None, None], pilot(scan[None, None], *bands), condition)


@torch.no_grad()
def validate(denoiser: Denoiser, cases: list[Case]) -> dict[str, float]:
    """Return the PSNR gain in dB of every case and their mean under ``mean``."""
    gains = {}
    for case in cases:
        out = denoiser(case.scan, case.pilot, case.condition.noise, case.condition).mean
        before = (case.scan - case.clean).square().mean()
        after = (out - case.clean).square().mean()
        gains[case.name] = 10.0 * math.log10(float(before / after))
    gains["mean"] = sum(gains.values()) / max(len(gains), 1)
    return gains
