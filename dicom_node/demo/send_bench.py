"""How fast this node sends, beside DCMTK's dcmsend, into the same storescp, run about.

Both send the same files over the same number of associations, in turns, so that a machine that slows down
slows both. Our senders are processes that run already, as those of a node do; of dcmsend the time of a
bare start is taken off. Ours prove the SHA-256 of every file on the way, dcmsend proves nothing.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid

from config.sections import Peer
from dicom_node.demo.bench import BenchError, free_port
from dicom_node.network.sender_pool import SenderPool
from dicom_node.network.stored_file import Outgoing, outgoing

_DCMSEND, _STORESCP = "dcmsend", "storescp"
# Without it both DCMTK programs wait 40 ms for an acknowledgement with every instance.
_PROMPT: Final = {"TCP_NODELAY": "1"}


@dataclass(frozen=True)
class Load:
    """What is sent: how many objects of how many rows and columns of 16 bit."""

    instances: int
    matrix: int
    sop_class_uid: str
    modality: str


KINDS: Final = {
    "ct": Load(300, 512, str(CTImageStorage), "CT"),
    "mr": Load(1000, 256, str(MRImageStorage), "MR"),
}


@dataclass
class Runs:
    """The runs of one sender: seconds for all instances, and processor seconds of the sender alone."""

    seconds: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class SendRow:
    """Ours and dcmsend side by side for one kind and number of associations."""

    kind: str
    associations: int
    instances: int
    ours: Runs
    dcmsend: Runs

    @property
    def ratio(self) -> float:
        """Our instances a second over dcmsend's, from the medians."""
        return statistics.median(self.dcmsend.seconds) / statistics.median(self.ours.seconds)

    def rates(self, runs: Runs) -> list[float]:
        """Instances a second of each run."""
        return [self.instances / seconds for seconds in runs.seconds]

    def cpu_ms(self, runs: Runs) -> float:
        """Processor milliseconds an instance, from the median."""
        return 1000 * statistics.median(runs.cpu_s) / self.instances

    def as_json(self) -> dict[str, Any]:
        """Every figure of every run."""
        senders = {
            name: {
                "instances_per_s": [round(rate, 1) for rate in self.rates(runs)],
                "median_per_s": round(statistics.median(self.rates(runs)), 1),
                "cpu_ms_per_instance": round(self.cpu_ms(runs), 3),
            }
            for name, runs in (("ours", self.ours), ("dcmsend", self.dcmsend))
        }
        sizes = {"kind": self.kind, "associations": self.associations, "instances": self.instances}
        return {**sizes, **senders, "ratio": round(self.ratio, 3)}


def measure(
    kinds: list[str], associations: list[int], *, repeats: int, tell: Callable[[str], None]
) -> list[SendRow]:
    """Run every combination `repeats` times after one run that does not count. Raises `BenchError`."""
    for program in (_DCMSEND, _STORESCP):
        if shutil.which(program) is None:
            raise BenchError(f"{program} is not installed (apt-get install dcmtk)")
    rows = []
    for kind in kinds:
        with tempfile.TemporaryDirectory(prefix="dicom-node-bench-") as name:
            folder = Path(name)
            tell(f"{kind}: writing {KINDS[kind].instances} objects")
            files = write_load(KINDS[kind], folder / "load")
            rows += [
                _compare(kind, files, folder, associations=count, repeats=repeats, tell=tell)
                for count in associations
            ]
    return rows


def write_load(load: Load, folder: Path) -> list[Outgoing]:
    """Write the objects: noise, which no disk and no line can shrink; with their digests."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    study, series = generate_uid(), generate_uid()
    items = []
    for number in range(load.instances):
        dataset = Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = load.sop_class_uid, generate_uid()
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
        dataset.Modality, dataset.PatientName, dataset.PatientID = load.modality, "BENCH", "BENCH"
        dataset.InstanceNumber = number + 1
        dataset.Rows = dataset.Columns = load.matrix
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, 0
        dataset.PixelData = rng.bytes(load.matrix * load.matrix * 2)
        dataset["PixelData"].VR = "OW"
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder / f"{number:05d}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        items.append(replace(outgoing(path), digest=hashlib.sha256(path.read_bytes()).hexdigest()))
    return items


def _compare(
    kind: str,
    files: list[Outgoing],
    folder: Path,
    *,
    associations: int,
    repeats: int,
    tell: Callable[[str], None],
) -> SendRow:
    """Both senders in turns into one storescp."""
    row = SendRow(kind, associations, len(files), Runs(), Runs())
    shares = _shares(files, folder / f"shares-{associations}", associations)
    with _storescp(folder / f"archive-{associations}") as (peer, archive), SenderPool(associations) as pool:
        senders: list[tuple[Runs, Callable[[], tuple[float, float]]]] = [
            (row.ours, lambda: _ours(pool, peer, files)),
            (row.dcmsend, lambda: _dcmsend(peer, shares)),
        ]
        for repeat in range(repeats + 1):
            for runs, run in senders if repeat % 2 else reversed(senders):
                seconds, cpu_s = run()
                _emptied(archive, expected=len(files))
                if repeat:
                    runs.seconds.append(seconds)
                    runs.cpu_s.append(cpu_s)
            if repeat:
                pair = [f"{row.rates(runs)[-1]:.0f}" for runs in (row.ours, row.dcmsend)]
                tell(f"{kind}, {associations}: ours {pair[0]}/s, dcmsend {pair[1]}/s")
    return row


def _ours(pool: SenderPool, peer: Peer, files: list[Outgoing]) -> tuple[float, float]:
    """One run of ours, the reading of every file's meta included, as dcmsend reads it too."""
    stored: list[int | None] = []
    begin, cpu = time.perf_counter(), time.process_time()
    described = [replace(outgoing(item.path), digest=item.digest) for item in files]
    reports = pool.send(peer, described, lambda answer: stored.append(answer.status))
    seconds = time.perf_counter() - begin
    if stored.count(0) != len(files):
        raise BenchError(f"only {stored.count(0)} of {len(files)} instances were stored")
    return seconds, time.process_time() - cpu + sum(report.cpu_s for report in reports)


def _dcmsend(peer: Peer, shares: list[Path]) -> tuple[float, float]:
    """One run of dcmsend, a process for each association; a bare start of it is taken off."""
    bare_s = _timed([[_DCMSEND, "--version"]])[0]
    options = ["-q", "-aet", "BENCH", "-aec", peer.ae_title, "+sd"]
    commands = [[_DCMSEND, *options, peer.host, str(peer.port), str(share)] for share in shares]
    seconds, cpu_s = _timed(commands)
    return seconds - bare_s, cpu_s


def _timed(commands: list[list[str]]) -> tuple[float, float]:
    """Run commands at once; wall clock seconds, and processor seconds of all of them."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    quiet, environ = subprocess.DEVNULL, {**os.environ, **_PROMPT}
    processes = [subprocess.Popen(command, stdout=quiet, stderr=quiet, env=environ) for command in commands]
    codes = [process.wait() for process in processes]
    seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    if any(codes):
        raise BenchError(f"{commands[0][0]} ended with exit status {max(codes)}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _shares(files: list[Outgoing], folder: Path, count: int) -> list[Path]:
    """The same files, every n-th in a folder of its own."""
    shares = [folder / str(number) for number in range(count)]
    for number, share in enumerate(shares):
        share.mkdir(parents=True)
        for item in files[number::count]:
            os.link(item.path, share / item.path.name)
    return shares


@contextmanager
def _storescp(folder: Path) -> Iterator[tuple[Peer, Path]]:
    """DCMTK's storescp, a process for each association, which syncs nothing."""
    folder.mkdir()
    port = free_port()
    command = [_STORESCP, "--fork", "-od", str(folder), "-aet", "BENCHARCHIVE", str(port)]
    quiet, environ = subprocess.DEVNULL, {**os.environ, **_PROMPT}
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet, env=environ)
    try:
        _await_port(port, process)
        yield (
            Peer(
                name="archive", ae_title="BENCHARCHIVE", host="127.0.0.1", port=port, calling_ae_title="BENCH"
            ),
            folder,
        )
    finally:
        process.terminate()
        process.wait(10)


def _await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Return when something listens."""
    deadline = time.monotonic() + 10
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise BenchError("storescp did not start")


def _emptied(folder: Path, *, expected: int) -> None:
    """Count what has arrived, and make room for the next run."""
    found = list(folder.iterdir())
    if len(found) != expected:
        raise BenchError(f"{len(found)} of {expected} instances arrived")
    for path in found:
        path.unlink()
