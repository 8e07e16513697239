"""How fast this node receives, beside Orthanc and DCMTK's storescp, in turns on the same machine.

Every run begins with a fresh receiver and a few objects that do not count. Ours and Orthanc answer after a
sync; storescp never syncs.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from config.settings import load_settings
from dicom_node.demo.bench import BenchError
from dicom_node.demo.load import KINDS, LoadPool, Sent, write_objects
from dicom_node.demo.receivers import Running, is_installed, running
from dicom_node.network.association import associate
from dicom_node.network.presentation import EXPLICIT_LE, VERIFICATION, ProposedContext
from dicom_node.network.stored_file import Outgoing
from dicom_node.operations import open_node_store

_WARM_UP = 10
Tell = Callable[[str], None]


@dataclass
class Runs:
    """The runs of one receiver."""

    rates: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)
    answers_s: list[float] = field(default_factory=list)
    peak_mib: float = 0.0

    def add(self, sent: Sent, cpu_s: float, peak_bytes: int) -> None:
        """Count one run. Raises `BenchError` when it was not answered in full."""
        if sent.refused or sent.troubles:
            raise BenchError(f"{sent.refused} refused; {'; '.join(sent.troubles) or 'no trouble'}")
        self.rates.append(sent.answered / sent.seconds)
        self.cpu_ms.append(1000 * cpu_s / sent.answered)
        self.answers_s += sent.answers_s
        self.peak_mib = max(self.peak_mib, peak_bytes / 2**20)

    def percentile_ms(self, percent: int) -> float:
        """Of the times to an answer, in milliseconds."""
        ordered = sorted(self.answers_s)
        return 1000 * ordered[min(len(ordered) * percent // 100, len(ordered) - 1)]

    def as_json(self) -> dict[str, Any]:
        """Every figure."""
        return {
            "instances_per_s": [round(rate, 1) for rate in self.rates],
            "median_per_s": round(statistics.median(self.rates), 1),
            "cpu_ms_per_instance": round(statistics.median(self.cpu_ms), 3),
            "answer_ms": {str(p): round(self.percentile_ms(p), 2) for p in (50, 99)},
            "peak_mib": round(self.peak_mib, 1),
        }


@dataclass(frozen=True)
class ReceiveRow:
    """All receivers side by side for one kind and number of associations."""

    kind: str
    associations: int
    runs: dict[str, Runs]

    def ratio(self, other: str) -> float | None:
        """Our instances a second over the other's, from the medians."""
        if other not in self.runs:
            return None
        return statistics.median(self.runs["ours"].rates) / statistics.median(self.runs[other].rates)

    def as_json(self) -> dict[str, Any]:
        """Every figure of every run."""
        receivers = {name: runs.as_json() for name, runs in self.runs.items()}
        ratios = {f"over_{name}": self.ratio(name) for name in self.runs if name != "ours"}
        return {"kind": self.kind, "associations": self.associations, **receivers, **ratios}


def measure(
    kinds: Sequence[str], associations: Sequence[int], peers: Sequence[str], *, repeats: int, tell: Tell
) -> list[ReceiveRow]:
    """Run every combination `repeats` times. Raises `BenchError`."""
    missing = [name for name in peers if not is_installed(name)]
    if missing:
        raise BenchError(f"not installed: {', '.join(missing)}")
    rows = []
    for kind in kinds:
        with tempfile.TemporaryDirectory(prefix="dicom-node-bench-") as name:
            folder = Path(name)
            tell(f"{kind}: writing {KINDS[kind].instances} objects")
            (files,) = write_objects(
                KINDS[kind], folder / "load", number=KINDS[kind].instances + _WARM_UP, series=1
            )
            for count in associations:
                row = ReceiveRow(kind, count, {name: Runs() for name in ("ours", *peers)})
                with LoadPool(count) as pool:
                    for repeat in range(repeats):
                        _compare(row, pool, files, folder, repeat=repeat, tell=tell)
                rows.append(row)
    return rows


def _compare(
    row: ReceiveRow, pool: LoadPool, files: list[Outgoing], folder: Path, *, repeat: int, tell: Tell
) -> None:
    """One run of each receiver, in turns that change."""
    names = list(row.runs)
    for name in names[repeat % len(names) :] + names[: repeat % len(names)]:
        place = folder / f"{name}-{row.associations}-{repeat}"
        with running(name, place, associations=row.associations) as receiver:
            pool.send(receiver.peer, [files[:_WARM_UP]])
            shares = [files[_WARM_UP + number :: row.associations] for number in range(row.associations)]
            cpu = receiver.cpu_s()
            sent = pool.send(receiver.peer, shares)
            row.runs[name].add(sent, receiver.cpu_s() - cpu, receiver.peak_bytes())
        shutil.rmtree(place, ignore_errors=True)
    rates = ", ".join(f"{name} {runs.rates[-1]:.0f}/s" for name, runs in row.runs.items())
    tell(f"{row.kind}, {row.associations}: {rates}")


# --- many at once


@dataclass(frozen=True)
class LoadReport:
    """Many associations at once into this node alone, and whether everything is there exactly once."""

    associations: int
    instances: int
    runs: Runs
    stored: int
    doubled: int

    @property
    def is_whole(self) -> bool:
        """None lost, none double."""
        return self.stored == self.instances and not self.doubled

    def as_json(self) -> dict[str, Any]:
        """Every figure."""
        sizes = {"associations": self.associations, "instances": self.instances}
        return {**sizes, **self.runs.as_json(), "stored": self.stored, "doubled": self.doubled}


def measure_load(kind: str, associations: int, slices: int, *, tell: Tell) -> LoadReport:
    """Send so many slices over each of so many associations at once, then count what is stored."""
    with tempfile.TemporaryDirectory(prefix="dicom-node-bench-") as name:
        folder = Path(name)
        tell(f"{kind}: writing {associations * slices} objects")
        shares = write_objects(KINDS[kind], folder / "load", number=slices, series=associations)
        runs = Runs()
        with (
            LoadPool(associations) as pool,
            running("ours", folder / "ours", associations=associations) as node,
        ):
            cpu = node.cpu_s()
            sent = pool.send(node.peer, shares)
            runs.add(sent, node.cpu_s() - cpu, node.peak_bytes())
            stored, doubled = _count(node)
        return LoadReport(associations, associations * slices, runs, stored, doubled)


def _count(node: Running) -> tuple[int, int]:
    """Different instances in the index whose file is there, and rows beyond one for each."""
    with open_node_store(load_settings(node.folder / "node.yaml")) as store:
        rows = [row for one in store.index.list_series(limit=10_000) for row in store.index.instances(one.id)]
        names = {row.sop_instance_uid for row in rows if row.path.is_file()}
        return len(names), len(rows) - len({row.sop_instance_uid for row in rows})


def measure_idle(associations: int, seconds: float) -> float:
    """The share of a core that so many silent associations cost."""
    done, ready = threading.Event(), threading.Barrier(associations + 1)
    with (
        tempfile.TemporaryDirectory(prefix="dicom-node-bench-") as name,
        running("ours", Path(name) / "ours", associations=associations) as node,
    ):
        threads = [threading.Thread(target=_idle, args=(node, ready, done)) for _ in range(associations)]
        for thread in threads:
            thread.start()
        ready.wait(60)
        cpu, begin = node.cpu_s(), time.monotonic()
        time.sleep(seconds)
        share = (node.cpu_s() - cpu) / (time.monotonic() - begin)
        done.set()
        for thread in threads:
            thread.join()
    return share


def _idle(node: Running, ready: threading.Barrier, done: threading.Event) -> None:
    """Hold an association and say nothing."""
    with associate(node.peer, (ProposedContext(VERIFICATION, (EXPLICIT_LE,)),), None):
        ready.wait(60)
        done.wait(120)
