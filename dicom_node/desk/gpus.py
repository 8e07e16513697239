"""Use and memory of the GPUs of this machine, asked of the vendor's own tool."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass

_FIELDS = ("index", "utilization.gpu", "memory.used", "memory.total")
_LONGEST_S = 2


@dataclass(frozen=True)
class Gpu:
    """One GPU: use in percent, memory in bytes."""

    index: str
    use: float
    used: float
    total: float


def read_gpus() -> tuple[Gpu, ...]:
    """Ask nvidia-smi; empty where there is none, or where it does not answer in two seconds."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    command = [program, f"--query-gpu={','.join(_FIELDS)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST_S, check=True)
        return tuple(_gpu(line) for line in done.stdout.splitlines() if line.strip())
    except (OSError, subprocess.SubprocessError, ValueError):
        return ()


def _gpu(line: str) -> Gpu:
    index, use, used, total = (part.strip() for part in line.split(","))
    return Gpu(index, float(use), float(used) * 1024**2, float(total) * 1024**2)
