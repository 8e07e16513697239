"""What lists and searches cost with many rows: fills a database, asks as page and API do, prints percentiles."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from config.sections import StorageSection
from config.settings import Settings
from dicom_node.desk.desk import Desk, open_desk
from storage.fill import fill
from storage.filters import DeliveryFilter, EventFilter, JobFilter, SeriesFilter
from storage.states import JobState, SeriesState
from storage.store import open_store

Ask = Callable[[Desk, int], object]


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one question over its repeats."""

    median_ms: float
    p95_ms: float


def _overview(desk: Desk, _number: int) -> object:
    desk.figures.forget()
    return desk.figures.overview()


# Each takes a number that varies, so that no repeat asks exactly the same.
QUESTIONS: Mapping[str, Ask] = {
    "jobs, newest": lambda d, _: d.store.listing.jobs(limit=50),
    "jobs, page from the middle": lambda d, n: d.store.listing.jobs(after=50_000 + n, limit=50),
    "jobs, failed": lambda d, _: d.store.listing.jobs(JobFilter(states=(JobState.FAILED,)), limit=50),
    "jobs, one modality": lambda d, _: d.store.listing.jobs(JobFilter(modalities=("PT",)), limit=50),
    "jobs, one sender": lambda d, n: d.store.listing.jobs(
        JobFilter(calling_ae=f"SCANNER_{n % 40}"), limit=50
    ),
    "jobs, text": lambda d, n: d.store.listing.jobs(JobFilter(text=f"1.2.826.{n}"), limit=50),
    "jobs, text that is nowhere": lambda d, n: d.store.listing.jobs(JobFilter(text=f"zzz{n}"), limit=50),
    "series, newest": lambda d, _: d.store.listing.series(limit=50),
    "series, held": lambda d, _: d.store.listing.series(SeriesFilter(states=(SeriesState.HELD,)), limit=50),
    "series, text": lambda d, n: d.store.listing.series(SeriesFilter(text=f"1.2.826.{n}"), limit=50),
    "series, text that is nowhere": lambda d, n: d.store.listing.series(
        SeriesFilter(text=f"zzz{n}"), limit=50
    ),
    "deliveries, one peer": lambda d, n: d.store.listing.deliveries(
        DeliveryFilter(destination=f"pacs-{n % 4}"), limit=50
    ),
    "events, one kind": lambda d, _: d.store.listing.events(EventFilter(name="job."), limit=50),
    "why-not, instance UID": lambda d, n: d.store.finder.by_uid(f"1.2.826.{n // 3}.{n}.0"),
    "why-not, unknown UID": lambda d, n: d.store.finder.by_uid(f"9.9.{n}"),
    "overview, computed anew": _overview,
    "approval rates": lambda d, _: d.store.reviews.rates(),
}


def measure(
    database_url: str,
    folder: Path,
    *,
    jobs: int,
    instances: int,
    repeats: int,
    heard: Callable[[str], None],
) -> dict[str, Timing]:
    """Fill the empty database and time every question."""
    begin = time.monotonic()
    fill(database_url, jobs=jobs, instances=instances, heard=heard)
    heard(f"filled in {time.monotonic() - begin:.0f} s")
    section = StorageSection(directory=folder)
    with open_store(database_url, folder) as store:
        desk = open_desk(store, Settings(storage=section))
        return {name: _time(ask, desk, repeats) for name, ask in QUESTIONS.items()}


def _time(ask: Ask, desk: Desk, repeats: int) -> Timing:
    taken = []
    for number in range(repeats):
        begin = time.perf_counter()
        ask(desk, number * 97 + 1)
        taken.append((time.perf_counter() - begin) * 1000)
    return Timing(
        round(statistics.median(taken), 2), round(sorted(taken)[max(0, int(len(taken) * 0.95) - 1)], 2)
    )
