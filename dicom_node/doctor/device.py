"""The machine that computes: processor, memory and, where asked for, the GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dicom_node.doctor.findings import Area, Finding
from dicom_node.doctor.model import EnhancerInUse
from engine.errors import EngineError

_WIDE = ("avx512_bf16", "amx_bf16", "avx512f", "avx2", "asimd")
_BYTES_PER_WORKER = 4 * 2**30  # the enhancement of a large CT, measured with room to spare


def check_device(uses: list[EnhancerInUse], *, workers: int, proc: Path = Path("/proc")) -> list[Finding]:
    """Examine the processor, the memory for `workers` series at a time, and the device of each model."""
    return [*_processor(proc), *_memory(proc, workers), *_models(uses), *_idle_gpu(proc)]


def _processor(proc: Path) -> Iterator[Finding]:
    area, cores = Area("device", "processor"), len(os.sched_getaffinity(0))
    flags = set(_text(proc / "cpuinfo").replace(":", " ").split())
    features = [name for name in _WIDE if name in flags]
    if flags and not features:
        yield area.warning(
            f"{cores} cores without wide vector instructions ({', '.join(_WIDE)}).",
            meaning="Enhancement takes several times as long.",
            fix="Use a newer machine, or let the virtual machine pass the host's processor through.",
        )
    else:
        yield area.ok(f"{cores} cores, {', '.join(features) or 'features unknown'}.")


def _memory(proc: Path, workers: int) -> Iterator[Finding]:
    for line in _text(proc / "meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            available = int(line.split()[1]) * 1024
            seen = f"{available / 2**30:.1f} GiB of memory are available for {workers} at a time."
            area = Area("device", "memory")
            if available < workers * _BYTES_PER_WORKER:
                yield area.warning(
                    seen,
                    meaning="A large series may be stopped for lack of memory and tried again.",
                    fix="Lower enhancement.workers, or give the machine 4 GiB for each.",
                )
            else:
                yield area.ok(seen)


def _models(uses: list[EnhancerInUse]) -> Iterator[Finding]:
    """The device that a model with the option `device` would get."""
    for use in uses:
        wanted = use.options.get("device")
        if wanted is None:
            continue
        from engine.device import choose_device

        area = Area("device", use.name)
        try:
            yield area.ok(f"It runs on {choose_device(str(wanted)).label}.")
        except EngineError as exc:
            yield area.problem(
                f"Its option device is {wanted!r}, but {exc}.",
                meaning="Series that need it fail, and nothing is sent for them.",
                fix="Write device: auto or cpu, or make the GPU visible (nvidia-smi has to list it).",
            )


def _idle_gpu(proc: Path) -> Iterator[Finding]:
    """A GPU that the installed torch cannot use."""
    gpus = list((proc / "driver" / "nvidia" / "gpus").glob("*"))
    area = Area("device", "CUDA")
    if not gpus:
        yield area.ok("There is no NVIDIA GPU; models run on the processor.")
        return
    from engine.device import choose_device

    label = choose_device("auto").label
    if label.startswith("cuda"):
        yield area.ok(f"{len(gpus)} GPU; models run on {label}.")
        return
    yield area.warning(
        f"{len(gpus)} GPU, but torch cannot use it; models run on {label}.",
        meaning="Enhancement with a model is far slower than it could be.",
        fix="Install a torch build with CUDA that fits the driver (see nvidia-smi), or the CUDA image.",
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
