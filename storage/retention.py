"""Deleting what is no longer needed: only what every destination has and no sender was promised, crash or not.

A file goes in three steps. The tombstone: one transaction checks once more that nothing speaks against it and takes
the file out of the index. The unlink. The end: the tombstone is dated. A crash between two steps leaves work that
`finish` takes up; a sender that sends the instance again finds none, and it is stored anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import ColumnElement, and_, delete, exists, func, or_, select, update
from sqlalchemy.orm import Session

from storage.database import Database
from storage.job_rows import SUPERSEDED
from storage.lease_clock import LeaseClock
from storage.link_states import Promise
from storage.safekeeping_tables import KeepItemRow
from storage.series_rows import change_series, lock_series
from storage.states import OPEN_JOB_STATES, DeliveryState, JobKind, JobState, SeriesState
from storage.tables import DeliveryRow, DerivedRow, InstanceRow, JobRow, SeriesRow, TombstoneRow
from storage.trail import TrailEvent, add_event

Why = Literal["age", "space"]


@dataclass(frozen=True)
class Ages:
    """How old a series has to be: since its last delivery, or since it was set aside. None: never deleted."""

    delivered: timedelta | None = None
    skipped: timedelta | None = None


@dataclass(frozen=True)
class Candidate:
    """A series whose files may go, and how many bytes that gives back; `since` is when its age began."""

    series_id: int
    series_instance_uid: str
    state: str
    since: datetime
    files: int
    size: int


class Retention:
    """Plans and carries out deletions. Several processes may: each file is deleted once."""

    def __init__(self, database: Database, directory: Path, clock: LeaseClock) -> None:
        self._database = database
        self._root = directory
        self._clock = clock

    def plan(self, ages: Ages, limit: int = 1000) -> tuple[Candidate, ...]:
        """The series whose files may go now, the longest finished first."""
        with self._database.reading() as session:
            at = self._clock.at(session)
            rows = session.execute(_candidates(ages, at).order_by(_SINCE, SeriesRow.id).limit(limit)).all()
            return tuple(_candidate(session, row, since) for row, since in rows)

    def bury(self, series_id: int, ages: Ages, why: Why = "age") -> int:
        """Write the tombstones of one series if nothing speaks against it now; how many files that are.

        After this the index knows the files no more. They are unlinked by `finish`.
        """
        with self._database.writing() as session:
            series = lock_series(session, series_id)
            at = self._clock.at(session)
            if session.execute(_candidates(ages, at).where(SeriesRow.id == series_id)).one_or_none() is None:
                return 0
            return _bury(session, series, why, at)

    def finish(self, limit: int = 10_000) -> int:
        """Unlink what has a tombstone and date it; how many files went. Safe to repeat at any time."""
        with self._database.reading() as session:
            query = select(TombstoneRow.id, TombstoneRow.path).where(TombstoneRow.finished_at.is_(None))
            waiting = session.execute(query.order_by(TombstoneRow.id).limit(limit)).all()
        gone = []
        for number, path in waiting:
            try:
                (self._root / path).unlink(missing_ok=True)
            except OSError:
                continue  # tried again next time; the watchdog tells of a tombstone that stays
            gone.append(number)
        for start in range(0, len(gone), 500):
            with self._database.writing() as session:
                session.execute(
                    update(TombstoneRow)
                    .where(TombstoneRow.id.in_(gone[start : start + 500]), TombstoneRow.finished_at.is_(None))
                    .values(finished_at=self._clock.at(session))
                    .execution_options(synchronize_session=False)
                )
        return len(gone)

    def run(
        self,
        ages: Ages,
        *,
        why: Why = "age",
        enough: Callable[[], bool] = lambda: False,
        go_on: Callable[[], bool] = lambda: True,
    ) -> tuple[Candidate, ...]:
        """Delete what may go, series by series, until there is `enough` room or no reason to `go_on`."""
        self.finish()
        done = []
        for candidate in self.plan(ages):
            if enough() or not go_on():
                break
            if self.bury(candidate.series_id, ages, why):
                self.finish()
                done.append(candidate)
        return tuple(done)


def _delivered() -> ColumnElement[bool]:
    """SQL: this series has its derived series, and every destination has all of it."""
    job = JobRow
    of_series = job.series_id == SeriesRow.id
    replaced = and_(
        job.state == JobState.CANCELED, job.reason == SUPERSEDED, job.generation < SeriesRow.generation
    )
    made = exists().where(
        of_series,
        job.kind == JobKind.ENHANCE,
        job.state == JobState.SUCCEEDED,
        job.generation == SeriesRow.generation,
    )
    sent = exists().where(
        of_series,
        job.kind == JobKind.DELIVER,
        job.state == JobState.SUCCEEDED,
        job.generation == SeriesRow.generation,
    )
    unfinished = exists().where(
        of_series,
        or_(job.state.in_(OPEN_JOB_STATES), and_(job.state != JobState.SUCCEEDED, ~replaced)),
    )
    lacking = exists().where(
        of_series,
        DeliveryRow.job_id == job.id,
        ~replaced,
        or_(
            DeliveryRow.state != DeliveryState.DELIVERED,
            and_(DeliveryRow.commitment.is_not(None), DeliveryRow.commitment != Promise.COMMITTED),
        ),
    )
    return and_(SeriesRow.state == SeriesState.STABLE, made, sent, ~unfinished, ~lacking)


def _nothing_to_do() -> ColumnElement[bool]:
    """SQL: the series was left alone, and no job of an earlier generation still has something to send."""
    job = JobRow
    waiting = exists().where(
        job.series_id == SeriesRow.id,
        or_(
            job.state.in_(OPEN_JOB_STATES),
            and_(job.kind == JobKind.DELIVER, job.state != JobState.SUCCEEDED),
        ),
    )
    return and_(SeriesRow.state == SeriesState.SKIPPED, ~waiting)


def _promised(at: datetime) -> ColumnElement[bool]:
    """SQL: a sender was promised that this series is kept, and the time of the promise is not over."""
    item = KeepItemRow
    return exists().where(
        item.series_id == SeriesRow.id, or_(item.kept_until.is_(None), item.kept_until > at)
    )


# The age of a series begins with the last thing that happened to it.
_SINCE: Any = func.coalesce(
    select(func.max(JobRow.finished_at)).where(JobRow.series_id == SeriesRow.id).scalar_subquery(),
    SeriesRow.closed_at,
    SeriesRow.last_received_at,
)


def _candidates(ages: Ages, at: datetime) -> Any:
    """The series that may go, with the beginning of their age."""
    ways: list[ColumnElement[bool]] = []
    for age, clause in ((ages.delivered, _delivered()), (ages.skipped, _nothing_to_do())):
        if age is not None:
            ways.append(and_(clause, at - age > _SINCE, SeriesRow.last_received_at < at - age))
    # Nothing configured, nothing deleted.
    wanted = or_(*ways) if ways else SeriesRow.id < 0
    return select(SeriesRow, _SINCE).where(SeriesRow.purged_at.is_(None), wanted, ~_promised(at))


def _candidate(session: Session, row: SeriesRow, since: datetime) -> Candidate:
    files = size = 0
    for table in (InstanceRow, DerivedRow):
        query = select(func.count(), func.coalesce(func.sum(table.size), 0)).where(table.series_id == row.id)
        if table is DerivedRow:
            query = query.where(DerivedRow.purged_at.is_(None))
        number, length = session.execute(query).one()
        files, size = files + number, size + int(length)
    return Candidate(row.id, row.series_instance_uid, row.state, since, files, size)


def _bury(session: Session, series: SeriesRow, why: Why, at: datetime) -> int:
    """Take the files of a locked series out of the index, each leaving its tombstone."""
    instances = session.scalars(select(InstanceRow).where(InstanceRow.series_id == series.id)).all()
    derived = session.scalars(
        select(DerivedRow).where(DerivedRow.series_id == series.id, DerivedRow.purged_at.is_(None))
    ).all()
    session.add_all(_tombstones(instances, derived=False, why=why, at=at))
    session.add_all(_tombstones(derived, derived=True, why=why, at=at))
    numbers = select(InstanceRow.id).where(InstanceRow.series_id == series.id)
    quietly = {"synchronize_session": False}
    session.flush()
    # The rows of instances go with their files, so that a new copy is taken for what it is: not there yet. The
    # rows of derived instances stay, because their UIDs stay taken.
    session.execute(
        update(DeliveryRow)
        .where(DeliveryRow.instance_id.in_(numbers))
        .values(instance_id=None)
        .execution_options(**quietly)
    )
    session.execute(
        delete(InstanceRow).where(InstanceRow.series_id == series.id).execution_options(**quietly)
    )
    session.execute(
        update(DerivedRow)
        .where(DerivedRow.series_id == series.id, DerivedRow.purged_at.is_(None))
        .values(purged_at=at)
        .execution_options(**quietly)
    )
    change_series(session, series, purged_at=at, instance_count=0)
    data = {"instances": len(instances), "derived": len(derived), "why": why}
    add_event(session, TrailEvent.SERIES_PURGED, at=at, series_id=series.id, data=data)
    return len(instances) + len(derived)


def _tombstones(
    rows: Iterable[InstanceRow | DerivedRow], *, derived: bool, why: Why, at: datetime
) -> list[TombstoneRow]:
    return [
        TombstoneRow(
            series_id=row.series_id,
            sop_instance_uid=row.sop_instance_uid,
            derived=derived,
            path=row.path,
            digest=row.digest,
            size=row.size,
            reason=why,
            created_at=at,
        )
        for row in rows
    ]
