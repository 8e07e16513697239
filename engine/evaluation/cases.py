"""Noisy volumes with known truth: scans of a folder plus simulated noise of named levels."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from engine.errors import EngineInputError
from engine.evaluation.metrics import Array, Mask, foreground, mr_range
from engine.simulation.ct_noise import CtNoiseShape, coloured_noise
from engine.simulation.randomness import Draw
from engine.training.volumes import read_scan
from engine.volume import IntensityUnit, Volume

SOFT_KERNEL = CtNoiseShape(rise=0.8, cut=0.5, fall=3.0, white=0.08, along=0.4)
"""The coloured noise of every table: the power spectrum of a soft body kernel."""
DEFAULT_LEVELS = "ct15c,ct30c,ct60c,ct30w,mr3,mr7,mr12"
_LEVEL = re.compile(r"^(ct)(\d+(?:\.\d+)?)([cw])$|^(mr)(\d+(?:\.\d+)?)$")


@dataclass(frozen=True)
class NoiseLevel:
    """CT: `amount` in HU. MR: `amount` in percent of the foreground's 99.5th percentile."""

    is_ct: bool
    amount: float
    coloured: bool

    @property
    def label(self) -> str:
        """How tables call it."""
        if not self.is_ct:
            return f"MR {self.amount:g} % Rician"
        return f"CT {self.amount:g} HU {'coloured' if self.coloured else 'white'}"


@dataclass(frozen=True)
class NoisyCase:
    """One volume at one level. `sigma` is the true noise in the volume's unit."""

    scan: str
    level: NoiseLevel
    truth: Array
    noisy: Volume
    sigma: float
    value_range: float
    body: Mask


def parse_levels(text: str) -> list[NoiseLevel]:
    """Read levels such as ``ct30c,ct30w,mr7``. Raises `EngineInputError` naming the first bad one."""
    levels = []
    for item in text.split(","):
        match = _LEVEL.match(item.strip().lower())
        if match is None:
            raise EngineInputError(f"noise level {item!r} is not like ct30c, ct30w or mr7")
        if match[1]:
            levels.append(NoiseLevel(True, float(match[2]), match[3] == "c"))
        else:
            levels.append(NoiseLevel(False, float(match[5]), False))
    return levels


def load_scan(path: Path, crop: tuple[int, int, int] | None = None) -> Volume:
    """Read a scan as a volume, its centre cut to `crop` (slices, rows, columns)."""
    scan = read_scan(path)
    array = scan.array
    if scan.unit is IntensityUnit.HU:
        array = np.clip(array, -1024, 3071)
    if crop is not None:
        starts = [max(0, (n - c) // 2) for n, c in zip(array.shape, crop, strict=True)]
        array = array[tuple(slice(s, s + c) for s, c in zip(starts, crop, strict=True))]
    affine = np.diag([*scan.spacing_mm, 1.0])
    return Volume(np.ascontiguousarray(array, dtype=np.float32), affine, scan.unit)


def noisy_cases(name: str, scan: Volume, levels: list[NoiseLevel], seed: int = 0) -> Iterator[NoisyCase]:
    """Yield the scan at every level of its modality, one fixed noise realisation each."""
    is_ct = scan.unit is IntensityUnit.HU
    value_range = 2000.0 if is_ct else mr_range(scan.array)
    for number, level in enumerate(levels):
        if level.is_ct is not is_ct:
            continue
        draw = Draw(seed * 1000 + number)
        noisy, sigma = add_noise(scan.array, level, value_range, draw)
        yield NoisyCase(
            name,
            level,
            scan.array,
            scan.with_array(noisy),
            sigma,
            value_range,
            foreground(scan.array, is_ct=is_ct),
        )


def add_noise(truth: Array, level: NoiseLevel, value_range: float, draw: Draw) -> tuple[Array, float]:
    """Return the noisy array and the noise deviation in its unit."""
    size = (truth.shape[0], truth.shape[1], truth.shape[2])
    clean = torch.from_numpy(truth)
    if level.is_ct:
        shape = SOFT_KERNEL if level.coloured else CtNoiseShape()
        return (clean + level.amount * coloured_noise(size, shape, draw)).numpy(), level.amount
    sigma = level.amount / 100.0 * value_range
    noisy = torch.hypot(clean + sigma * draw.normal(size), sigma * draw.normal(size))
    return noisy.numpy(), sigma
