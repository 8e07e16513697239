"""What lists and searches cost with many rows: fills a database, asks as page and API do, prints percentiles."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from config.sections import StorageSection
from config.settings import Settings
from dicom_node.desk.desk import Desk, open_desk
from storage.fill import BEGIN, OLD_ROOT, ROOT, fill
from storage.filters import DeliveryFilter, EventFilter, JobFilter, SeriesFilter
from storage.states import JobKind, JobState, SeriesState
from storage.store import open_store


@dataclass(frozen=True)
class Timing:
    """Milliseconds of one question over its repeats."""

    median_ms: float
    p95_ms: float


def _overview(desk: Desk) -> object:
    desk.figures.forget()
    return desk.figures.overview()


def _jobs(after: int | None = None, **wanted: Any) -> Callable[[Desk], object]:
    return lambda desk: desk.store.listing.jobs(JobFilter(**wanted), after=after, limit=50)


def _series(**wanted: Any) -> Callable[[Desk], object]:
    return lambda desk: desk.store.listing.series(SeriesFilter(**wanted), limit=50)


def _deliveries(**wanted: Any) -> Callable[[Desk], object]:
    return lambda desk: desk.store.listing.deliveries(DeliveryFilter(**wanted), limit=50)


def _events(**wanted: Any) -> Callable[[Desk], object]:
    return lambda desk: desk.store.listing.events(EventFilter(**wanted), limit=50)


def _day(number: int) -> tuple[datetime, datetime]:
    """One of the first days of the rows."""
    first = BEGIN + timedelta(days=number % 10)
    return first, first + timedelta(days=1)


# Each takes a number that varies, so that no repeat asks exactly the same.
QUESTIONS: Mapping[str, Callable[[int], Callable[[Desk], object]]] = {
    "jobs, newest": lambda _: _jobs(),
    "jobs, page from the middle": lambda n: _jobs(after=50_000 + n),
    "jobs, failed": lambda _: _jobs(states=(JobState.FAILED,)),
    "jobs, one modality": lambda _: _jobs(modalities=("PT",)),
    "jobs, one modality, failed": lambda _: _jobs(modalities=("MR",), states=(JobState.FAILED,)),
    "jobs, one sender": lambda n: _jobs(calling_ae=f"SCANNER_{n % 40}"),
    "jobs, one peer": lambda n: _jobs(kinds=(JobKind.DELIVER,), destination=f"pacs-{n % 4}"),
    "jobs, one day": lambda n: _jobs(created_from=_day(n)[0], created_before=_day(n)[1]),
    "jobs, one UID": lambda n: _jobs(text=f"{ROOT}.{n // 3}.{n}"),
    "jobs, text": lambda n: _jobs(text=f"{ROOT}.{n // 3}"),
    "jobs, text that all have": lambda _: _jobs(text="1."),
    "jobs, text that the oldest have": lambda _: _jobs(text=OLD_ROOT),
    "jobs, text that all have, failed MR": lambda _: _jobs(
        text="1.", modalities=("MR",), states=(JobState.FAILED,)
    ),
    "jobs, text that is nowhere": lambda n: _jobs(text=f"zzz{n}"),
    "series, newest": lambda _: _series(),
    "series, held": lambda _: _series(states=(SeriesState.HELD,)),
    "series, one day": lambda n: _series(received_from=_day(n)[0], received_before=_day(n)[1]),
    "series, text": lambda n: _series(text=f"{ROOT}.{n // 3}"),
    "series, text that all have": lambda _: _series(text="1."),
    "series, text that the oldest have": lambda _: _series(text=OLD_ROOT),
    "series, text that is nowhere": lambda n: _series(text=f"zzz{n}"),
    "instances of a series": lambda n: lambda desk: desk.store.listing.instances(n),
    "deliveries, one peer": lambda n: _deliveries(destination=f"pacs-{n % 4}"),
    "deliveries, text that all have": lambda _: _deliveries(text="2.25"),
    "events, one kind": lambda _: _events(name="job."),
    "why-not, instance UID": lambda n: lambda d: d.store.finder.by_uid(f"{ROOT}.{n // 3}.{n}.0"),
    "why-not, unknown UID": lambda n: lambda d: d.store.finder.by_uid(f"9.9.{n}"),
    "overview, computed anew": lambda _: _overview,
    "counts": lambda _: lambda desk: desk.store.listing.counts(),
    "approval rates": lambda _: lambda desk: desk.store.reviews.rates(),
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
        # From the middle of the series on: the oldest of them are a case of their own.
        return {name: _time(ask, desk, jobs // 4, repeats) for name, ask in QUESTIONS.items()}


def _time(
    question: Callable[[int], Callable[[Desk], object]], desk: Desk, first: int, repeats: int
) -> Timing:
    taken = []
    for number in range(repeats):
        ask = question(first + number * 97)
        begin = time.perf_counter()
        ask(desk)
        taken.append((time.perf_counter() - begin) * 1000)
    return Timing(
        round(statistics.median(taken), 2), round(sorted(taken)[max(0, int(len(taken) * 0.95) - 1)], 2)
    )
