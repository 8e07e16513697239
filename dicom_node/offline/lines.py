"""One input along its line: read, enhance, guard, write, verify. DICOM series take the pipeline's own."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from dicom_node import __version__
from dicom_node.errors import DeriveError, Reason
from dicom_node.imaging.nifti import Axes, read_nifti, to_stored, write_nifti
from dicom_node.imaging.verify_nifti import verify_nifti
from dicom_node.offline.inputs import Item, NiftiItem, SeriesItem
from dicom_node.offline.memory import PeakMemory
from dicom_node.offline.request import MINIMUM_SLICES
from dicom_node.pipeline.attempt import AttemptSpec, SourceFile
from dicom_node.pipeline.stages import (
    StageClock,
    StageListener,
    check,
    data_set_digest,
    enhance,
    run_attempt,
    uncertainty_of,
)
from engine.enhancer import CancelToken, EnhanceOptions, Enhancer, Progress
from engine.volume import Volume

_DICOM_AXES: Final[Axes] = (2, 1, 0)  # columns first, as NIfTI files of axial slices usually are
_BEGINS: Final = {"READ": 0.0, "ENHANCE": 0.05, "GUARD": 0.85, "DERIVE": 0.9, "WRITE": 0.9, "VERIFY": 0.95}


@dataclass(frozen=True)
class Work:
    """What is the same for every input of one run."""

    enhancer: Enhancer
    options: EnhanceOptions
    model: str
    progress: Progress


@dataclass(frozen=True)
class Enhanced:
    """What became of one input: facts for the report (JSON-ready), and the uncertainty map if there is one.

    axes  the file axes of slice, row and column that the map is to have
    """

    facts: Mapping[str, Any]
    uncertainty: Volume | None
    axes: Axes


def enhance_item(item: Item, target: Path, work: Work) -> Enhanced:
    """Enhance one input into `target`, a file for NIfTI and a new folder for DICOM.

    Raises what the stages raise: `ReasonedError`, `NiftiError`, `EngineError`, `OSError`.
    """
    memory = PeakMemory()
    done = (
        _enhance_nifti(item, target, work)
        if isinstance(item, NiftiItem)
        else _enhance_series(item, target, work)
    )
    facts = {**done.facts, "metrics": _metrics(done.facts), "memory": memory.as_json()}
    facts["seconds"] = {**facts["seconds"], "TOTAL": round(sum(facts["seconds"].values()), 3)}
    return Enhanced(facts, done.uncertainty, done.axes)


def _enhance_nifti(item: NiftiItem, target: Path, work: Work) -> Enhanced:
    """The line for a NIfTI file; `target` is a temporary name."""
    clock = StageClock(_stage_listener(work.progress))
    cancel = CancelToken()
    with clock.stage("READ"):
        source = read_nifti(item.path, item.modality)
    with clock.stage("ENHANCE"):
        result = enhance(source.volume, work.enhancer, work.options, _within(work.progress), cancel)
    with clock.stage("GUARD"):
        guards = check(source.volume, result)
    with clock.stage("WRITE"):
        write_nifti(target, source, to_stored(source, result.volume), compressed=item.compressed)
    with clock.stage("VERIFY"):
        verified = verify_nifti(target, source, result.volume)
    if not verified.passed:
        failed = ", ".join(f"{c.number} {c.title}" for c in verified.checks if not c.passed)
        raise DeriveError(Reason.VERIFY_FAILED, f"Assertions failed: {failed}.")
    facts = {
        "modality": item.modality,
        "shape": list(source.volume.array.shape),
        "spacing_mm": list(source.volume.spacing_mm),
        "unit": str(source.volume.unit),
        "stored_type": str(source.stored.dtype),
        "slice_axis": source.axes[0],
        "noise_before": result.report.noise_before,
        "noise_after": result.report.noise_after,
        "parameters": dict(result.report.parameters),
        "seconds": clock.seconds,
        "guards": guards.as_json(),
        "verification": verified.as_json(),
    }
    return Enhanced(facts, uncertainty_of(source.volume, result), source.axes)


def _enhance_series(item: SeriesItem, target: Path, work: Work) -> Enhanced:
    """The pipeline's line for a DICOM series; every run writes UIDs of its own."""
    target.mkdir(exist_ok=True)
    spec = AttemptSpec(
        job_key=f"offline {uuid.uuid4()}",
        sources=tuple(
            SourceFile(path, uid, data_set_digest(path))
            for path, uid in zip(item.paths, item.uids, strict=True)
        ),
        enhancer=work.model,
        options=work.options.extra,
        strength=work.options.strength,
        policy={},
        assembly={"minimum_slices": MINIMUM_SLICES},
        neighbours=item.neighbours,
        directory=target,
        node_version=__version__,
        processed_at=datetime.now(UTC).astimezone().isoformat(),
    )
    result = run_attempt(
        spec,
        work.enhancer,
        on_stage=_stage_listener(work.progress),
        progress=_within(work.progress),
        cancel=CancelToken(),
    )
    facts = {name: value for name, value in result.facts.items() if name not in ("bias", "enhancer")}
    facts |= {
        "modality": item.modality,
        "folder": os.path.commonpath([path.parent for path in item.paths]),
        "series_instance_uid": item.series_instance_uid,
        "derived_series_instance_uid": result.derived[0].series_instance_uid,
        # The line raises when an assertion fails.
        "verification": {"passed": True, "bias": result.facts["bias"], "failed": []},
    }
    return Enhanced(facts, result.uncertainty[0] if len(result.uncertainty) == 1 else None, _DICOM_AXES)


def _metrics(facts: Mapping[str, Any]) -> dict[str, float | None]:
    """What the enhancement did to signal and noise; None where there was no noise to compare with.

    snr_change_percent  the mean is kept, so the signal-to-noise ratio changes as the noise does
    bias                mean change of the voxels as written, in the unit of the volume
    tissue_bias         size of the mean change in tissue, before rounding to stored values
    """
    before, after = float(facts["noise_before"]), float(facts["noise_after"])
    guards = {check["name"]: check["value"] for check in facts["guards"]["checks"]}
    return {
        "snr_change_percent": round(100.0 * (before / after - 1.0), 2) if after > 0 else None,
        "noise_removed_percent": round(100.0 * (1.0 - after / before), 2) if before > 0 else None,
        "bias": facts["verification"]["bias"],
        "tissue_bias": guards.get("tissue_bias"),
        "changed_above_two_sigma_percent": round(100.0 * facts["guards"]["share_above_two"], 4),
    }


def _stage_listener(progress: Progress) -> StageListener:
    """Turns the name of a stage into the share of the line that lies before it."""
    return lambda stage: progress(_BEGINS[stage], stage.lower())


def _within(progress: Progress) -> Progress:
    """The enhancer's own progress as a part of the whole line's."""
    first, last = _BEGINS["ENHANCE"], _BEGINS["GUARD"]
    return lambda fraction, step: progress(first + fraction * (last - first), step)
