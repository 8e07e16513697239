"""Metrics in the text format of Prometheus (version 0.0.4), read from the store at the time of asking.

The database is the truth, so the figures of all processes of a node come out of one place and survive restarts. No
label holds patient data: states, kinds, AE titles, peers.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from dicom_node import __version__
from dicom_node.desk.desk import Desk
from dicom_node.desk.gpus import Gpu

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_KEPT_S = 10.0

Labels = Mapping[str, str]


@dataclass(frozen=True)
class Family:
    """One metric with its samples."""

    name: str
    kind: str
    help: str
    samples: tuple[tuple[Labels, float], ...]


class Metrics:
    """Reads all metrics at most every ten seconds; figures of large tables are worth that."""

    def __init__(self, desk: Desk, *, kept_s: float = _KEPT_S) -> None:
        self._desk = desk
        self._kept_s = kept_s
        self._lock = threading.Lock()
        self._kept: tuple[float, str] | None = None

    def text(self) -> str:
        """The exposition."""
        with self._lock:
            if self._kept is None or time.monotonic() - self._kept[0] > self._kept_s:
                self._kept = (time.monotonic(), render(self.families()))
            return self._kept[1]

    def families(self) -> list[Family]:
        """Every metric."""
        return [*self._traffic(), *self._work(), *self._out(), *self._machine()]

    def _traffic(self) -> Iterator[Family]:
        counts = self._desk.store.statistics.traffic()
        yield _gauge("associations_open", "Associations open now.", [({}, counts.open_associations)])
        yield _counter(
            "associations_total",
            "Associations that ended, by how.",
            [({"ending": ending}, count) for ending, count in sorted(counts.endings.items())],
        )
        yield _counter("associations_rejected_total", "Associations rejected.", [({}, counts.rejected)])
        yield _gauge("instances_stored", "Instances in the store.", [({}, counts.instances)])
        yield _gauge("instances_stored_bytes", "Bytes of instances in the store.", [({}, counts.bytes)])

    def _work(self) -> Iterator[Family]:
        overview = self._desk.figures.overview()
        figures = overview.figures
        yield _gauge(
            "series",
            "Received series, by modality and state.",
            [
                ({"modality": modality, "state": state}, count)
                for modality, states in sorted(figures.series_by_modality.items())
                for state, count in sorted(states.items())
            ],
        )
        yield _gauge(
            "jobs",
            "Jobs, by kind and state.",
            [
                ({"kind": kind, "state": state}, count)
                for kind, states in sorted(figures.jobs.items())
                for state, count in sorted(states.items())
            ],
        )
        yield _gauge(
            "queue_age_seconds",
            "Age of the oldest job that waits.",
            [({"kind": kind}, overview.queue_age_s.get(kind, 0.0)) for kind in ("ENHANCE", "DELIVER")],
        )
        yield _gauge(
            "stage_seconds",
            "Median seconds of each stage over the latest 200 enhancements.",
            [
                ({"stage": stage}, statistics.median(values))
                for stage, values in sorted(self._desk.store.statistics.stage_seconds().items())
            ],
        )
        yield _gauge(
            "paused",
            "Whether a part of the line is paused.",
            [({"part": part}, float(paused)) for part, paused in sorted(overview.paused.items())],
        )

    def _out(self) -> Iterator[Family]:
        figures = self._desk.figures.overview().figures
        yield _gauge(
            "deliveries",
            "Instances at destinations, by state.",
            [
                ({"destination": name, "state": state}, count)
                for name, peer in sorted(figures.peers.items())
                for state, count in sorted(peer.instances.items())
            ],
        )
        yield _gauge(
            "destination_failures",
            "Failures in a row of a destination.",
            [
                ({"destination": status.name}, status.failures)
                for status in self._desk.store.destinations.list()
            ],
        )
        kinds: dict[str, int] = {}
        for alert in self._desk.store.alerts.lasting():
            kinds[alert.kind] = kinds.get(alert.kind, 0) + 1
        yield _gauge(
            "alerts",
            "What is wrong now, by kind.",
            [
                ({"kind": kind}, kinds.get(kind, 0))
                for kind in ("alarm", "disk", "failed", "held", "peer", "stuck")
            ],
        )

    def _machine(self) -> Iterator[Family]:
        overview = self._desk.figures.overview()
        disk = [({"kind": kind}, overview.disk[kind]) for kind in ("total", "used", "free")]
        yield _gauge("disk_bytes", "The file system under the store.", disk)
        yield _gauge("load", "Load average of one minute.", [({}, overview.machine["load"])])
        gpus: Sequence[Gpu] = overview.machine["gpus"]
        yield _gauge(
            "gpu_utilization_percent", "Use of a GPU.", [({"gpu": gpu.index}, gpu.use) for gpu in gpus]
        )
        yield _gauge(
            "gpu_memory_bytes",
            "Memory of a GPU.",
            [
                ({"gpu": gpu.index, "kind": kind}, value)
                for gpu in gpus
                for kind, value in (("used", gpu.used), ("total", gpu.total))
            ],
        )
        labels = {"version": __version__, "enhancer": overview.enhancer}
        yield _gauge("info", "Version and default enhancer.", [(labels, 1)])


def render(families: Iterable[Family]) -> str:
    """The text format; a metric without samples still shows that it exists."""
    lines = []
    for family in families:
        lines += [f"# HELP {family.name} {family.help}", f"# TYPE {family.name} {family.kind}"]
        for labels, value in family.samples:
            inner = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
            lines.append(
                f"{family.name}{{{inner}}} {_number(value)}" if inner else f"{family.name} {_number(value)}"
            )
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _gauge(name: str, text: str, samples: Iterable[tuple[Labels, float]]) -> Family:
    return Family(f"dicom_node_{name}", "gauge", text, tuple(samples))


def _counter(name: str, text: str, samples: Iterable[tuple[Labels, float]]) -> Family:
    return Family(f"dicom_node_{name}", "counter", text, tuple(samples))
