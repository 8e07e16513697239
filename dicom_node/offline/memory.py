"""How much memory a stretch of work took at its peak."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5)


class PeakMemory:
    """Peak since this was made; where the system cannot forget an earlier peak, since the process began."""

    def __init__(self) -> None:
        try:
            _CLEAR.write_text(_RESET_PEAK)
        except OSError:
            self._since_start = True
        else:
            self._since_start = False
        _reset_gpu()

    def as_json(self) -> dict[str, int | str | None]:
        """Bytes of the process and of the GPU (None without one), and what the first covers."""
        return {
            "peak_bytes": _lifetime_peak() if self._since_start else _current_peak(),
            "covers": "process" if self._since_start else "volume",
            "gpu_peak_bytes": _gpu_peak(),
        }


def _current_peak() -> int:
    """VmHWM, in bytes."""
    for line in _STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return _lifetime_peak()


def _lifetime_peak() -> int:
    """Linux counts in KiB, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _reset_gpu() -> None:
    """Only if an enhancer loaded torch; it is not loaded for the sake of a figure."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def _gpu_peak() -> int | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return int(torch.cuda.max_memory_allocated())
