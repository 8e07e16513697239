"""Nothing waits unseen: every state in which something can wait has a time limit, and an alarm behind it.

The limits are far above what healthy work takes; what passes one is stuck, or a person has forgotten it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from storage.alarms import AlarmCode, clear_alarm, raise_alarm
from storage.database import Database
from storage.lease_clock import LeaseClock
from storage.series_rows import open_association_exists
from storage.states import WAITING_JOB_STATES, JobKind, JobState, SeriesState
from storage.tables import AlarmRow, AssociationRow, JobRow, SeriesRow, TombstoneRow

_MOST = 200


@dataclass(frozen=True)
class Limits:
    """How long something may stay in a state."""

    association: timedelta = timedelta(hours=4)
    closing: timedelta = timedelta(hours=26)  # a series that no association carries any more
    held: timedelta = timedelta(days=7)
    waiting: timedelta = timedelta(hours=6)  # an ENHANCE job that is due
    running: timedelta = timedelta(hours=2)
    lease: timedelta = timedelta(minutes=1)  # a lost lease that nobody takes back: the sweeper is dead
    delivery: timedelta = timedelta(days=1)
    deletion: timedelta = timedelta(hours=1)


@dataclass(frozen=True)
class Overdue:
    """Something that stays too long; `subject` names it, as the alarm does."""

    subject: str
    state: str
    since: datetime
    limit: timedelta


class Watchdog:
    """Looks at every state; raises an alarm for what is overdue and ends it for what goes on."""

    def __init__(self, database: Database, clock: LeaseClock) -> None:
        self._database = database
        self._clock = clock

    def overdue(self, limits: Limits = Limits()) -> tuple[Overdue, ...]:
        """What is overdue now, at most a few hundred of each kind."""
        with self._database.reading() as session:
            return tuple(_overdue(session, limits, self._clock.at(session)))

    def watch(self, limits: Limits = Limits()) -> tuple[Overdue, ...]:
        """Bring the alarms in line with what is overdue; what newly is."""
        found = {item.subject: item for item in self.overdue(limits)}
        with self._database.reading() as session:
            told = set(session.scalars(select(AlarmRow.subject).where(AlarmRow.code == AlarmCode.OVERDUE)))
        new = [item for subject, item in found.items() if subject not in told]
        gone = told - set(found)
        if new or gone:
            with self._database.writing() as session:
                at = self._clock.at(session)
                for item in new:
                    data = {"state": item.state, "since": item.since.isoformat()}
                    data["limit_s"] = str(item.limit.total_seconds())
                    raise_alarm(session, AlarmCode.OVERDUE, item.subject, at=at, data=data)
                for subject in sorted(gone):
                    clear_alarm(session, AlarmCode.OVERDUE, subject, at=at)
        return tuple(new)


def _overdue(session: Session, limits: Limits, at: datetime) -> Iterator[Overdue]:
    """Every kind in turn."""
    job, series = JobRow, SeriesRow
    enhance, deliver = job.kind == JobKind.ENHANCE, job.kind == JobKind.DELIVER
    waiting, running = job.state.in_(WAITING_JOB_STATES), job.state == JobState.RUNNING
    unattended = (series.state == SeriesState.RECEIVING) & ~open_association_exists()
    kinds: tuple[tuple[str, str, Any, Any, ColumnElement[bool], timedelta], ...] = (
        (
            "association",
            "OPEN",
            AssociationRow.id,
            AssociationRow.opened_at,
            AssociationRow.ended_at.is_(None),
            limits.association,
        ),
        ("series", "RECEIVING", series.id, series.last_received_at, unattended, limits.closing),
        ("series", "HELD", series.id, series.closed_at, series.state == SeriesState.HELD, limits.held),
        ("job", "WAITING", job.id, job.not_before, enhance & waiting, limits.waiting),
        ("job", "RUNNING", job.id, job.updated_at, enhance & running, limits.running),
        ("job", "LEASE", job.id, job.lease_expires_at, running, limits.lease),
        ("job", "DELIVERING", job.id, job.created_at, deliver & (waiting | running), limits.delivery),
        (
            "deletion",
            "TOMBSTONE",
            TombstoneRow.id,
            TombstoneRow.created_at,
            TombstoneRow.finished_at.is_(None),
            limits.deletion,
        ),
    )
    for what, state, key, since, clause, limit in kinds:
        query = select(key, since).where(clause, since < at - limit).order_by(key).limit(_MOST)
        for number, began in session.execute(query):
            yield Overdue(f"{what} {number} {state}", state, began, limit)
