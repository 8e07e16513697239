"""PSNR against the number of network evaluations, and how well the stated deviation fits the error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from engine.diffusion.diffusion_enhancer import DiffusionEnhancer
from engine.enhancer import EnhanceOptions
from engine.errors import OutOfRangeError
from engine.evaluation import metrics
from engine.evaluation.cases import NoisyCase

Row = dict[str, Any]
Extra = Mapping[str, str | int]

DESCENTS: tuple[Extra, ...] = (
    {"mode": "mean"},
    {"mode": "refine", "steps": 2},
    {"mode": "refine", "steps": 4},
    {"mode": "refine", "steps": 10},
    {"mode": "sample", "steps": 50, "repeats": 1},
    {"mode": "sample", "steps": 50, "repeats": 4},
    {"mode": "sample", "steps": 50, "repeats": 8},
)
"""`mean` is the network as a plain regression: one evaluation, nothing drawn."""
_PARTS = 5


def steps_table(
    case: NoisyCase, enhancer: DiffusionEnhancer, descents: Sequence[Extra] = DESCENTS
) -> list[Row]:
    """Return PSNR in the body and seconds of every descent on one case; a refused one has no figures."""
    body = case.body if case.body.any() else None
    rows: list[Row] = []
    for extra in descents:
        row: Row = {"level": case.level.label, "mode": extra["mode"], "K": int(extra.get("repeats", 1))}
        try:
            out = enhancer.enhance(case.noisy, options=EnhanceOptions(strength=1.0, extra=extra))
        except OutOfRangeError:
            rows.append(row | {"evaluations": 0, "psnr": None, "seconds": None})
            continue
        rows.append(
            row
            | {
                "evaluations": int(out.report.parameters["evaluations"]),
                "psnr": metrics.psnr(out.volume.array, case.truth, case.value_range, body),
                "seconds": out.report.seconds,
            }
        )
    return rows


def calibration(case: NoisyCase, enhancer: DiffusionEnhancer, options: EnhanceOptions) -> list[Row]:
    """Return five rows, from the surest fifth of the body's voxels to the least: stated deviation, RMS error.

    Empty when the scan is refused or nothing is stated.
    """
    try:
        out = enhancer.enhance(case.noisy, options=options)
    except OutOfRangeError:
        return []
    if out.uncertainty is None or not case.body.any():
        return []
    stated = out.uncertainty[case.body].astype(np.float64)
    error = (out.volume.array - case.truth)[case.body].astype(np.float64)
    rows = []
    for number, part in enumerate(np.array_split(np.argsort(stated, kind="stable"), _PARTS)):
        said = float(np.sqrt(np.mean(stated[part] ** 2)))
        real = float(np.sqrt(np.mean(error[part] ** 2)))
        rows.append(
            {
                "noise": case.level.label,
                "fifth": number + 1,
                "stated": said,
                "RMS error": real,
                "error / stated": real / max(said, 1e-12),
                "within 1.96": float(np.mean(np.abs(error[part]) <= 1.96 * stated[part])),
            }
        )
    return rows
