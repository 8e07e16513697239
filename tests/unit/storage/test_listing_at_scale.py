"""Lists and searches over 100,000 jobs and 1,000,000 instances: `pytest -m drill -s -k at_scale`."""

from __future__ import annotations

import statistics
import time
from datetime import timedelta

import pytest
from sqlalchemy import insert, text

from storage.filters import JobFilter, SeriesFilter
from storage.states import JobKind, JobState, SeriesState
from storage.tables import InstanceRow, JobRow, SeriesRow, plain

SERIES, EACH, LIMIT_MS = 100_000, 10, 300.0


def _fill(scene) -> None:
    """A year of a busy department."""
    at = scene.clock.at
    states = [*["STABLE"] * 17, "SKIPPED", "HELD", "RECEIVING"]
    ends = [*["SUCCEEDED"] * 18, "FAILED", "PENDING"]
    with scene.store._database.writing() as session:
        for start in range(0, SERIES, 5000):
            numbers = range(start, start + 5000)
            when = {n: at + timedelta(seconds=300 * n) for n in numbers}
            session.execute(
                insert(plain(SeriesRow)),
                [
                    {
                        "id": n + 1,
                        "study_instance_uid": f"1.2.840.113.{n // 4}",
                        "series_instance_uid": f"1.2.840.113.{n // 4}.{n}",
                        "modality": "CT" if n % 3 else "MR",
                        "calling_ae": f"SCANNER{n % 7}",
                        "called_ae": "ENHANCE",
                        "state": states[n % 20],
                        "generation": 1,
                        "revision": EACH,
                        "instance_count": EACH,
                        "interrupted": False,
                        "released": False,
                        "evidence": {},
                        "first_received_at": when[n],
                        "last_received_at": when[n],
                    }
                    for n in numbers
                ],
            )
            session.execute(
                insert(plain(JobRow)),
                [
                    {
                        "id": n + 1,
                        "kind": "ENHANCE" if n % 2 else "DELIVER",
                        "key": f"{n * 2654435761 % 2**32:08x}-{n}",
                        "series_id": n + 1,
                        "generation": 1,
                        "state": ends[n % 20],
                        "not_before": when[n],
                        "created_at": when[n],
                        "updated_at": when[n],
                        "attempts": 1,
                        "token": 1,
                        "priority": 0,
                        "cancel_requested": False,
                        "destination": None if n % 2 else f"pacs-{n % 5}",
                        "spec": {},
                        "result": {},
                    }
                    for n in numbers
                ],
            )
            session.execute(
                insert(plain(InstanceRow)),
                [
                    {
                        "series_id": n + 1,
                        "sop_class_uid": "1.2",
                        "sop_instance_uid": f"1.2.840.113.{n // 4}.{n}.{i}",
                        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
                        "digest": f"{n:032x}{i:032x}",
                        "path": f"incoming/{n}/{i}",
                        "size": 525_000,
                        "generation": 1,
                        "conflict": False,
                        "received_at": when[n],
                        "association_id": None,
                    }
                    for n in numbers
                    for i in range(EACH)
                ],
            )
    with scene.store._database.writing() as session:
        session.execute(text("ANALYZE"))


@pytest.mark.drill
@pytest.mark.timeout(1200)
def test_lists_and_searches_answer_at_scale(scene):
    _fill(scene)
    listing, at = scene.store.listing, scene.clock.at
    asked = {
        "newest jobs": listing.jobs,
        "deep page of jobs": lambda: listing.jobs(after=50_000),
        "failed jobs": lambda: listing.jobs(JobFilter(states=(JobState.FAILED,))),
        "failed jobs of MR": lambda: listing.jobs(JobFilter(states=(JobState.FAILED,), modalities=("MR",))),
        "jobs of a scanner": lambda: listing.jobs(JobFilter(calling_ae="SCANNER3")),
        "jobs of a destination": lambda: listing.jobs(
            JobFilter(kinds=(JobKind.DELIVER,), destination="pacs-2")
        ),
        "jobs of a day": lambda: listing.jobs(
            JobFilter(created_from=at + timedelta(days=100), created_before=at + timedelta(days=101))
        ),
        "jobs by a full UID": lambda: listing.jobs(JobFilter(text="1.2.840.113.777.3109")),
        "jobs by a broad prefix": lambda: listing.jobs(JobFilter(text="1.2.840")),
        "series by a prefix": lambda: listing.series(SeriesFilter(text="1.2.840.113.24")),
        "series by a broad prefix": lambda: listing.series(SeriesFilter(text="1.2.840")),
        "held series": lambda: listing.series(SeriesFilter(states=(SeriesState.HELD,))),
        "series of a day": lambda: listing.series(
            SeriesFilter(received_from=at + timedelta(days=100), received_before=at + timedelta(days=101))
        ),
        "instances of a series": lambda: listing.instances(4711),
        "counts": listing.counts,
    }
    slow = {}
    for name, ask in asked.items():
        times = []
        for _ in range(20):
            begin = time.perf_counter()
            ask()
            times.append((time.perf_counter() - begin) * 1000.0)
        p95 = sorted(times)[18]
        print(
            f"{scene.store._database.dialect:12} {name:28} median {statistics.median(times):7.1f} p95 {p95:7.1f} ms"
        )
        if p95 > LIMIT_MS:
            slow[name] = round(p95, 1)

    assert slow == {}
