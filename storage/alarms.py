"""Alarms: what a person has to know, from when it begins until it is over.

An alarm is a code and a subject. Raising it again counts; the trail is told of the first time and of the end
only, so that a lasting trouble fills no log.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.clock import Clock
from storage.database import Database
from storage.mapping import alarm_record
from storage.records import AlarmRecord, Json
from storage.tables import AlarmRow
from storage.trail import TrailEvent, add_event

Alarms_ = list[AlarmRecord]


class AlarmCode(StrEnum):
    """What the store and the intake raise; others add codes of their own as plain text."""

    LATE_INSTANCE = "late_instance"  # an instance arrived after the derived series existed
    OVERDUE = "overdue"  # something stays in a state longer than its limit
    DAMAGED_FILE = "damaged_file"  # a stored file lost its digest
    DISK = "disk"  # space or inodes below a mark
    STORE_UNHEALTHY = "store_unhealthy"  # the disk failed to sync, and has not proved itself since
    CLOCK_JUMP = "clock_jump"  # the wall clock was set while jobs were waiting


def raise_alarm(
    session: Session,
    code: str,
    subject: str,
    *,
    at: datetime,
    series_id: int | None = None,
    data: Json | None = None,
) -> bool:
    """Raise an alarm within the caller's transaction; True when it is new."""
    facts = dict(data or {})
    row = session.get(AlarmRow, (str(code), subject), with_for_update=True)
    if row is not None:
        row.seen_at, row.count, row.data = at, row.count + 1, facts
        session.flush()
        return False
    session.add(AlarmRow(code=str(code), subject=subject, raised_at=at, seen_at=at, count=1, data=facts))
    session.flush()
    told = {"code": str(code), "subject": subject, **facts}
    add_event(session, TrailEvent.ALARM_RAISED, at=at, series_id=series_id, data=told)
    return True


def damaged_subject(kind: str, row_id: int) -> str:
    """What the alarm of a damaged file is about: the row of a ``received`` or ``derived`` file."""
    return f"{kind} file {row_id}"


def clear_alarm(session: Session, code: str, subject: str, *, at: datetime, actor: str | None = None) -> bool:
    """End an alarm within the caller's transaction; False when there was none."""
    row = session.get(AlarmRow, (str(code), subject), with_for_update=True)
    if row is None:
        return False
    told = {"code": str(code), "subject": subject, "since": row.raised_at.isoformat(), "actor": actor}
    session.delete(row)
    session.flush()
    add_event(session, TrailEvent.ALARM_CLEARED, at=at, data=told)
    return True


class Alarms:
    """Raise, end and list alarms. Every method is one short transaction."""

    def __init__(self, database: Database, now: Clock) -> None:
        self._database = database
        self._now = now

    def raise_(self, code: str, subject: str, data: Json | None = None) -> bool:
        """Raise an alarm; True when it is new. `data` is a JSON object without patient data."""

        def work() -> bool:
            with self._database.writing() as session:
                return raise_alarm(session, code, subject, at=self._now(), data=data)

        return self._database.retrying(work)

    def clear(self, code: str, subject: str, *, actor: str | None = None) -> bool:
        """End an alarm, because it is over or because the actor has seen it; False when there was none."""
        with self._database.reading() as session:
            if session.get(AlarmRow, (str(code), subject)) is None:
                return False
        with self._database.writing() as session:
            return clear_alarm(session, code, subject, at=self._now(), actor=actor)

    def active(self, code: str | None = None) -> Alarms_:
        """The alarms that last, the oldest first."""
        query = select(AlarmRow).order_by(AlarmRow.raised_at, AlarmRow.code, AlarmRow.subject)
        if code is not None:
            query = query.where(AlarmRow.code == str(code))
        with self._database.reading() as session:
            return [alarm_record(row) for row in session.scalars(query)]
