"""The gate for NIfTI: the written file is read back, by rules of its own, and held against its source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Image
from nibabel.nifti2 import Nifti2Image
from numpy.typing import NDArray

from dicom_node.imaging.nifti import NiftiSource, parse_header, read_content
from dicom_node.imaging.verify_model import VerificationReport, sum_up
from engine.safety import tolerance
from engine.volume import Volume


@dataclass(frozen=True)
class _Found:
    """What comparing the voxels of both files gave; changes in real units."""

    untouched_changed: int
    largest_error: float
    step: float
    bias: float


def verify_nifti(path: Path, source: NiftiSource, enhanced: Volume) -> VerificationReport:
    """Check the written file against its source and return every assertion with its outcome.

    `enhanced` is what the file should hold. Raises `NiftiError` when it cannot be read back.
    """
    content = read_content(path)
    kind = Nifti2Image if parse_header(content, path)["sizeof_hdr"] == 540 else Nifti1Image
    image = kind.from_bytes(content)
    end = source.offset + source.stored.nbytes
    head_kept = content[: source.offset] == source.content[: source.offset]
    rest_kept = len(content) == len(source.content) and content[end:] == source.content[end:]
    before = kind.from_bytes(source.content)
    same_grid = (
        image.shape == before.shape
        and image.get_data_dtype() == before.get_data_dtype()
        and np.array_equal(image.affine, before.affine)
    )
    proxy: Any = image.dataobj
    voxels = np.asarray(proxy.get_unscaled()).reshape(source.stored.shape)
    found = _compare(voxels, source, enhanced)
    limit = tolerance(source.volume)
    checks = (
        sum_up(1, "header and extensions are kept", _unless(head_kept and rest_kept, "bytes differ")),
        sum_up(2, "shape, type and affine are kept", _unless(same_grid, "the grid differs")),
        sum_up(
            3,
            "voxels without a measurement are kept",
            _unless(found.untouched_changed == 0, f"{found.untouched_changed} voxels changed"),
        ),
        sum_up(
            4,
            "voxels hold the enhanced intensities",
            _unless(found.largest_error <= found.step, f"a voxel is off by {found.largest_error:.4g}"),
        ),
        sum_up(
            5,
            "the mean is kept",
            _unless(abs(found.bias) <= limit, f"the mean moved by {found.bias:.4g}, more than {limit:.4g}"),
        ),
    )
    return VerificationReport(checks, found.bias)


def _unless(held: bool, problem: str) -> Iterator[str]:
    """One problem, or none when the assertion held."""
    if not held:
        yield problem


def _compare(voxels: NDArray[Any], source: NiftiSource, enhanced: Volume) -> _Found:
    """Go through both files slice by slice."""
    valid = source.volume.valid
    moved, largest, total, count = 0, 0.0, 0.0, 0
    planes = zip(voxels.transpose(source.axes), source.stored_in_order, strict=True)
    for index, (new, old) in enumerate(planes):
        measured = np.ones(new.shape, np.bool_) if valid is None else valid[index]
        moved += int(np.count_nonzero(_bits(new[~measured]) != _bits(old[~measured])))
        written = new[measured].astype(np.float64) * source.slope + source.intercept
        meant = enhanced.array[index][measured].astype(np.float64)
        largest = max(largest, float(np.abs(written - meant).max(initial=0.0)))
        total += float((new[measured].astype(np.float64) - old[measured]).sum()) * source.slope
        count += written.size
    return _Found(moved, largest, _step(source), total / max(count, 1))


def _step(source: NiftiSource) -> float:
    """How far a stored value may lie from the real one it stands for: half a step, and the rounding of floats."""
    largest = float(np.abs(source.volume.array).max())
    if source.stored.dtype.kind in "iu":
        return 0.5 * abs(source.slope) * (1 + 1e-9) + 2.4e-7 * largest
    stored_rounding = float(np.finfo(source.stored.dtype).eps) * (largest + abs(source.intercept))
    return 2.4e-7 * largest + stored_rounding


def _bits(values: NDArray[Any]) -> NDArray[Any]:
    """The bytes behind values, so that not-a-number equals itself."""
    return np.ascontiguousarray(values).view(np.dtype(f"u{values.dtype.itemsize}"))
