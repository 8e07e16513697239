"""Where the network runs and in which precision, with the self-test that decides whether bf16 is safe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from engine.errors import EngineInputError

SELF_TEST_LIMIT = 0.05
"""Largest RMS difference between bf16 and fp32 network outputs, in units of the noise."""


@dataclass(frozen=True)
class ComputeDevice:
    """A device with its precision. `memory_bytes` is what may be used for one evaluation."""

    device: torch.device
    precision: torch.dtype
    memory_bytes: int

    @property
    def label(self) -> str:
        """How reports call it, e.g. ``cpu bfloat16``."""
        return f"{self.device} {str(self.precision).removeprefix('torch.')}"


def choose_device(name: str = "auto") -> ComputeDevice:
    """Return the device called `name`: ``auto``, ``cpu`` or ``cuda``.

    bf16 is chosen where the hardware multiplies it natively. Raises `EngineInputError` for an unknown
    name or an absent GPU.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise EngineInputError(f"unknown device {name!r}; choose auto, cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise EngineInputError("no CUDA device is available")
    if name != "cpu" and torch.cuda.is_available():
        free, _total = torch.cuda.mem_get_info()
        dtype = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
        return ComputeDevice(torch.device("cuda"), dtype, int(free * 0.8))
    return ComputeDevice(torch.device("cpu"), _cpu_precision(), _available_memory() // 2)


def _cpu_precision() -> torch.dtype:
    """bf16 only where the CPU has instructions for it; emulation is slower than fp32."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:
        return torch.float32
    return torch.bfloat16 if "avx512_bf16" in flags or "amx_bf16" in flags else torch.float32


def _available_memory() -> int:
    """Memory that can be taken without swapping, in bytes; 4 GiB where the system does not say."""
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 4 * 2**30


def trusted_precision(
    compute: ComputeDevice, evaluate: Callable[[torch.dtype], Tensor]
) -> tuple[ComputeDevice, float]:
    """Compare one evaluation in the device's precision with fp32; fall back to fp32 when they differ.

    `evaluate(dtype)` returns the network's output in units of the noise. Wrong bf16 convolutions have
    shipped in cuDNN and oneDNN (pytorch issues 163539 and 84488). Returns the device to use and the RMS
    difference found (0 for fp32).
    """
    if compute.precision is torch.float32:
        return compute, 0.0
    exact, fast = evaluate(torch.float32), evaluate(compute.precision)
    difference = float((exact - fast).square().mean().sqrt())
    if difference <= SELF_TEST_LIMIT:
        return compute, difference
    return ComputeDevice(compute.device, torch.float32, compute.memory_bytes), difference
