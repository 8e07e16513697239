"""A few decoding processes: frames are decoded beside each other, and a frame that kills one kills no more.

Guarantees: every frame ends in cells or in `UndecodablePixelsError` within its time; a process that crashed,
hung or ran out of memory is replaced for the next frame. Processes start with the first compressed frame.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dicom_node.imaging.decode_worker import CELLS, HEAD
from dicom_node.imaging.parsing import PixelPlace
from dicom_node.imaging.pixels import Cells, PixelFormat, UndecodablePixelsError, native_cells

MEMORY_LIMIT: Final = 3 << 30
"""Address space of one decoding process; its libraries alone take about a third of it."""
DEADLINE_S: Final = 60.0
"""Longest time one frame may take; a frame of 512 x 512 takes 2 to 60 ms."""
LARGEST_FRAME: Final = 256 << 20
"""Bytes of the largest frame that is decoded: 11,000 pixels a side."""
_MOST_PROCESSES: Final = 8
_FRAMES_WORTH_A_PROCESS: Final = 16
_PIPE_BYTES: Final = 1 << 20
_F_SETPIPE_SZ: Final = 1031  # Linux


@dataclass(frozen=True)
class Frame:
    """One frame to decode: where its bytes are, and what the decoder has to know.

    name   what an error says of it, safe to log
    """

    place: PixelPlace
    syntax: str
    layout: PixelFormat
    name: str = ""

    def request(self) -> dict[str, Any]:
        """What the decoding process is asked."""
        layout = self.layout
        return {
            "path": str(self.place.path),
            "offset": self.place.offset,
            "length": self.place.length,
            "syntax": self.syntax,
            "bare": self.place.bare,
            "elements": {
                "Rows": layout.rows,
                "Columns": layout.columns,
                "SamplesPerPixel": layout.samples,
                "PhotometricInterpretation": layout.photometric,
                "BitsAllocated": layout.bits_allocated,
                "BitsStored": layout.bits_stored,
                "HighBit": layout.high_bit,
                "PixelRepresentation": int(layout.signed),
            },
        }


class Decoders:
    """Decoding processes, started when needed and ended with the `with` block. Safe from several threads."""

    def __init__(
        self,
        *,
        processes: int | None = None,
        memory_limit: int = MEMORY_LIMIT,
        deadline_s: float = DEADLINE_S,
        command: tuple[str, ...] = (sys.executable, "-m", "dicom_node.imaging.decode_worker"),
    ) -> None:
        self._count = processes or max(1, min(os.cpu_count() or 1, _MOST_PROCESSES))
        self._command = (*command, str(memory_limit))
        self._deadline_s = deadline_s
        self._idle: SimpleQueue[_Process] = SimpleQueue()

    def __enter__(self) -> Decoders:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every process that is idle; none is busy once `decode` and `decode_each` have returned."""
        with suppress(Empty):
            while True:
                self._idle.get_nowait().end()

    def __del__(self) -> None:
        self.close()

    def decode(self, frame: Frame) -> Cells:
        """Decode one frame; raises `UndecodablePixelsError`."""
        try:
            process = self._idle.get_nowait()
        except Empty:
            process = _Process(self._command)
        try:
            cells = process.decode(frame, self._deadline_s)
        except _ProcessGoneError as exc:
            process.end()
            raise named(UndecodablePixelsError(str(exc)), frame) from None
        except UndecodablePixelsError as exc:
            self._idle.put(process)
            raise named(exc, frame) from None
        self._idle.put(process)
        return _checked(cells, frame)

    def decode_each(self, frames: Mapping[int, Frame], deliver: Callable[[int, Cells], None]) -> None:
        """Decode frames beside each other and hand each to `deliver` with its key, in any order and thread.

        Raises what the first failure raised, once no frame is under way any more.
        """
        stopped = threading.Event()

        def run(key: int, frame: Frame) -> None:
            if not stopped.is_set():
                deliver(key, self.decode(frame))

        # A process takes half a second to start: a few frames are decoded sooner by one.
        beside = max(1, min(self._count, len(frames) // _FRAMES_WORTH_A_PROCESS))
        with ThreadPoolExecutor(beside) as pool:
            tasks = [pool.submit(run, key, frame) for key, frame in frames.items()]
            done, _ = wait(tasks, return_when=FIRST_EXCEPTION)
            stopped.set()
        raise_first(task.exception() for task in done)


def read_cells(frame: Frame, decoders: Decoders) -> Cells:
    """Return the cells of a single-frame instance, (rows, columns); raises `UndecodablePixelsError`."""
    if frame.place.encapsulated:
        return decoders.decode(frame)
    try:
        return native_cells(frame.place, frame.syntax, frame.layout)
    except UndecodablePixelsError as exc:
        raise named(exc, frame) from exc


def require_bytes(frame: Frame) -> None:
    """Refuse a frame whose bytes cannot be what its header states, before any memory is asked for.

    Uncompressed: the length of the frame, and less than a row behind it, as some writers fill a value up.
    Compressed: no image is as large as `LARGEST_FRAME`. Raises `UndecodablePixelsError`.
    """
    needed, found = frame.layout.frame_bytes, frame.place.length
    if frame.place.encapsulated:
        if needed > LARGEST_FRAME:
            raise named(UndecodablePixelsError(f"A frame of {needed} bytes is no image."), frame)
    elif not needed <= found < needed + max(needed // max(frame.layout.rows, 1), 2):
        raise named(UndecodablePixelsError(f"{found} bytes of pixel data, {needed} stated."), frame)


def named(error: UndecodablePixelsError, frame: Frame) -> UndecodablePixelsError:
    """The error with the name of the frame in front."""
    return UndecodablePixelsError(f"{frame.name} {error.detail}".strip())


def raise_first(errors: Iterable[BaseException | None]) -> None:
    """Raise the first error there is."""
    for error in errors:
        if error is not None:
            raise error


def _checked(array: NDArray[Any], frame: Frame) -> Cells:
    """The decoded frame as cells, if it is as deep as the header states."""
    if array.dtype.itemsize * 8 < frame.layout.bits_allocated:
        raise UndecodablePixelsError(f"{frame.name} The decoded frame is less deep than stated.".strip())
    return array.astype(np.uint16, copy=False)


class _ProcessGoneError(Exception):
    """The process died, hung or broke the protocol; the text is safe to log."""


class _Process:
    """One decoding process and its two pipes; used by one thread at a time."""

    def __init__(self, command: tuple[str, ...]) -> None:
        environ = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environ
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise _ProcessGoneError("The decoding process has no pipes.")
        self._in, self._out = self._process.stdin, self._process.stdout.fileno()
        with suppress(OSError):
            import fcntl

            fcntl.fcntl(self._out, _F_SETPIPE_SZ, _PIPE_BYTES)

    def decode(self, frame: Frame, deadline_s: float) -> NDArray[Any]:
        """Ask for one frame; raises `UndecodablePixelsError` for a refusal, `_ProcessGoneError` otherwise."""
        deadline = time.monotonic() + deadline_s
        try:
            self._in.write(json.dumps(frame.request()).encode() + b"\n")
            self._in.flush()
        except OSError:
            raise _ProcessGoneError(self._obituary()) from None
        head = bytearray(HEAD.size)
        self._fill(memoryview(head), deadline)
        status, size, rows, columns, length = HEAD.unpack(head)
        if status != CELLS:
            name = bytearray(min(length, 256))
            self._fill(memoryview(name), deadline)
            raise UndecodablePixelsError(f"The decoder failed ({name.decode('ascii', 'replace')}).")
        layout = frame.layout
        if (rows, columns) != (layout.rows, layout.columns) or size not in (1, 2):
            raise _ProcessGoneError("The decoded frame has another shape than the header states.")
        content = bytearray(rows * columns * size)
        self._fill(memoryview(content), deadline)
        return np.frombuffer(content, np.dtype(f"<u{size}")).reshape(rows, columns)

    def _fill(self, view: memoryview, deadline: float) -> None:
        """Read exactly as many bytes as the view holds."""
        poller = select.poll()
        poller.register(self._out, select.POLLIN)
        while view:
            left_ms = (deadline - time.monotonic()) * 1000
            if left_ms <= 0 or not poller.poll(left_ms):
                raise _ProcessGoneError("The decoder did not answer in time.")
            count = os.readv(self._out, [view])
            if count == 0:
                raise _ProcessGoneError(self._obituary())
            view = view[count:]

    def _obituary(self) -> str:
        """How the process ended."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        self._process.kill()
        code = self._process.wait()
        return (
            f"The decoder died (signal {-code})." if code < 0 else f"The decoder died (exit status {code})."
        )

    def end(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._in.close()
        if self._process.stdout is not None:
            self._process.stdout.close()
