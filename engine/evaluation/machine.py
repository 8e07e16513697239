"""The machine a figure was measured on, and the memory that a run takes there."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import torch

_SAMPLING_S = 0.01


@contextmanager
def peak_memory(*, on_cuda: bool) -> Iterator[list[int]]:
    """Give a list that holds, on leaving, the peak in bytes; it stays empty where none can be measured."""
    peak: list[int] = []
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
        yield peak
        peak.append(torch.cuda.max_memory_allocated())
        return
    _give_back_freed_memory()
    before = _resident_bytes()
    if before is None:
        yield peak
        return
    over, highest = Event(), [before]

    def watch() -> None:
        while not over.wait(_SAMPLING_S):
            highest[0] = max(highest[0], _resident_bytes() or 0)

    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield peak
    finally:
        over.set()
        watcher.join()
    peak.append(highest[0] - before)


def _give_back_freed_memory() -> None:
    """Let the C library return what it keeps, or a run would fill that first and seem to need less."""
    with suppress(AttributeError, OSError):  # only glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def _resident_bytes() -> int | None:
    """Memory that this process has filled; None where the system does not say.

    Without the pages of files (libraries), which the system drops and reads again as it likes.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def machine_facts(device: str) -> dict[str, str | int]:
    """Return what a figure depends on beside the code."""
    name = torch.cuda.get_device_name() if device.startswith("cuda") else _cpu_name()
    return {"device": device, "name": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


def _cpu_name() -> str:
    """The processor as the system calls it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return "unknown"
