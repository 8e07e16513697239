"""Write DICOM series as arrays with a JSON sidecar: what training and evaluation read.

`python -m dicom_node.export IN OUT` turns every series under IN into OUT/<folder>-<n>.npz (array in HU or
scanner units, slice by slice) and .json (unit, spacing, kernel, scanner). No patient data is written.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError


@dataclass(frozen=True)
class ExportedFacts:
    """The sidecar. `spacing_mm` is (slice, row, column); `group` separates patients for the split."""

    unit: str
    spacing_mm: tuple[float, float, float]
    kernel: str
    scanner: str
    group: str
    source: str


def export_tree(source: Path, target: Path) -> list[Path]:
    """Export every series found under `source`; return the written .npz files.

    Localizers and files without pixels are skipped. Volumes of one series (diffusion directions) and
    runs of equal slice distance become separate files.
    """
    target.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for series in _series(source):
        for number, (array, facts) in enumerate(_volumes(series, source)):
            stem = f"{facts.source.replace('/', '-')}-{len(written):03d}-{number}"
            path = target / f"{stem}.npz"
            np.savez_compressed(path, array=array)
            path.with_suffix(".json").write_text(json.dumps(asdict(facts), indent=1), encoding="utf-8")
            written.append(path)
    return written


def _series(source: Path) -> Iterator[list[tuple[Path, Dataset]]]:
    """Yield the readable image instances under `source`, one list per series."""
    by_series: dict[str, list[tuple[Path, Dataset]]] = defaultdict(list)
    for path in sorted(p for p in source.rglob("*") if p.is_file()):
        try:
            dataset = pydicom.dcmread(path)
        except InvalidDicomError:
            continue
        if "PixelData" in dataset and "LOCALIZER" not in list(dataset.get("ImageType", [])):
            by_series[str(dataset.SeriesInstanceUID)].append((path, dataset))
    yield from by_series.values()


def _volumes(
    series: list[tuple[Path, Dataset]], source: Path
) -> Iterator[tuple[NDArray[np.int16], ExportedFacts]]:
    """Yield the regular volumes of one series."""
    path, first = series[0]
    folder = str(path.parent.relative_to(source)) if path.parent != source else path.stem
    if "NumberOfFrames" in first:
        yield from _multiframe(first, folder)
        return
    slices = [(_position(d), d) for _, d in series]
    spacing = [float(v) for v in first.PixelSpacing]
    for run in _regular_runs(slices):
        step = abs(run[1][0] - run[0][0]) if len(run) > 1 else float(first.get("SliceThickness", 1.0))
        array = np.stack([_stored(d) for _, d in run])
        yield _to_int16(array), _facts(first, (step, spacing[0], spacing[1]), folder)


def _multiframe(dataset: Dataset, folder: str) -> Iterator[tuple[NDArray[np.int16], ExportedFacts]]:
    """Yield the volumes of an enhanced object: frames sharing a position start a new volume."""
    shared = dataset.SharedFunctionalGroupsSequence[0]
    frames = dataset.PerFrameFunctionalGroupsSequence
    measures = (shared if "PixelMeasuresSequence" in shared else frames[0]).PixelMeasuresSequence[0]
    orientation = (shared if "PlaneOrientationSequence" in shared else frames[0]).PlaneOrientationSequence[0]
    normal = np.cross(*np.asarray(orientation.ImageOrientationPatient, dtype=float).reshape(2, 3))
    along = [round(float(np.dot(normal, f.PlanePositionSequence[0].ImagePositionPatient)), 2) for f in frames]
    pixels = dataset.pixel_array.astype(np.float32)
    ranks: dict[float, int] = defaultdict(int)
    volumes: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for index, position in enumerate(along):
        volumes[ranks[position]].append((position, index))
        ranks[position] += 1
    spacing = [float(v) for v in measures.PixelSpacing]
    for members in volumes.values():
        members.sort()
        step = abs(members[1][0] - members[0][0]) if len(members) > 1 else float(measures.SliceThickness)
        array = np.stack([pixels[i] for _, i in members])
        yield _to_int16(array), _facts(dataset, (step, spacing[0], spacing[1]), folder)


def _regular_runs(slices: list[tuple[float, Dataset]]) -> Iterator[list[tuple[float, Dataset]]]:
    """Split slices into volumes (repeated positions) and into runs of equal distance."""
    by_position: dict[float, list[Dataset]] = defaultdict(list)
    for position, dataset in slices:
        by_position[position].append(dataset)
    for repeat in range(max(len(v) for v in by_position.values())):
        stack = sorted(((p, v[repeat]) for p, v in by_position.items() if len(v) > repeat), key=_first)
        run = [stack[0]]
        for item in stack[1:]:
            step = item[0] - run[-1][0]
            if len(run) > 1 and abs(step - (run[-1][0] - run[-2][0])) > 0.05 * abs(step):
                yield run
                run = []
            run.append(item)
        yield run


def _first(item: tuple[float, Dataset]) -> float:
    """Sort key: the position."""
    return item[0]


def _position(dataset: Dataset) -> float:
    """Distance of the slice along its normal, mm (PS3.3 C.7.6.2.1.1)."""
    cosines = np.asarray(dataset.ImageOrientationPatient, dtype=float).reshape(2, 3)
    return round(float(np.dot(np.cross(*cosines), np.asarray(dataset.ImagePositionPatient, dtype=float))), 2)


def _stored(dataset: Dataset) -> NDArray[np.float32]:
    """Pixels in the modality's unit."""
    slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
    if dataset.Modality != "CT":
        slope, intercept = 1.0, 0.0
    return dataset.pixel_array.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def _to_int16(array: NDArray[np.float32]) -> NDArray[np.int16]:
    """Round; scanner values of both modalities fit."""
    return np.clip(np.rint(array), -32768, 32767).astype(np.int16)


def _facts(dataset: Dataset, spacing: tuple[float, float, float], folder: str) -> ExportedFacts:
    """The sidecar of one volume."""
    scanner = f"{dataset.get('Manufacturer', '')} {dataset.get('ManufacturerModelName', '')}".strip()
    unit = "HU" if dataset.Modality == "CT" else "arbitrary"
    kernel = str(dataset.get("ConvolutionKernel", "") or "")
    return ExportedFacts(unit, spacing, kernel, scanner, folder, folder)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the export from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    chosen = parser.parse_args(arguments)
    export_tree(chosen.source, chosen.target)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
