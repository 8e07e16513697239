"""The trail: what happened to each series and job, in order, added to and never changed."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from storage.clock import Clock
from storage.database import Database
from storage.mapping import event_record
from storage.records import EventRecord, Json
from storage.tables import EventRow, plain

Events = list[EventRecord]
_INSERT = insert(plain(EventRow))


class TrailEvent(StrEnum):
    """The events the store itself writes, each in the transaction of the change it tells of."""

    ASSOCIATION_OPENED = "association.opened"
    ASSOCIATION_CLOSED = "association.closed"
    INSTANCE_STORED = "instance.stored"
    INSTANCE_CONFLICT = "instance.conflict"
    SERIES_OPENED = "series.opened"
    SERIES_REOPENED = "series.reopened"
    SERIES_CARRIED = "series.carried"  # an association sent again what was stored already
    SERIES_CLOSED = "series.closed"
    SERIES_SKIPPED = "series.skipped"
    SERIES_HELD = "series.held"
    SERIES_RELEASED = "series.released"
    SERIES_DISCARDED = "series.discarded"
    SERIES_LATE = "series.late"  # an instance arrived after the derived series existed
    SERIES_RESENT = "series.resent"  # the sender of an interrupted series came back
    SERIES_REOPENED_BY_OPERATOR = "series.reopened_by_operator"
    SERIES_SAME_CONTENT = "series.same_content"  # instances that differ in bytes mean the same
    SERIES_PURGED = "series.purged"
    INSTANCE_DAMAGED = "instance.damaged"
    INSTANCE_REPAIRED = "instance.repaired"
    ALARM_RAISED = "alarm.raised"
    ALARM_CLEARED = "alarm.cleared"
    CLOCK_JUMPED = "clock.jumped"
    JOB_ADOPTED = "job.adopted"  # a newer generation has the same content
    JOB_ENQUEUED = "job.enqueued"
    JOB_CLAIMED = "job.claimed"
    JOB_STAGE = "job.stage"
    JOB_NOTE = "job.note"
    JOB_RETRY = "job.retry"
    JOB_SUCCEEDED = "job.succeeded"
    JOB_FAILED = "job.failed"
    JOB_ABANDONED = "job.abandoned"
    JOB_CANCEL_REQUESTED = "job.cancel_requested"
    JOB_CANCELED = "job.canceled"
    JOB_RESUBMITTED = "job.resubmitted"
    MANIFEST_COMMITTED = "manifest.committed"
    DELIVERY_INSTANCE = "delivery.instance"
    DELIVERY_RETRIED = "delivery.retried"
    DESTINATION_HELD = "destination.held"
    DESTINATION_CLEARED = "destination.cleared"
    DESTINATION_OPENED = "destination.opened"  # its circuit: nothing is sent until it answers again
    DELIVERY_REOPENED = "delivery.reopened"  # the destination did not keep what it had taken
    DELIVERY_ORDERED = "delivery.ordered"  # an operator wants a stored series sent
    COMMITMENT_ASKED = "commitment.asked"
    COMMITMENT_ANSWERED = "commitment.answered"
    COMMITMENT_EXPIRED = "commitment.expired"
    COMMITMENT_GIVEN_UP = "commitment.given_up"
    SERIES_LISTED = "series.listed"  # a held series is looked at again for what its sender listed
    SAFEKEEPING_ASKED = "safekeeping.asked"  # a sender wants us to keep what it sent
    SAFEKEEPING_JUDGED = "safekeeping.judged"
    SAFEKEEPING_PROMISED = "safekeeping.promised"  # instances of one series
    SAFEKEEPING_REPORTED = "safekeeping.reported"
    SAFEKEEPING_GIVEN_UP = "safekeeping.given_up"  # the sender could not be told


def add_event(
    session: Session,
    name: str,
    *,
    at: datetime,
    series_id: int | None = None,
    job_id: int | None = None,
    association_id: int | None = None,
    data: Json | None = None,
) -> None:
    """Add a line within the caller's transaction: it stands if and only if the change stands."""
    session.execute(
        _INSERT,
        {
            "at": at,
            "name": str(name),
            "series_id": series_id,
            "job_id": job_id,
            "association_id": association_id,
            "data": dict(data or {}),
        },
    )


class Trail:
    """Add to the trail and read it."""

    def __init__(self, database: Database, now: Clock) -> None:
        self._database = database
        self._now = now

    def append(
        self,
        name: str,
        *,
        series_id: int | None = None,
        job_id: int | None = None,
        association_id: int | None = None,
        data: Json | None = None,
    ) -> None:
        """Add one line. `data` is a JSON object without patient data."""
        with self._database.writing() as session:
            add_event(
                session,
                name,
                at=self._now(),
                series_id=series_id,
                job_id=job_id,
                association_id=association_id,
                data=data,
            )

    def for_series(self, series_id: int) -> Events:
        """Everything told of a series and its jobs, oldest first."""
        return self._read(select(EventRow).where(EventRow.series_id == series_id).order_by(EventRow.id))

    def for_job(self, job_id: int) -> Events:
        """Everything told of a job, oldest first."""
        return self._read(select(EventRow).where(EventRow.job_id == job_id).order_by(EventRow.id))

    def list(self, limit: int = 100) -> Events:
        """The latest lines, newest first."""
        return self._read(select(EventRow).order_by(EventRow.id.desc()).limit(limit))

    def _read(self, query: Any) -> Events:
        with self._database.reading() as session:
            return [event_record(row) for row in session.scalars(query)]
