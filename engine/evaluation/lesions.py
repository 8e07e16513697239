"""Lesions put into anatomy before the noise: how much of their contrast survives, by the voxel CNR they had.

Spheres of 3, 5, 8 and 12 mm stand on a grid inside the body, far enough apart not to meet. The same noise with
and without them, so only the treatment of the lesion differs. Recovery is the least-squares fit of that
difference to the true one: 1 is exact. Beyond contrasts that are fixed, three and five deviations of the
noise are put in, for no fixed one is that far above strong noise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.evaluation.cases import NoiseLevel, Truth, noisy_case
from engine.evaluation.compare import Denoise
from engine.evaluation.metrics import Array

DIAMETERS_MM = (3.0, 5.0, 8.0, 12.0)
CT_CONTRASTS_HU = (10.0, 20.0, 40.0)
MR_CONTRASTS = (0.05, 0.10)
"""Parts of R."""
CNR_CONTRASTS = (3.0, 5.0)
SEEN_CNR = 3.0
_APART_MM = 20.0
_SUBSTEPS = (-1 / 3, 0.0, 1 / 3)

Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class LesionSite:
    """One inserted sphere. `cnr` is contrast over the noise of one voxel.

    signal_in, signal_out   matched-filter response to the lesion, before and after
    noise_in, noise_out     the same filter's response to the error without a lesion
    """

    level: str
    scan: str
    diameter_mm: float
    contrast: float
    cnr: float
    recovery: float
    signal_in: float
    signal_out: float
    noise_in: float
    noise_out: float


def lesion_sites(denoise: Denoise, truth: Truth, level: NoiseLevel) -> Iterator[LesionSite]:
    """Yield every sphere of every contrast in one crop: two runs of the denoiser and one per contrast."""
    centres = _centres(truth)
    if not centres:
        return
    case = noisy_case(truth, level)
    without = denoise(case.noisy)
    kinds = [(d, s) for d in DIAMETERS_MM for s in (1.0, -1.0)]
    for turn, contrast in enumerate(_contrasts(level, case.sigma, truth.value_range)):
        chosen = [kinds[(i + turn) % len(kinds)] for i in range(len(centres))]
        covers = [coverage(truth, c, d) for c, (d, _) in zip(centres, chosen, strict=True)]
        added = np.zeros_like(truth.volume.array)
        for (box, cover), (_, sign) in zip(covers, chosen, strict=True):
            added[box] += np.float32(sign * contrast) * cover
        changed = truth.volume.array + added
        if not truth.is_ct:
            changed = np.maximum(changed, 0.0)
        with_them = noisy_case(_replaced(truth, changed), level)
        fields = (
            changed - truth.volume.array,
            denoise(with_them.noisy) - without,
            case.noisy.array - truth.volume.array,
            without - truth.volume.array,
        )
        for (box, cover), (diameter, sign) in zip(covers, chosen, strict=True):
            true, change, error_in, error_out = (f[box].astype(np.float64) for f in fields)
            power = float((true * true).sum())
            if power < 0.5 * float(
                (contrast * cover).astype(np.float64).ravel() @ (contrast * cover).ravel()
            ):
                continue  # an MR signal cannot fall below nothing
            yield LesionSite(
                level=level.label,
                scan=truth.scan,
                diameter_mm=diameter,
                contrast=sign * contrast,
                cnr=contrast / case.sigma,
                recovery=float((change * true).sum()) / power,
                signal_in=float(sign * (true * cover).sum()),
                signal_out=float(sign * (change * cover).sum()),
                noise_in=float((error_in * cover).sum()),
                noise_out=float((error_out * cover).sum()),
            )


def lesion_table(sites: Iterable[LesionSite]) -> list[dict[str, Any]]:
    """Return one row for each level, diameter and CNR: median and spread of recovery, gain in d'.

    d' is the mean response of the matched filter over the deviation of its response to noise.
    """
    groups: dict[tuple[str, float, float], list[LesionSite]] = {}
    for s in sites:
        groups.setdefault((s.level, s.diameter_mm, round(s.cnr, 3)), []).append(s)
    return [
        {"noise": level, "mm": diameter, "contrast": abs(own[0].contrast), "voxel CNR": cnr, **_figures(own)}
        for (level, diameter, cnr), own in sorted(groups.items())
    ]


def seen_table(sites: Sequence[LesionSite]) -> list[dict[str, Any]]:
    """Return recovery for each level, apart for voxel CNR of at least 3 and below."""
    rows = []
    for level in dict.fromkeys(s.level for s in sites):
        for name, seen in (("CNR >= 3", True), ("CNR < 3", False)):
            # A contrast of exactly three deviations counts as three.
            own = [s for s in sites if s.level == level and (s.cnr > SEEN_CNR - 1e-6) is seen]
            if own:
                rows.append({"noise": level, "lesions": name, **_figures(own, detectability=False)})
    return rows


def _figures(own: Sequence[LesionSite], *, detectability: bool = True) -> dict[str, float | int]:
    """Median, tenth and ninetieth percentile, count, and the gain in d'."""
    low, median, high = np.percentile([s.recovery for s in own], [10, 50, 90])
    out: dict[str, float | int] = {
        "recovery": float(median),
        "p10": float(low),
        "p90": float(high),
        "n": len(own),
    }
    if detectability:
        before = np.mean([s.signal_in for s in own]) / max(float(np.std([s.noise_in for s in own])), 1e-12)
        after = np.mean([s.signal_out for s in own]) / max(float(np.std([s.noise_out for s in own])), 1e-12)
        out["d' out / in"] = float(after / before) if len(own) >= 8 else math.nan
    return out


def _contrasts(level: NoiseLevel, sigma: float, value_range: float) -> list[float]:
    """Fixed contrasts of the modality and those of a fixed CNR."""
    fixed = list(CT_CONTRASTS_HU) if level.is_ct else [c * value_range for c in MR_CONTRASTS]
    return fixed + [c * sigma for c in CNR_CONTRASTS]


def _centres(truth: Truth) -> list[tuple[float, float, float]]:
    """Places on a grid, in index units, whose voxel and surroundings of 4 mm are body."""
    axes = []
    for n, step in zip(truth.body.shape, truth.volume.spacing_mm, strict=True):
        count = max(1, int(n * step / _APART_MM))
        axes.append([(i + 0.5) * n / count for i in range(count)])
    centres = []
    for z, y, x in product(*axes):
        around = tuple(
            slice(max(0, int(c - 4 / s)), int(c + 4 / s) + 1)
            for c, s in zip((z, y, x), truth.volume.spacing_mm, strict=True)
        )
        if truth.body[around].all():
            centres.append((z, y, x))
    return centres


def coverage(truth: Truth, centre: tuple[float, float, float], diameter_mm: float) -> tuple[Box, Array]:
    """Return the box around a sphere and the share of each of its voxels inside, from 27 points a voxel."""
    spacing, radius = truth.volume.spacing_mm, diameter_mm / 2
    ranges = [
        (max(0, math.floor(c - radius / s - 1)), min(n, math.ceil(c + radius / s + 2)))
        for c, s, n in zip(centre, spacing, truth.body.shape, strict=True)
    ]
    index = np.meshgrid(*(np.arange(a, b) for a, b in ranges), indexing="ij")
    inside: NDArray[np.float64] = np.zeros(index[0].shape)
    for shift in product(_SUBSTEPS, repeat=3):
        distance = sum(
            ((i + d - c) * s) ** 2 for i, d, c, s in zip(index, shift, centre, spacing, strict=True)
        )
        inside += distance <= radius**2
    (z0, z1), (y0, y1), (x0, x1) = ranges
    return (slice(z0, z1), slice(y0, y1), slice(x0, x1)), (inside / 27).astype(np.float32)


def _replaced(truth: Truth, array: Array) -> Truth:
    """The crop with other intensities: the same name, so the same noise."""
    volume = truth.volume.with_array(array.astype(np.float32))
    return Truth(truth.scan, truth.crop, volume, truth.value_range, truth.body)
