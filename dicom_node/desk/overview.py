"""What came in, what went out, what waits and for how long: the figures of the first page, a moment old at most."""

from __future__ import annotations

import shutil
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from config.settings import Settings
from dicom_node.desk.gpus import read_gpus
from storage.statistics import StoreFigures
from storage.store import Store

_KEPT_S = 2.0
_WAITING = ("PENDING", "RETRY")


@dataclass(frozen=True)
class Overview:
    """One look at the node. Ages and expectations in seconds; None where nothing waits or nothing is known."""

    at: datetime
    figures: StoreFigures
    queue_age_s: Mapping[str, float]
    expected_s: float | None
    disk: Mapping[str, int | float]
    machine: Mapping[str, Any]
    enhancer: str
    paused: Mapping[str, bool]


class Figures:
    """Computes the overview at most every two seconds, whoever asks and however often."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        in_force: Callable[[], Settings],
        now: Callable[[], datetime],
    ) -> None:
        """`in_force`: the settings with what a person decided since the node began."""
        self._store = store
        self._settings = settings
        self._in_force = in_force
        self._now = now
        self._lock = threading.Lock()
        self._kept: tuple[float, Overview] | None = None

    def overview(self) -> Overview:
        """The figures, two seconds old or a little more: one caller computes, the others get the last ones."""
        kept = self._kept
        if kept is not None and (time.monotonic() - kept[0] <= _KEPT_S or self._lock.locked()):
            return kept[1]
        with self._lock:
            if self._kept is None or self._kept is kept:
                self._kept = (time.monotonic(), self._compute())
            return self._kept[1]

    def forget(self) -> None:
        """Compute anew at the next call: something was just changed on purpose."""
        with self._lock:
            self._kept = None

    def _compute(self) -> Overview:
        figures, at = self._store.statistics.figures(), self._now()
        return Overview(
            at=at,
            figures=figures,
            queue_age_s={
                kind: (at - oldest).total_seconds() for kind, oldest in figures.oldest_waiting.items()
            },
            expected_s=expected_seconds(figures, self._settings.enhancement.workers),
            disk=disk_figures(self._settings),
            machine=machine_figures(),
            enhancer=self._in_force().enhancement.enhancer,
            paused=self._store.pauses.all(),
        )


def expected_seconds(figures: StoreFigures, workers: int) -> float | None:
    """How long the enhancements that wait will take, from the median of the latest ones; None if unknown."""
    recent = [seconds for values in figures.recent_seconds.values() for seconds in values]
    jobs = figures.jobs.get("ENHANCE", {})
    waiting = sum(jobs.get(state, 0) for state in (*_WAITING, "RUNNING"))
    if not waiting:
        return 0.0
    return statistics.median(recent) * waiting / workers if recent else None


def disk_figures(settings: Settings) -> dict[str, int | float]:
    """Bytes of the file system under the store, and the marks at which it is called full."""
    usage = shutil.disk_usage(settings.storage.directory)
    marks = settings.storage.watermarks
    return {
        "total": usage.total,
        "used": usage.used,
        "free": usage.free,
        "used_percent": round(100.0 * usage.used / usage.total, 1),
        "soft_percent": marks.soft,
        "hard_percent": marks.hard,
    }


def machine_figures() -> dict[str, Any]:
    """Load, memory and GPUs of this machine, read from the system; without memory where it does not tell."""
    import os

    figures: dict[str, Any] = {
        "cpus": os.cpu_count() or 1,
        "load": os.getloadavg()[0],
        "gpus": read_gpus(),
    }
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123
            lines = dict(line.split(":", 1) for line in file)
        figures["memory_total"] = int(lines["MemTotal"].split()[0]) * 1024
        figures["memory_free"] = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return figures
    return figures
