"""Slices of stored series for a viewer: ordered along the stack, decoded when asked for, kept within a limit of bytes.

Nothing is decoded that nobody asked for. The first look at a stack reads a few elements of each file's header to order
them; after that a slice costs its own decoding, and one that was seen lately costs nothing.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dicom_node.desk.maps import PARAMETRIC_MAP, Map, find_map
from dicom_node.errors import NodeError, Reason, ReasonedError
from dicom_node.imaging.decoders import Decoders, Frame, read_cells
from dicom_node.imaging.elements import number, numbers
from dicom_node.imaging.parsing import read_dataset, read_instance, transfer_syntax
from dicom_node.imaging.pixels import pixel_format
from dicom_node.imaging.slice_place import slice_place
from storage.errors import NotFoundError, StorageError
from storage.states import JobKind
from storage.store import Store

Slice = NDArray[np.float32]  # (rows, columns), real values
_LARGEST_SIDE = 8192
_STACKS = 64
_KNOWN_S = 2.0
StackKey = tuple[str, int, int]


class Layer(StrEnum):
    """What is shown of a job."""

    SOURCE = "source"
    DERIVED = "derived"
    DIFFERENCE = "difference"
    UNCERTAINTY = "uncertainty"


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


@dataclass(frozen=True)
class Shown:
    """What there is to look at: the stacks of a series or of an enhancement of it, on one grid."""

    series_id: int
    modality: str
    source: Stack
    derived: Stack | None = None
    uncertainty: Map | None = None

    @property
    def layers(self) -> tuple[Layer, ...]:
        """What can be shown."""
        if self.derived is None:
            return (Layer.SOURCE,)
        certain = (Layer.SOURCE, Layer.DERIVED, Layer.DIFFERENCE)
        return certain if self.uncertainty is None else (*certain, Layer.UNCERTAINTY)

    @property
    def middle(self) -> int:
        """The slice that a viewer begins with."""
        return len(self.source.paths) // 2


class Images:
    """Stacks and slices of one store. Safe for several threads; `limit` in bytes of decoded slices."""

    def __init__(self, store: Store, limit: int) -> None:
        self._store = store
        self._decoders = Decoders()
        self._limit = limit
        self._lock = threading.Lock()
        self._slices: OrderedDict[Path, Slice] = OrderedDict()
        self._bytes = 0
        self._stacks: OrderedDict[StackKey, Stack] = OrderedDict()
        self._ordering: dict[StackKey, threading.Lock] = {}
        self._shown: OrderedDict[tuple[str, int], tuple[float, Shown]] = OrderedDict()

    @property
    def kept_bytes(self) -> int:
        """Bytes of decoded slices that are kept now."""
        return self._bytes

    def of_series(self, series_id: int) -> Shown:
        """The stack of a received series. Raises `NotFoundError`, `NoImageError`, `UnreadableInstanceError`."""
        return self._known(("series", series_id), lambda: self._read_series(series_id))

    def of_job(self, job_id: int) -> Shown:
        """The stacks of an enhancement. Raises what `of_series` does."""
        return self._known(("job", job_id), lambda: self._read_job(job_id))

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

    def layer_slice(self, shown: Shown, layer: Layer, position: int) -> Slice:
        """One slice of a layer; the difference is derived less source. Raises what `slice_of` does."""
        if layer is Layer.SOURCE:
            return self.slice_of(shown.source, position)
        if layer is Layer.UNCERTAINTY:
            return _map_slice(shown, position)
        if shown.derived is None:
            raise NoImageError("there are no stored images")
        derived = self.slice_of(shown.derived, position)
        if layer is Layer.DERIVED:
            return derived
        source = self.slice_of(shown.source, position)
        if source.shape != derived.shape:
            raise NoImageError("source and derived slice differ in shape")
        return derived - source

    def warm(self, look: Callable[[], Shown]) -> None:
        """Order the stacks and decode what a viewer shows first, while its page is still being loaded."""
        with suppress(NodeError, StorageError):  # told of when they are asked for
            shown = look()
            for layer in shown.layers:
                self.layer_slice(shown, layer, shown.middle)

    def _read_series(self, series_id: int) -> Shown:
        series = self._store.index.get_series(series_id)
        key = ("series", series_id, series.revision)
        source = self._stack(key, lambda: [item.path for item in self._store.index.instances(series_id)])
        return Shown(series_id, series.modality, source)

    def _read_job(self, job_id: int) -> Shown:
        job = self._store.jobs.get(job_id)
        if job.kind is not JobKind.ENHANCE:
            raise NoImageError("only an enhancement has images to compare")
        series = self._store.index.get_series(job.series_id)
        wanted = job.spec.get("source") or ()
        source = self._stack(("source", job_id, job.token), lambda: [Path(item["path"]) for item in wanted])
        made = self._store.index.derived(job_id)
        # Maps and reports are series of their own, committed behind the images.
        files = [item.path for item in made if item.series_instance_uid == made[0].series_instance_uid]
        derived = self._stack(("derived", job_id, job.token), lambda: files) if files else None
        maps = [item.path for item in made if item.sop_class_uid == PARAMETRIC_MAP]
        size = {"slices": len(source.paths), "rows": source.rows, "columns": source.columns}
        return Shown(series.id, series.modality, source, derived, find_map(maps, **size) if maps else None)

    def _known(self, key: tuple[str, int], read: Callable[[], Shown]) -> Shown:
        """What was read a moment ago: scrolling asks sixty times a second, and a job names hundreds of files."""
        with self._lock:
            kept = self._shown.get(key)
        if kept is not None and time.monotonic() - kept[0] < _KNOWN_S:
            return kept[1]
        shown = read()
        with self._lock:
            self._shown[key] = (time.monotonic(), shown)
            self._shown.move_to_end(key)
            while len(self._shown) > _STACKS:
                self._shown.popitem(last=False)
        return shown

    def _stack(self, key: StackKey, paths: Callable[[], Sequence[Path]]) -> Stack:
        """The stack in order; one caller reads its headers, and whoever comes meanwhile waits for that."""
        with self._lock:
            ordering = self._ordering.setdefault(key, threading.Lock())
        with ordering:
            with self._lock:
                if key in self._stacks:
                    self._stacks.move_to_end(key)
                    return self._stacks[key]
            try:
                files = paths()
                if not files:
                    raise NoImageError("there are no stored images")
                stack = order(files)
            finally:
                with self._lock:
                    self._ordering.pop(key, None)
            with self._lock:
                self._stacks[key] = stack
                while len(self._stacks) > _STACKS:
                    self._stacks.popitem(last=False)
            return stack


def _map_slice(shown: Shown, position: int) -> Slice:
    if shown.uncertainty is None:
        raise NoImageError("no uncertainty was computed, or its map does not fit the images")
    if position >= len(shown.source.paths):
        raise NotFoundError("slice", position)
    return shown.uncertainty.frame(position)


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
    found = slice_place(path)
    if normal is not None and found.position is not None:
        return float(np.dot(normal, found.position))
    return found.number or 0.0
