"""The scans a run learns from, as int16 tensors held in memory on the training device."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from engine.diffusion.intensity import ModelUnits, model_units
from engine.errors import EngineInputError
from engine.training.config import SourceConfig
from engine.volume import IntensityUnit

_HU_RANGE = (-1024, 3071)
_INT16_PER_UNIT_MR = 2000.0


@dataclass(frozen=True)
class TrainingVolume:
    """One scan.

    array        (slices, rows, columns) int16; times `step` gives model units
    spacing_mm   (slice, row, column)
    noise        estimated noise of the scan itself, model units: the floor of what can be learnt
    """

    name: str
    is_ct: bool
    array: Tensor
    step: float
    spacing_mm: tuple[float, float, float]
    noise: float
    source: SourceConfig

    @property
    def isotropic(self) -> bool:
        """Whether axes may be exchanged freely."""
        return max(self.spacing_mm) < 1.3 * min(self.spacing_mm)


@dataclass(frozen=True)
class ScanArray:
    """An array as read from disk, in HU or scanner units."""

    array: NDArray[np.float32]
    unit: IntensityUnit
    spacing_mm: tuple[float, float, float]


def read_scan(path: Path, unit: IntensityUnit = IntensityUnit.ARBITRARY) -> ScanArray:
    """Read an exported .npz with its sidecar, or a NIfTI file (of the given unit).

    Raises `EngineInputError` for anything else. NIfTI needs the extra `train`.
    """
    if path.suffix == ".npz":
        facts = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        with np.load(path, allow_pickle=False) as stored:
            array = stored["array"].astype(np.float32)
        slice_mm, row_mm, column_mm = facts["spacing_mm"]
        return ScanArray(array, IntensityUnit(facts["unit"]), (slice_mm, row_mm, column_mm))
    if path.name.endswith((".nii", ".nii.gz")):
        return _read_nifti(path, unit)
    raise EngineInputError(f"{path.name} is neither an exported .npz nor a NIfTI file")


def _read_nifti(path: Path, unit: IntensityUnit) -> ScanArray:
    """Read a NIfTI volume; its first axis becomes the columns."""
    import nibabel

    image = nibabel.nifti1.Nifti1Image.from_filename(path)
    array = np.asarray(image.dataobj, dtype=np.float32).transpose(2, 1, 0)
    x, y, z = (float(v) for v in image.header.get_zooms()[:3])
    return ScanArray(np.ascontiguousarray(array), unit, (z, y, x))


def load_volumes(
    folder: Path, sources: tuple[SourceConfig, ...], device: torch.device
) -> list[TrainingVolume]:
    """Load every file the sources match. Raises `EngineInputError` when a source matches nothing."""
    volumes: list[TrainingVolume] = []
    for source in sources:
        paths = sorted(p for p in folder.glob(source.match) if p.suffix != ".json")
        if not paths:
            raise EngineInputError(f"no file matches {source.match} below the data folder")
        share = SourceConfig(source.match, source.weight / len(paths), source.halve, source.average)
        share = SourceConfig(**{**share.__dict__, "as_ct": source.as_ct})
        volumes += [_load_one(path, share, device) for path in paths]
    return volumes


def _load_one(path: Path, source: SourceConfig, device: torch.device) -> TrainingVolume:
    """Read, normalise to int16 and measure one scan."""
    scan = read_scan(path)
    is_ct = scan.unit is IntensityUnit.HU
    array = np.clip(scan.array, *_HU_RANGE) if is_ct else np.maximum(scan.array, 0.0)
    units = model_units(array, scan.unit)
    step = 1.0 / units.scale if is_ct else 1.0 / _INT16_PER_UNIT_MR
    stored = np.rint(units.to_model(array) / step).clip(-32768, 32767).astype(np.int16)
    return TrainingVolume(
        name=path.name,
        is_ct=is_ct,
        array=torch.from_numpy(stored).to(device),
        step=step,
        spacing_mm=scan.spacing_mm,
        noise=residual_noise(array, units, is_ct=is_ct),
        source=source,
    )


def residual_noise(array: NDArray[np.float32], units: ModelUnits, *, is_ct: bool) -> float:
    """Return the scan's own noise in model units: a low percentile of the local in-plane SD in tissue.

    Windows of 7x7 voxels; soft tissue for CT, the brighter part for MR. The factor 0.8 was set on white
    noise of known level added to smooth phantoms.
    """
    model = units.to_model(array).astype(np.float64)
    mean = ndimage.uniform_filter(model, (1, 7, 7))
    spread = np.sqrt(np.maximum(ndimage.uniform_filter(model * model, (1, 7, 7)) - mean * mean, 0.0))
    tissue = (mean > -0.1) & (mean < 0.5) if is_ct else mean > 1.0
    values = spread[tissue] if tissue.sum() > 100 else spread.ravel()
    return float(0.8 * np.percentile(values, 5.0))
