"""Lists for people and for the API: filtered, newest first or oldest first, one page at a time.

Pages go on from a row, not from a count (keyset pagination): page 1,000 costs what page 1 costs, and rows that
arrive meanwhile shift nothing. Every list is answered from an index; the counts read an index only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from sqlalchemy import ColumnElement, Select, exists, func, select
from sqlalchemy.orm import Session

from storage.database import Database
from storage.filters import DeliveryFilter, EventFilter, JobFilter, SeriesFilter
from storage.mapping import delivery_record, event_record, instance_record, job_record, series_record
from storage.records import DeliveryRecord, EventRecord, InstanceRecord, JobRecord, SeriesRecord
from storage.searching import Searching
from storage.tables import DeliveryRow, EventRow, InstanceRow, JobRow, SeriesRow

T = TypeVar("T")
Order = Literal["newest", "oldest"]
Search = Callable[[str], ColumnElement[bool]]
Clauses = Callable[[Searching], list[ColumnElement[bool]]]
LARGEST_PAGE = 1000
_BIGGEST_ID = 2**63 - 1


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page; `cursor` asks for the next one, and is None when there is none."""

    items: tuple[T, ...]
    cursor: int | None


@dataclass(frozen=True)
class Counts:
    """How many rows there are: series by state, jobs by (kind, state), deliveries by (destination, state)."""

    series: dict[str, int]
    jobs: dict[tuple[str, str], int]
    deliveries: dict[tuple[str, str], int]


class Listing:
    """Read-only lists. Every method is one short read transaction that waits for no writer.

    `after` is the cursor of the page before; `limit` is held between 1 and `LARGEST_PAGE`.
    """

    def __init__(self, database: Database, directory: Path) -> None:
        self._database = database
        self._root = directory

    def series(
        self,
        wanted: SeriesFilter = SeriesFilter(),  # noqa: B008 (frozen)
        *,
        after: int | None = None,
        limit: int = 50,
        order: Order = "newest",
    ) -> Page[SeriesRecord]:
        """Series that match."""
        return self._page(
            select(SeriesRow),
            SeriesRow.id,
            series_record,
            lambda searching: series_clauses(wanted, searching.series),
            after=after,
            limit=limit,
            order=order,
        )

    def jobs(
        self,
        wanted: JobFilter = JobFilter(),  # noqa: B008
        *,
        after: int | None = None,
        limit: int = 50,
        order: Order = "newest",
    ) -> Page[JobRecord]:
        """Jobs of both kinds that match."""
        return self._page(
            select(JobRow),
            JobRow.id,
            job_record,
            lambda searching: job_clauses(wanted, searching.jobs),
            after=after,
            limit=limit,
            order=order,
        )

    def deliveries(
        self,
        wanted: DeliveryFilter = DeliveryFilter(),  # noqa: B008
        *,
        after: int | None = None,
        limit: int = 50,
        order: Order = "newest",
    ) -> Page[DeliveryRecord]:
        """Deliveries that match."""
        return self._page(
            select(DeliveryRow),
            DeliveryRow.id,
            delivery_record,
            lambda searching: delivery_clauses(wanted, searching.deliveries),
            after=after,
            limit=limit,
            order=order,
        )

    def events(
        self,
        wanted: EventFilter = EventFilter(),  # noqa: B008
        *,
        after: int | None = None,
        limit: int = 50,
        order: Order = "newest",
    ) -> Page[EventRecord]:
        """Lines of the trail that match. With `order="oldest"` and the last cursor, what was added since."""
        return self._page(
            select(EventRow),
            EventRow.id,
            event_record,
            lambda searching: event_clauses(wanted, searching.events),
            after=after,
            limit=limit,
            order=order,
        )

    def instances(
        self, series_id: int, *, after: int | None = None, limit: int = 50, order: Order = "oldest"
    ) -> Page[InstanceRecord]:
        """The instances of a series, contents in conflict included, in the order of arrival."""
        return self._page(
            select(InstanceRow),
            InstanceRow.id,
            partial(instance_record, root=self._root),
            lambda _: [InstanceRow.series_id == series_id],
            after=after,
            limit=limit,
            order=order,
        )

    def series_by_id(self, ids: Iterable[int]) -> dict[int, SeriesRecord]:
        """The series with these numbers, for a page of jobs; at most `LARGEST_PAGE` of them."""
        wanted = list(dict.fromkeys(ids))[:LARGEST_PAGE]
        with self._database.reading() as session:
            rows = session.scalars(select(SeriesRow).where(SeriesRow.id.in_(wanted)))
            return {row.id: series_record(row) for row in rows}

    def latest_event_id(self) -> int:
        """The number of the newest line of the trail, 0 for an empty one: where a follower starts."""
        with self._database.reading() as session:
            return session.scalar(select(func.max(EventRow.id))) or 0

    def counts(self) -> Counts:
        """How many rows there are in each state."""
        with self._database.reading() as session:
            series = _grouped(session, SeriesRow.state)
            jobs = _grouped(session, JobRow.kind, JobRow.state)
            deliveries = _grouped(session, DeliveryRow.destination, DeliveryRow.state)
        return Counts({key[0]: count for key, count in series.items()}, jobs, deliveries)

    def _page(
        self,
        query: Select[Any],
        key: Any,
        record: Callable[[Any], T],
        clauses: Clauses,
        *,
        after: int | None,
        limit: int,
        order: Order,
    ) -> Page[T]:
        """Run one page of the query; one row more than asked for tells whether there is another page."""
        size = min(max(limit, 1), LARGEST_PAGE)
        newest = order == "newest"
        if after is not None:
            after = min(max(after, 0), _BIGGEST_ID)
            query = query.where(key < after if newest else key > after)
        query = query.order_by(key.desc() if newest else key).limit(size + 1)
        with self._database.reading() as session:
            wanted = clauses(Searching(session, self._database.dialect))
            rows = list(session.scalars(query.where(*wanted)))
            items = tuple(record(row) for row in rows[:size])
        return Page(items, rows[size - 1].id if len(rows) > size else None)


def series_clauses(wanted: SeriesFilter, search: Search) -> list[ColumnElement[bool]]:
    """The conditions of a series filter."""
    clauses = [
        *_among(SeriesRow.state, wanted.states),
        *_among(SeriesRow.modality, wanted.modalities),
        *_among(SeriesRow.reason, wanted.reasons),
        *_equal(SeriesRow.calling_ae, wanted.calling_ae),
        *_equal(SeriesRow.called_ae, wanted.called_ae),
        *_equal(SeriesRow.route, wanted.route),
        *_equal(SeriesRow.study_instance_uid, wanted.study_instance_uid),
        *_equal(SeriesRow.interrupted, wanted.interrupted),
        *_between(SeriesRow.last_received_at, wanted.received_from, wanted.received_before),
    ]
    return [*clauses, search(wanted.text)] if wanted.text else clauses


def job_clauses(wanted: JobFilter, search: Search) -> list[ColumnElement[bool]]:
    """The conditions of a job filter."""
    clauses = [
        *_among(JobRow.kind, wanted.kinds),
        *_among(JobRow.state, wanted.states),
        *_among(JobRow.stage, wanted.stages),
        *_among(JobRow.reason, wanted.reasons),
        *_equal(JobRow.series_id, wanted.series_id),
        *_equal(JobRow.parent_id, wanted.parent_id),
        *_equal(JobRow.destination, wanted.destination),
        *_between(JobRow.created_at, wanted.created_from, wanted.created_before),
    ]
    of_series = [
        *_among(SeriesRow.modality, wanted.modalities),
        *_equal(SeriesRow.calling_ae, wanted.calling_ae),
    ]
    if of_series:
        # Asked of each job in turn, so that a page ends where it is full; a set of series would be made whole first.
        clauses.append(exists().where(SeriesRow.id == JobRow.series_id, *of_series))
    if wanted.text:
        clauses.append(search(wanted.text))
    return clauses


def delivery_clauses(wanted: DeliveryFilter, search: Search) -> list[ColumnElement[bool]]:
    """The conditions of a delivery filter."""
    clauses = [
        *_among(DeliveryRow.state, wanted.states),
        *_equal(DeliveryRow.destination, wanted.destination),
        *_equal(DeliveryRow.job_id, wanted.job_id),
    ]
    if wanted.series_id is not None:
        jobs = select(JobRow.id).where(JobRow.series_id == wanted.series_id)
        clauses.append(DeliveryRow.job_id.in_(jobs))
    if wanted.text:
        clauses.append(search(wanted.text))
    return clauses


def event_clauses(wanted: EventFilter, search: Search) -> list[ColumnElement[bool]]:
    """The conditions of an event filter."""
    clauses = [
        *_equal(EventRow.series_id, wanted.series_id),
        *_equal(EventRow.job_id, wanted.job_id),
        *_equal(EventRow.association_id, wanted.association_id),
        *_between(EventRow.at, wanted.at_from, wanted.at_before),
    ]
    if wanted.name and wanted.name.endswith("."):
        clauses.append(search(wanted.name))
    elif wanted.name:
        clauses.append(EventRow.name == wanted.name)
    return clauses


def _among(column: Any, values: tuple[str, ...]) -> list[ColumnElement[bool]]:
    if not values:
        return []
    return [column == values[0]] if len(values) == 1 else [column.in_(values)]


def _equal(column: Any, value: Any) -> list[ColumnElement[bool]]:
    return [] if value is None else [column == value]


def _between(column: Any, first: datetime | None, before: datetime | None) -> list[ColumnElement[bool]]:
    clauses = [] if first is None else [column >= first]
    return clauses if before is None else [*clauses, column < before]


def _grouped(session: Session, *columns: Any) -> dict[Any, int]:
    """How many rows there are of each combination."""
    rows = session.execute(select(*columns, func.count()).group_by(*columns))
    return {tuple(row[:-1]): row[-1] for row in rows}
