"""Fills a database with made-up rows, to measure what lists and searches cost when there are many.

For an empty database only: nothing of a node in use is touched.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

from sqlalchemy import Table, func, insert, select, text

from storage.database import Database
from storage.errors import StorageError
from storage.migrate import upgrade
from storage.tables import DeliveryRow, DerivedRow, EventRow, InstanceRow, JobRow, SeriesRow, plain

ROOT, OLD_ROOT = "1.2.826", "1.3.12"
_BATCH = 5000
_MODALITIES = ("CT", "CT", "CT", "MR", "MR", "PT")
_SERIES_STATES = ("STABLE",) * 17 + ("SKIPPED", "SKIPPED", "HELD")
_JOB_STATES = ("SUCCEEDED",) * 17 + ("FAILED", "CANCELED", "RETRY")
BEGIN = datetime(2031, 1, 1, tzinfo=UTC)
Row = dict[str, Any]


def fill(
    database_url: str, *, jobs: int, instances: int, heard: Callable[[str], None] = lambda _: None
) -> None:
    """Write half as many series as jobs (an enhancement and a delivery each), and instances spread over them.

    Raises `StorageError` when the database holds anything already.
    """
    upgrade(database_url)
    database = Database(database_url)
    try:
        with database.reading() as session:
            if session.scalar(select(func.count()).select_from(SeriesRow)):
                raise StorageError("the database is not empty; nothing was written")
        series = max(1, jobs // 2)
        each = max(1, instances // series)
        for table, rows in (
            (plain(SeriesRow), _series(series, each)),
            (plain(InstanceRow), _instances(series, each)),
            (plain(JobRow), _jobs(series)),
            (plain(DerivedRow), _derived(series)),
            (plain(DeliveryRow), _deliveries(series)),
            (plain(EventRow), _events(series)),
        ):
            heard(f"{table.name}: {_write(database, table, rows)}")
        with database.writing() as session:
            session.execute(text("ANALYZE"))
    finally:
        database.close()


def _write(database: Database, table: Table, rows: Iterator[Row]) -> int:
    count = 0
    while batch := list(islice(rows, _BATCH)):
        with database.writing() as session:
            session.execute(insert(table), batch)
        count += len(batch)
    return count


def _at(number: int) -> datetime:
    return BEGIN + timedelta(seconds=37 * number)


def _pick(values: tuple[str, ...], number: int) -> str:
    return values[random.Random(number).randrange(len(values))]  # noqa: S311 (the same rows each time)


def _study(number: int, count: int) -> str:
    """The study of a series. The oldest quarter came from another maker: what matches may all lie far back."""
    return f"{OLD_ROOT if number <= count // 4 else ROOT}.{number // 3}"


def _series(count: int, each: int) -> Iterator[Row]:
    for number in range(1, count + 1):
        yield {
            "id": number,
            "study_instance_uid": _study(number, count),
            "series_instance_uid": f"{_study(number, count)}.{number}",
            "modality": _pick(_MODALITIES, number),
            "calling_ae": f"SCANNER_{number % 40}",
            "called_ae": "ENHANCE",
            "state": _pick(_SERIES_STATES, number),
            "generation": 1,
            "revision": each + 1,
            "instance_count": each,
            "interrupted": False,
            "released": False,
            "route": "thin",
            "evidence": {},
            "first_received_at": _at(number),
            "last_received_at": _at(number) + timedelta(seconds=30),
            "closed_at": _at(number) + timedelta(seconds=90),
        }


def _instances(series: int, each: int) -> Iterator[Row]:
    for number in range(1, series + 1):
        for place in range(each):
            identity = number * each + place
            yield {
                "series_id": number,
                "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
                "sop_instance_uid": f"{_study(number, series)}.{number}.{place}",
                "transfer_syntax_uid": "1.2.840.10008.1.2.1",
                "digest": f"{identity:064x}",
                "path": f"instances/{identity:012x}.dcm",
                "size": 525_000,
                "generation": 1,
                "conflict": False,
                "received_at": _at(number),
            }


def _jobs(series: int) -> Iterator[Row]:
    for number in range(1, series + 1):
        for kind, offset in (("ENHANCE", 0), ("DELIVER", series)):
            at = _at(number) + timedelta(seconds=100)
            yield {
                "id": number + offset,
                "kind": kind,
                "key": f"{kind.lower()}-{number:08d}",
                "series_id": number,
                "generation": 1,
                "state": _pick(_JOB_STATES, number + offset),
                "attempts": 1,
                "priority": 0,
                "not_before": at,
                "created_at": at,
                "updated_at": at + timedelta(seconds=20),
                "finished_at": at + timedelta(seconds=20),
                "token": 1,
                "cancel_requested": False,
                "destination": f"pacs-{number % 4}" if offset else None,
                "parent_id": number if offset else None,
                "spec": {"enhancer": "classical", "strength": 0.9},
                "result": {"seconds": {"READ": 1.0, "ENHANCE": 8.0}} if not offset else {},
            }


def _derived(series: int) -> Iterator[Row]:
    for number in range(1, series + 1):
        for place in range(4):
            yield {
                "id": number * 4 + place,
                "job_id": number,
                "series_id": number,
                "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
                "sop_instance_uid": f"2.25.{number}.{place}",
                "series_instance_uid": f"2.25.{number}",
                "transfer_syntax_uid": "1.2.840.10008.1.2.1",
                "path": f"derived/{number}/1/{place}.dcm",
                "digest": f"{number:064x}",
                "size": 525_000,
                "position": place,
            }


def _deliveries(series: int) -> Iterator[Row]:
    for number in range(1, series + 1):
        for place in range(4):
            yield {
                "job_id": number + series,
                "derived_id": number * 4 + place,
                "sop_instance_uid": f"2.25.{number}.{place}",
                "destination": f"pacs-{number % 4}",
                "state": "DELIVERED" if number % 50 else "PENDING",
                "status": 0,
                "comment": "",
                "attempts": 1,
                "updated_at": _at(number) + timedelta(seconds=130),
            }


def _events(series: int) -> Iterator[Row]:
    names = ("series.closed", "job.enqueued", "job.claimed", "job.succeeded", "manifest.committed")
    for number in range(1, series + 1):
        for name in names:
            yield {"at": _at(number), "name": name, "series_id": number, "job_id": number, "data": {}}
