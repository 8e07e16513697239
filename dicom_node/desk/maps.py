"""Maps of uncertainty for the viewer: the frames of a Parametric Map (PS3.3 A.75) in the order of the stack.

The node writes these maps itself, with floating point values as they are, so a frame is a stretch of the file.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node.errors import UnreadableInstanceError
from dicom_node.imaging.elements import quiet

PARAMETRIC_MAP: Final = "1.2.840.10008.5.1.4.1.1.30"
_FLOATS: Final = b"\xe0\x7f\x08\x00OF\0\0"  # Float Pixel Data in Explicit VR Little Endian, up to its length
_FLOAT_BYTES: Final = 4


@dataclass(frozen=True)
class Map:
    """Where the frames of a map lie; `order` has the number of the frame for each slice of the stack."""

    path: Path
    offset: int
    order: tuple[int, ...]
    rows: int
    columns: int

    def frame(self, position: int) -> NDArray[np.float32]:
        """One frame, (rows, columns), in the unit of the image. Raises `UnreadableInstanceError`."""
        count = self.rows * self.columns
        start = self.offset + self.order[position] * count * _FLOAT_BYTES
        try:
            values = np.fromfile(self.path, "<f4", count, offset=start)
        except OSError as exc:
            raise UnreadableInstanceError(f"The file cannot be read ({type(exc).__name__}).") from exc
        if values.size < count:
            raise UnreadableInstanceError("The map ends before its last frame.")
        return values.reshape(self.rows, self.columns).astype(np.float32, copy=False)


def find_map(files: Sequence[Path], *, slices: int, rows: int, columns: int) -> Map | None:
    """The map on the grid of a stack; None where there is none, or not exactly one that fits it."""
    found = [read_map(path) for path in files]
    fits = [
        m for m in found if m is not None and (len(m.order), m.rows, m.columns) == (slices, rows, columns)
    ]
    return fits[0] if len(fits) == 1 == len(files) else None


def read_map(path: Path) -> Map | None:
    """Read where the frames of a map lie and stand; None for anything that is no such map."""
    try:
        with quiet(), path.open("rb") as file:
            ds = dcmread(file, stop_before_pixels=True)
            head, offset = file.read(len(_FLOATS) + 4), file.tell()
            heights = _heights(ds)
            rows, columns = int(ds.Rows), int(ds.Columns)
    except Exception:  # whatever the parser stumbles over: the series is shown without it
        return None
    expected = _FLOATS + struct.pack("<L", rows * columns * len(heights) * _FLOAT_BYTES)
    if head != expected or not len(heights):
        return None
    return Map(path, offset, tuple(int(n) for n in np.argsort(heights, kind="stable")), rows, columns)


def _heights(ds: Dataset) -> list[float]:
    """Where each frame stands along the normal of the planes."""
    (shared,) = ds.SharedFunctionalGroupsSequence
    (plane,) = shared.PlaneOrientationSequence
    orientation = [float(value) for value in plane.ImageOrientationPatient]
    normal = np.cross(orientation[:3], orientation[3:])
    return [
        float(np.dot(normal, [float(v) for v in group.PlanePositionSequence[0].ImagePositionPatient]))
        for group in ds.PerFrameFunctionalGroupsSequence
    ]
