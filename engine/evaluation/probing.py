"""Which probes run on which crop and level, and the tables they fill."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np

from engine.diffusion.diffusion_enhancer import DiffusionEnhancer
from engine.enhancer import EnhanceOptions
from engine.evaluation import probes
from engine.evaluation.cases import NoiseLevel, Truth, noisy_case
from engine.evaluation.compare import Tell, as_denoiser
from engine.evaluation.descents import calibration, steps_table
from engine.evaluation.lesions import LesionSite, lesion_sites, lesion_table, seen_table
from engine.noise import find_tissue
from engine.volume import Volume

Row = dict[str, Any]

_LESION_CROPS = 2
"""Crops of every scan that lesions are put into."""
_SMALL = (16, 48, 48)
"""Where hundreds of evaluations are asked for."""
_STRIDE = 16
"""Distance of the places that are tried for such a part."""
_NEAR_CLEAN = (NoiseLevel(True, 1.0, False), NoiseLevel(False, 0.2, False))


def run_probes(
    enhancer: DiffusionEnhancer,
    options: EnhanceOptions,
    crops: Sequence[Truth],
    levels: Sequence[NoiseLevel],
    tell: Tell,
) -> Iterator[tuple[str, list[Row]]]:
    """Yield title and rows of every probe as it ends; one without rows is left out."""
    for title, measure in _measurements(enhancer, options, crops, levels):
        tell(f"probe: {title}")
        if rows := measure():
            yield title, rows
    tell("probe: lesions")
    denoise = as_denoiser(enhancer, options)
    sites: list[LesionSite] = []
    for level, crop in _pairs(crops, levels, _LESION_CROPS):
        sites += lesion_sites(denoise, crop, level)
    if sites:
        yield "lesion contrast recovery", seen_table(sites)
        yield "lesion contrast recovery by size and contrast", lesion_table(sites)


def _measurements(
    enhancer: DiffusionEnhancer,
    options: EnhanceOptions,
    crops: Sequence[Truth],
    levels: Sequence[NoiseLevel],
) -> list[tuple[str, Callable[[], list[Row]]]]:
    """Title and work of every probe that is a table of its own."""
    denoise = as_denoiser(enhancer, options)
    ct = [level for level in levels if level.is_ct]
    clean = [level for level in _NEAR_CLEAN if any(v.is_ct is level.is_ct for v in levels)]
    first = [(level, smaller(crop)) for level, crop in _pairs(crops, _middle(levels), 1)]
    return [
        ("sharpness of rods", lambda: [r for v in ct for r in probes.rod_sharpness(denoise, v)]),
        ("uniform body", lambda: [probes.texture(denoise, v) for v in levels]),
        ("blobs in the error of a head phantom", lambda: [probes.anatomy_blobs(denoise, v) for v in ct]),
        ("near-clean input (below 0.3)", lambda: [probes.near_clean_change(denoise, v) for v in clean]),
        ("do no harm", lambda: [probes.do_no_harm(denoise, noisy_case(c, v)) for v, c in first]),
        (
            "calibration of the stated deviation",
            lambda: [
                r
                for v, c in _pairs(crops, levels, 1)
                for r in calibration(noisy_case(c, v), enhancer, options)
            ],
        ),
        (
            "PSNR against steps",
            lambda: [
                {"scan": c.scan, **r} for v, c in first for r in steps_table(noisy_case(c, v), enhancer)
            ],
        ),
    ]


def smaller(crop: Truth) -> Truth:
    """Return the part of a crop that holds most tissue, at most 16x48x48: without tissue a model refuses."""
    tissue = find_tissue(crop.volume).astype(np.float32)
    size = tuple(min(n, m) for n, m in zip(tissue.shape, _SMALL, strict=True))
    starts = product(*(range(0, n - m + 1, _STRIDE) for n, m in zip(tissue.shape, size, strict=True)))
    parts = [tuple(slice(first, first + m) for first, m in zip(start, size, strict=True)) for start in starts]
    at = max(parts, key=lambda part: float(tissue[part].sum()))
    volume = Volume(np.ascontiguousarray(crop.volume.array[at]), crop.volume.affine, crop.volume.unit)
    return replace(crop, volume=volume, body=np.ascontiguousarray(crop.body[at]))


def _pairs(crops: Sequence[Truth], levels: Sequence[NoiseLevel], most: int) -> list[tuple[NoiseLevel, Truth]]:
    """Every level with the first crops of every scan of its modality."""
    return [(v, c) for v in levels for c in crops if c.is_ct is v.is_ct and c.crop < most]


def _middle(levels: Sequence[NoiseLevel]) -> list[NoiseLevel]:
    """The middle level of each modality."""
    chosen = []
    for is_ct in (True, False):
        own = sorted((v for v in levels if v.is_ct is is_ct), key=lambda v: (not v.coloured, v.amount))
        coloured = [v for v in own if v.coloured] or own
        if coloured:
            chosen.append(coloured[len(coloured) // 2])
    return chosen
