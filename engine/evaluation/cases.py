"""Noisy volumes with known truth: crops of the scans of a folder plus simulated noise of named levels."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch

from engine.errors import EngineInputError
from engine.evaluation.metrics import CT_RANGE_HU, Array, Mask, foreground, mr_range
from engine.simulation.ct_noise import CtNoiseShape, coloured_noise
from engine.simulation.randomness import Draw
from engine.training.volumes import read_scan
from engine.volume import IntensityUnit, Volume

Shape = tuple[int, int, int]

SOFT_KERNEL = CtNoiseShape(rise=0.8, cut=0.5, fall=3.0, white=0.08, along=0.4)
"""The coloured noise of every table: the power spectrum of a soft body kernel."""
DEFAULT_LEVELS = "ct15c,ct30c,ct60c,ct30w,mr3,mr7,mr12"
_LEVEL = re.compile(r"^(ct)(\d+(?:\.\d+)?)([cw])$|^(mr)(\d+(?:\.\d+)?)$")
_LEAST_BODY = 0.5
"""A crop holds at least this share of body, where the scan has such places."""


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

    @property
    def shape(self) -> CtNoiseShape:
        """The colour of the noise."""
        return SOFT_KERNEL if self.coloured else CtNoiseShape()

    def sigma(self, value_range: float) -> float:
        """Standard deviation in the volume's unit (MR: of the real and the imaginary part)."""
        return self.amount if self.is_ct else self.amount / 100.0 * value_range


@dataclass(frozen=True)
class Truth:
    """One crop of a scan, without added noise. `value_range` is that of the whole scan."""

    scan: str
    crop: int
    volume: Volume
    value_range: float
    body: Mask

    @property
    def is_ct(self) -> bool:
        """Whether intensities are HU."""
        return self.volume.unit is IntensityUnit.HU


@dataclass(frozen=True)
class NoisyCase:
    """One crop at one level, one realisation. `sigma` is the true noise in the volume's unit."""

    scan: str
    level: NoiseLevel
    truth: Array
    noisy: Volume
    sigma: float
    value_range: float
    body: Mask
    crop: int = 0
    draw: int = 0

    @property
    def name(self) -> str:
        """Which crop, which noise."""
        return f"{self.scan} crop {self.crop}, {self.level.label}, draw {self.draw}"


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


def load_scan(path: Path) -> Volume:
    """Read a scan as a volume; CT is clipped to the range that scanners store."""
    scan = read_scan(path)
    array = np.clip(scan.array, -1024, 3071) if scan.unit is IntensityUnit.HU else scan.array
    affine = np.diag([*scan.spacing_mm, 1.0])
    return Volume(np.ascontiguousarray(array, dtype=np.float32), affine, scan.unit)


def truths(name: str, scan: Volume, size: Shape | None = None, count: int = 1) -> list[Truth]:
    """Cut `count` crops of `size` from the body of a scan, far apart; fewer where a scan holds fewer.

    None as size: the scan as a whole. Deterministic.
    """
    is_ct = scan.unit is IntensityUnit.HU
    value_range = CT_RANGE_HU if is_ct else mr_range(scan.array)
    body = foreground(scan.array, is_ct=is_ct)
    boxes: list[tuple[slice, ...]] = [(slice(None),) * 3] if size is None else _boxes(body, size, count)
    return [
        Truth(
            name,
            number,
            Volume(np.ascontiguousarray(scan.array[box]), scan.affine, scan.unit),
            value_range,
            np.ascontiguousarray(body[box]),
        )
        for number, box in enumerate(boxes)
    ]


def _boxes(body: Mask, size: Shape, count: int) -> list[tuple[slice, ...]]:
    """Choose places by body share, each next one the farthest from those taken (at most half overlapping)."""
    sides = [min(n, s) for n, s in zip(body.shape, size, strict=True)]
    grids = [
        sorted({*range(0, n - s + 1, max(1, s // 2)), (n - s) // 2})
        for n, s in zip(body.shape, sides, strict=True)
    ]
    starts = np.array(list(product(*grids)))
    boxes = [tuple(slice(a, a + s) for a, s in zip(start, sides, strict=True)) for start in starts.tolist()]
    share = np.array([body[box].mean() for box in boxes])
    fit = np.flatnonzero(share >= min(_LEAST_BODY, float(share.max())))
    chosen = [int(fit[np.argmax(share[fit])])]
    while len(chosen) < count:
        apart = np.abs(starts[fit, None, :] - starts[chosen][None]) / np.array(sides)
        distance = apart.max(axis=2).min(axis=1)
        if distance.max() < 0.5:
            break
        chosen.append(int(fit[np.argmax(distance + 1e-3 * share[fit])]))
    return [boxes[i] for i in chosen]


def cases_of(crops: Sequence[Truth], levels: Sequence[NoiseLevel], draws: int = 1) -> Iterator[NoisyCase]:
    """Yield every crop at every level of its modality, `draws` fixed realisations each."""
    for level in levels:
        for truth, draw in product(crops, range(draws)):
            if truth.is_ct is level.is_ct:
                yield noisy_case(truth, level, draw)


def noisy_case(truth: Truth, level: NoiseLevel, draw: int = 0) -> NoisyCase:
    """Add noise. The realisation depends on scan, crop, level and draw alone, not on what else is run."""
    seed = zlib.crc32(f"{truth.scan}/{truth.crop}/{level.label}/{draw}".encode())
    noisy, sigma = add_noise(truth.volume.array, level, truth.value_range, Draw(seed))
    return NoisyCase(
        truth.scan,
        level,
        truth.volume.array,
        truth.volume.with_array(noisy),
        sigma,
        truth.value_range,
        truth.body,
        truth.crop,
        draw,
    )


def noisy_cases(name: str, scan: Volume, levels: Sequence[NoiseLevel]) -> Iterator[NoisyCase]:
    """Yield the whole scan at every level of its modality, one realisation each."""
    return cases_of(truths(name, scan), levels)


def add_noise(truth: Array, level: NoiseLevel, value_range: float, draw: Draw) -> tuple[Array, float]:
    """Return the noisy array and the noise deviation in its unit."""
    size = (truth.shape[0], truth.shape[1], truth.shape[2])
    clean, sigma = torch.from_numpy(truth), level.sigma(value_range)
    if level.is_ct:
        return (clean + sigma * coloured_noise(size, level.shape, draw)).numpy(), sigma
    noisy = torch.hypot(clean + sigma * draw.normal(size), sigma * draw.normal(size))
    return noisy.numpy(), sigma
