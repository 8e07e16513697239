"""Slices of stored series for a viewer: ordered along the stack, decoded when asked for, kept within a limit of bytes.

Nothing is decoded that nobody asked for. The first look at a stack reads a few elements of each file's header to order
them; after that a slice costs its own decoding, and one that was seen lately costs nothing.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread

from dicom_node.errors import NodeError, Reason, ReasonedError
from dicom_node.imaging.decoders import Decoders, Frame, read_cells
from dicom_node.imaging.elements import number, numbers, quiet
from dicom_node.imaging.parsing import read_dataset, read_instance, transfer_syntax
from dicom_node.imaging.pixels import pixel_format
from storage.errors import NotFoundError
from storage.states import JobKind
from storage.store import Store

Slice = NDArray[np.float32]  # (rows, columns), real values
_HEADER = ["ImagePositionPatient", "ImageOrientationPatient", "InstanceNumber"]
_LARGEST_SIDE = 8192
_STACKS = 64


class Layer(StrEnum):
    """What is shown of a job."""

    SOURCE = "source"
    DERIVED = "derived"
    DIFFERENCE = "difference"


class NoImageError(NodeError):
    """There is nothing of this kind to show."""


@dataclass(frozen=True)
class Stack:
    """Files of one series in the order of the stack, with what a viewer has to know before the first slice."""

    paths: tuple[Path, ...]
    rows: int
    columns: int
    row_spacing_mm: float | None
    column_spacing_mm: float | None
    inverted: bool


class Images:
    """Stacks and slices of one store. Safe for several threads; `limit` in bytes of decoded slices."""

    def __init__(self, store: Store, limit: int) -> None:
        self._store = store
        self._decoders = Decoders()
        self._limit = limit
        self._lock = threading.Lock()
        self._slices: OrderedDict[Path, Slice] = OrderedDict()
        self._bytes = 0
        self._stacks: OrderedDict[tuple[str, int, int], Stack] = OrderedDict()

    @property
    def kept_bytes(self) -> int:
        """Bytes of decoded slices that are kept now."""
        return self._bytes

    def of_series(self, series_id: int) -> Stack:
        """The stack of a received series. Raises `NotFoundError`, `NoImageError`, `UnreadableInstanceError`."""
        series = self._store.index.get_series(series_id)
        key = ("series", series_id, series.revision)
        return self._stack(key, lambda: [item.path for item in self._store.index.instances(series_id)])

    def of_job(self, job_id: int, layer: Layer) -> Stack:
        """The source or the derived stack of an enhancement; the difference has the source's."""
        job = self._store.jobs.get(job_id)
        if job.kind is not JobKind.ENHANCE:
            raise NoImageError("only an enhancement has images to compare")
        if layer is Layer.DERIVED:
            derived = self._store.index.derived
            return self._stack(
                ("derived", job_id, job.token), lambda: [item.path for item in derived(job_id)]
            )
        wanted = job.spec.get("source") or ()
        return self._stack(("source", job_id, job.token), lambda: [Path(item["path"]) for item in wanted])

    def slice_of(self, stack: Stack, position: int) -> Slice:
        """One slice in real values (HU in CT). Raises `NotFoundError`, `UnreadableInstanceError`, `ReasonedError`."""
        if not 0 <= position < len(stack.paths):
            raise NotFoundError("slice", position)
        path = stack.paths[position]
        with self._lock:
            if path in self._slices:
                self._slices.move_to_end(path)
                return self._slices[path]
        decoded = decode(path, self._decoders)
        with self._lock:
            if path not in self._slices:
                self._slices[path] = decoded
                self._bytes += decoded.nbytes
            while self._bytes > self._limit and len(self._slices) > 1:
                _, dropped = self._slices.popitem(last=False)
                self._bytes -= dropped.nbytes
        return decoded

    def layer_slice(self, job_id: int, layer: Layer, position: int) -> Slice:
        """One slice of a layer of a job; the difference is derived less source."""
        if layer is not Layer.DIFFERENCE:
            return self.slice_of(self.of_job(job_id, layer), position)
        source = self.slice_of(self.of_job(job_id, Layer.SOURCE), position)
        derived = self.slice_of(self.of_job(job_id, Layer.DERIVED), position)
        if source.shape != derived.shape:
            raise NoImageError("source and derived slice differ in shape")
        return derived - source

    def _stack(self, key: tuple[str, int, int], paths: Callable[[], Sequence[Path]]) -> Stack:
        with self._lock:
            if key in self._stacks:
                self._stacks.move_to_end(key)
                return self._stacks[key]
        files = paths()
        if not files:
            raise NoImageError("there are no stored images")
        stack = order(files)
        with self._lock:
            self._stacks[key] = stack
            while len(self._stacks) > _STACKS:
                self._stacks.popitem(last=False)
        return stack


def order(files: Sequence[Path]) -> Stack:
    """Order files along the normal of the first one's plane, else by instance number."""
    first = read_dataset(files[0], pixels=False)
    layout = pixel_format(first)
    orientation = numbers(first, "ImageOrientationPatient")
    normal = np.cross(orientation[:3], orientation[3:]) if orientation and len(orientation) == 6 else None
    spacing = numbers(first, "PixelSpacing") or (None, None)
    keys = [(_place(path, normal), number_, path) for number_, path in enumerate(files)]
    return Stack(
        paths=tuple(path for _, _, path in sorted(keys, key=lambda key: key[:2])),
        rows=layout.rows,
        columns=layout.columns,
        row_spacing_mm=spacing[0],
        column_spacing_mm=spacing[1] if len(spacing) > 1 else None,
        inverted=layout.photometric == "MONOCHROME1",
    )


def decode(path: Path, decoders: Decoders) -> Slice:
    """One classic single-frame slice in real values. Raises `ReasonedError` for anything else."""
    ds, place = read_instance(path)
    layout = pixel_format(ds)
    too_large = max(layout.rows, layout.columns) > _LARGEST_SIDE
    if place is None or not layout.is_supported or too_large or (number(ds, "NumberOfFrames") or 1) > 1:
        raise ReasonedError(Reason.UNSUPPORTED_PIXELS)
    slope, intercept = number(ds, "RescaleSlope"), number(ds, "RescaleIntercept")
    cells = read_cells(Frame(place, transfer_syntax(ds), layout), decoders)
    stored = layout.to_stored(cells).astype(np.float32)
    return stored * np.float32(1.0 if slope is None else slope) + np.float32(intercept or 0.0)


def _place(path: Path, normal: NDArray[np.float64] | None) -> float:
    """Where the slice lies along the normal; by instance number where it does not say."""
    try:
        with quiet():
            ds = dcmread(path, stop_before_pixels=True, specific_tags=_HEADER)
    except Exception:  # the file is told of when its slice is asked for
        return 0.0
    position = numbers(ds, "ImagePositionPatient")
    if normal is not None and position and len(position) == 3:
        return float(np.dot(normal, position))
    return number(ds, "InstanceNumber") or 0.0
