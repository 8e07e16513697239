"""NIfTI in and out: a file to an engine volume, and enhanced voxels back into the very same file layout.

What is not a voxel (header, extensions, trailing bytes) is kept byte for byte, and so is every voxel that the
enhancement left alone. The header is only interpreted where the engine needs it: axes, affine, units, scaling.
Files are NIfTI-1 or NIfTI-2 in one piece (``.nii``, ``.nii.gz``), either byte order.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from nibabel.imageglobals import LoggingOutputSuppressor
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from dicom_node.errors import NodeError
from engine.volume import IntensityUnit, Volume

Axes = tuple[int, int, int]
Modality = Literal["CT", "MR"]

SUFFIXES: Final = (".nii", ".nii.gz")
_MM_PER_UNIT: Final = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}
_RAS_TO_LPS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])  # its own inverse
_SHORTEST_SIDE: Final = 8
_THICKER: Final = 1.2
_PADDING_HU: Final = -1500.0
"""Below what any scanner measures, noise included: converters leave the area outside the field of view there."""


class NiftiError(NodeError):
    """A file is no NIfTI volume that can be enhanced; `detail` says why in one line."""

    def __init__(self, path: Path, detail: str) -> None:
        super().__init__(f"{path}: {detail}")
        self.detail = detail


@dataclass(frozen=True, eq=False)
class NiftiSource:
    """A NIfTI file as read.

    content       the whole file, uncompressed; voxels begin at `offset`
    stored        stored values along the file's own three axes, a read-only view of `content`
    slope, intercept   real = slope * stored + intercept
    axes          the file axis that is slice, row and column of `volume`
    volume        real values; voxels that are not finite, or outside the field of view, are not valid
    """

    path: Path
    content: bytes = field(repr=False)
    offset: int
    stored: NDArray[Any]
    slope: float
    intercept: float
    axes: Axes
    volume: Volume

    @property
    def stored_in_order(self) -> NDArray[Any]:
        """Stored values as (slices, rows, columns)."""
        return self.stored.transpose(self.axes)


def is_nifti_name(path: Path) -> bool:
    """Whether the file's name says NIfTI."""
    return path.name.lower().endswith(SUFFIXES)


def modality_beside(path: Path) -> Modality | None:
    """The modality that a JSON file of the same name states, as converters and BIDS write it, else None."""
    name = path.name.lower()
    stem = path.name[: -len(".nii.gz" if name.endswith(".gz") else ".nii")]
    try:
        facts = json.loads((path.parent / f"{stem}.json").read_bytes())
    except (OSError, ValueError):
        return None
    said = facts.get("Modality") if isinstance(facts, dict) else None
    if said == "CT":
        return "CT"
    return "MR" if said == "MR" else None


def read_nifti(path: Path, modality: Modality) -> NiftiSource:
    """Read one 3D volume; axes of length 1 beyond the third are taken as absent.

    Raises `NiftiError` when the file is damaged, or holds anything but one real-valued volume.
    """
    content = read_content(path)
    header = parse_header(content, path)
    shape = _shape(header, path)
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise NiftiError(path, f"voxels of type {header['datatype']} ({dtype}) are not supported")
    offset, size = int(header.get_data_offset()), dtype.itemsize * int(np.prod(shape, dtype=np.int64))
    if len(content) < offset + size:
        raise NiftiError(path, f"the file ends early, {len(content)} of {offset + size} bytes")
    stored = np.frombuffer(content, dtype, count=size // dtype.itemsize, offset=offset)
    stored = stored.reshape(shape, order="F")
    slope, intercept = _scaling(header, path)
    axes, affine = _placed(header, path)
    ordered = stored.transpose(axes)
    array, valid = _real_values(ordered, slope, intercept, modality)
    if not valid.any():
        raise NiftiError(path, "no voxel holds a measured value")
    unit = IntensityUnit.HU if modality == "CT" else IntensityUnit.ARBITRARY
    volume = Volume(array, affine, unit, None if valid.all() else valid)
    return NiftiSource(path, content, offset, stored, slope, intercept, axes, volume)


def read_content(path: Path) -> bytes:
    """The bytes of the file, uncompressed; raises `NiftiError` when they cannot be had."""
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (gzip.BadGzipFile, EOFError, zlib.error) as exc:
        raise NiftiError(path, "the compressed file is damaged") from exc
    except OSError as exc:
        raise NiftiError(path, f"cannot be read ({exc.strerror})") from exc


def parse_header(content: bytes, path: Path) -> Nifti1Header:
    """The NIfTI-1 or NIfTI-2 header of a single file; raises `NiftiError` when there is none."""
    kinds: tuple[type[Nifti1Header], ...] = (Nifti1Header, Nifti2Header)
    for kind in kinds:
        block = content[: kind.template_dtype.itemsize]
        if len(block) < kind.template_dtype.itemsize or not kind.may_contain_header(block):
            continue
        try:
            with LoggingOutputSuppressor():  # it would print every value that it corrects in its copy
                header = kind(block)
        except (HeaderDataError, WrapStructError, ValueError) as exc:
            raise NiftiError(path, "the NIfTI header is damaged") from exc
        if not bytes(header["magic"]).startswith(b"n+"):
            raise NiftiError(path, "header and voxels lie in two files; convert them to one .nii")
        return header
    raise NiftiError(path, "not a NIfTI file")


def to_stored(source: NiftiSource, enhanced: Volume) -> NDArray[Any]:
    """Return the enhanced intensities as stored values along the file's own axes.

    Voxels whose intensity is the source's keep their stored value bit by bit. Integers: round half to even,
    clip to the type.
    """
    before = source.volume
    result = source.stored.copy(order="F")
    slices = zip(result.transpose(source.axes), before.array, enhanced.array, strict=True)
    for index, (plane, old, new) in enumerate(slices):
        changed = old != new
        if before.valid is not None:
            changed &= before.valid[index]
        scaled = (new[changed].astype(np.float64) - source.intercept) / source.slope
        plane[changed] = _as_type(scaled, result.dtype)
    return result


def write_nifti(path: Path, source: NiftiSource, stored: NDArray[Any], *, compressed: bool) -> None:
    """Create `path` as the source's file with other voxels, on stable storage when this returns."""
    end = source.offset + source.stored.nbytes
    voxels = stored.tobytes(order="F")
    _write(path, (source.content[: source.offset], voxels, source.content[end:]), compressed=compressed)


def write_map(path: Path, volume: Volume, *, axes: Axes = (2, 1, 0), compressed: bool) -> None:
    """Create a float32 NIfTI file of a volume; `axes` are the file axes of slice, row and column."""
    affine = np.eye(4)
    affine[:, [*axes, 3]] = _RAS_TO_LPS @ volume.affine
    array = volume.array.transpose(tuple(int(axis) for axis in np.argsort(axes)))
    image = Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    _write(path, (image.to_bytes(),), compressed=compressed)


def _shape(header: Nifti1Header, path: Path) -> Axes:
    """Lengths of the three spatial axes."""
    shape = tuple(int(side) for side in header.get_data_shape())
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    sides = " x ".join(map(str, shape))
    if len(shape) > 3:
        raise NiftiError(path, f"holds several volumes ({sides}); split it, one 3D volume per file")
    if len(shape) < 3 or min(shape) < _SHORTEST_SIDE:
        raise NiftiError(
            path, f"{sides or 'no'} voxels; at least {_SHORTEST_SIDE} along each of 3 axes needed"
        )
    return shape[0], shape[1], shape[2]


def _scaling(header: Nifti1Header, path: Path) -> tuple[float, float]:
    """Slope and intercept; 1 and 0 where the header states no scaling (scl_slope 0 or not a number)."""
    try:
        slope, intercept = header.get_slope_inter()
    except HeaderDataError as exc:
        raise NiftiError(path, "scl_slope and scl_inter are not usable") from exc
    return (1.0, 0.0) if slope is None else (float(slope), float(intercept or 0.0))


def _placed(header: Nifti1Header, path: Path) -> tuple[Axes, NDArray[np.float64]]:
    """Which file axes are slice, row and column, and where they lie in LPS millimetres."""
    try:
        ras = np.asarray(header.get_best_affine(), np.float64)
        unit = header.get_xyzt_units()[0]
    except (HeaderDataError, KeyError) as exc:
        raise NiftiError(path, "the header says nothing usable about the geometry") from exc
    lps = _RAS_TO_LPS @ ras
    lps[:3] *= _MM_PER_UNIT[unit]
    if not np.isfinite(lps).all() or abs(float(np.linalg.det(lps[:3, :3]))) < 1e-12:
        raise NiftiError(path, "the affine is singular or not finite")
    axis = _slice_axis(header, np.linalg.norm(lps[:3, :3], axis=0))
    column, row = (other for other in range(3) if other != axis)
    axes = (axis, row, column)
    return axes, lps[:, [*axes, 3]]


def _slice_axis(header: Nifti1Header, spacing_mm: NDArray[np.float64]) -> int:
    """The axis the header names, else a clearly coarsest one, else the last."""
    named = header.get_dim_info()[2]
    if named is not None:
        return int(named)
    coarsest = int(spacing_mm.argmax())
    others = np.delete(spacing_mm, coarsest)
    return coarsest if spacing_mm[coarsest] > _THICKER * float(others.max()) else 2


def _real_values(
    ordered: NDArray[Any], slope: float, intercept: float, modality: Modality
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Real values computed in double precision, and which of them were measured; the others are 0 or as stored."""
    array = np.empty(ordered.shape, np.float32)
    valid = np.empty(ordered.shape, np.bool_)
    for plane, real, measured in zip(ordered, array, valid, strict=True):
        with np.errstate(over="ignore", invalid="ignore"):
            real[...] = plane.astype(np.float64) * slope + intercept
        measured[...] = np.isfinite(real)
        real[~measured] = 0.0
        if modality == "CT":
            measured[real <= _PADDING_HU] = False
    return array, valid


def _as_type(values: NDArray[np.float64], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Values in a stored type: integers rounded half to even and clipped."""
    if dtype.kind == "f":
        limit = float(np.finfo(dtype).max)
        return np.clip(values, -limit, limit).astype(dtype)
    limits = np.iinfo(dtype)
    highest = float(limits.max)
    if int(highest) > limits.max:  # 64-bit limits are no doubles
        highest = float(np.nextafter(highest, 0))
    return np.clip(np.rint(values), float(limits.min), highest).astype(dtype)


def _write(path: Path, pieces: tuple[bytes, ...], *, compressed: bool) -> None:
    """Create the file and wait until it is on stable storage; equal pieces give equal bytes."""
    with path.open("xb") as file:
        if compressed:
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=1, mtime=0) as packed:
                for piece in pieces:
                    packed.write(piece)
        else:
            for piece in pieces:
                file.write(piece)
        file.flush()
        os.fsync(file.fileno())
