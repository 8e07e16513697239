"""How fast a series becomes a volume, beside a plain pydicom loop over the same files in the same run.

Every reading is a process of its own, so that its peak of memory is its own; both take turns. The files are
read once before, so both find them in memory: what is measured is parsing, decoding and assembly.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEG2000Lossless

from dicom_node.errors import NodeError
from dicom_node.imaging.assembly import AssemblyPolicy
from dicom_node.imaging.phantom_series import PhantomStyle, write_ct_series
from dicom_node.imaging.series_reader import read_series
from engine.volume import IntensityUnit, Volume

SYNTAXES: Final = {"native": str(ExplicitVRLittleEndian), "jpeg2000": str(JPEG2000Lossless)}
_ENCODED: Final = 24  # slices that are really encoded; the others are copies at other positions
_SIZE: Final = 512
_LIMIT_S: Final = 3600.0


@dataclass(frozen=True)
class Reading:
    """One series read once: wall and CPU seconds without the start of Python, peak resident memory."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class ReadRow:
    """One transfer syntax, read by the node and by the loop."""

    syntax: str
    slices: int
    ours: tuple[Reading, ...]
    plain: tuple[Reading, ...]

    @property
    def rates(self) -> tuple[float, float]:
        """Slices per second of both, medians."""
        ours, plain = (median(r.seconds for r in readings) for readings in (self.ours, self.plain))
        return self.slices / ours, self.slices / plain

    @property
    def ratio(self) -> float:
        """How many times faster than the loop."""
        ours, plain = self.rates
        return ours / plain

    @property
    def cpu_ms(self) -> tuple[float, float]:
        """Milliseconds of CPU a slice of both, medians, decoding processes included."""
        ours, plain = (median(r.cpu_seconds for r in readings) for readings in (self.ours, self.plain))
        return 1000 * ours / self.slices, 1000 * plain / self.slices

    @property
    def peaks(self) -> tuple[int, int]:
        """Largest peak of both, decoding processes included."""
        return max(r.peak_bytes for r in self.ours), max(r.peak_bytes for r in self.plain)


def measure(folder: Path, *, slices: int, repeats: int, tell: Callable[[str], None]) -> Iterator[ReadRow]:
    """Write a series in each transfer syntax into `folder` and read each `repeats` times both ways."""
    for name, syntax in SYNTAXES.items():
        tell(f"Writing {slices} slices, {name} ...")
        paths = write_series(folder / name, slices, syntax)
        for path in paths:
            path.read_bytes()
        ours, plain = [], []
        for number in range(repeats):
            tell(f"Reading, {name}, run {number + 1} of {repeats} ...")
            plain.append(_run("plain", folder / name))
            ours.append(_run("ours", folder / name))
        yield ReadRow(name, slices, tuple(ours), tuple(plain))


def write_series(folder: Path, slices: int, syntax: str) -> list[Path]:
    """Write a noisy CT series of 512 x 512; pixels repeat, positions and UIDs do not."""
    rng = np.random.default_rng(1)
    count = min(slices, _ENCODED)
    y, x = np.mgrid[0:_SIZE, 0:_SIZE].astype(np.float32)
    body = np.where(np.hypot(y - 256, x - 256) < 200, 40.0, -1000.0).astype(np.float32)
    array = np.maximum(body + rng.normal(0, 20, (count, _SIZE, _SIZE)).astype(np.float32), np.float32(-1024))
    affine = np.array([[0, 0, 0.7, -180], [0, 0.7, 0, -180], [1, 0, 0, 0], [0, 0, 0, 1]], np.float64)
    volume = Volume(array, affine, IntensityUnit.HU)
    written = write_ct_series(volume, folder, style=PhantomStyle(syntax=syntax))
    models = [dcmread(path) for path in written]
    return [
        _copy(models[number % count], number, folder / f"{number + 1:04d}.dcm") for number in range(slices)
    ]


def _copy(model: FileDataset, number: int, path: Path) -> Path:
    """The model at another position, with a UID of its own."""
    model.SOPInstanceUID = model.file_meta.MediaStorageSOPInstanceUID = UID(f"2.25.{10**20 + number}")
    model.InstanceNumber = number + 1
    model.ImagePositionPatient = ["-180", "-180", str(number)]
    model.save_as(path)
    return path


def _run(kind: str, folder: Path) -> Reading:
    """Read in a fresh process."""
    command = [sys.executable, "-m", "dicom_node.demo.bench_read", kind, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LIMIT_S)
    if done.returncode != 0:
        raise NodeError(f"reading ended with exit status {done.returncode}")
    return Reading(**json.loads(done.stdout.splitlines()[-1]))


def read_plain(paths: list[Path]) -> NDArray[np.float32]:
    """What one writes in a minute: parse, decode, rescale, sort, stack."""
    pieces = []
    for path in paths:
        ds = dcmread(path)
        real = ds.pixel_array.astype(np.float32) * np.float32(ds.RescaleSlope) + np.float32(
            ds.RescaleIntercept
        )
        pieces.append((float(ds.ImagePositionPatient[2]), real))
    pieces.sort(key=lambda piece: piece[0])
    return np.stack([real for _, real in pieces])


def read_ours(paths: list[Path]) -> NDArray[np.float32]:
    """As the node reads a series that it is going to enhance."""
    return read_series(paths, AssemblyPolicy()).volume.array


def main() -> None:
    """Read one folder one way and print the figures."""
    kind, folder = sys.argv[1], Path(sys.argv[2])
    paths = sorted(folder.glob("*.dcm"))
    begin, cpu = time.perf_counter(), _cpu_seconds()
    array = read_plain(paths) if kind == "plain" else read_ours(paths)
    seconds = time.perf_counter() - begin
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    answer = {
        "seconds": seconds,
        "cpu_seconds": _cpu_seconds() - cpu,
        "peak_bytes": (own + children) * 1024,
    }
    print(json.dumps(answer))  # noqa: T201 - what the caller reads
    if array.shape[0] != len(paths):
        raise SystemExit(1)


def _cpu_seconds() -> float:
    """CPU time of this process and of its children that have ended."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


if __name__ == "__main__":
    main()
