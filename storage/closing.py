"""Closing a series, and a person's decision on one that is held; inside a transaction of `Index`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from storage.database import changed
from storage.errors import IllegalTransitionError
from storage.job_rows import SUPERSEDED, cancel_superseded, change_job, enqueue, new_job_row
from storage.operator_acts import start_over
from storage.records import NewJob
from storage.series_rows import lock_series, move_series, next_generation, open_association_exists
from storage.states import JobKind, JobState, SeriesEvent, SeriesState, advance
from storage.tables import JobRow, SeriesRow
from storage.trail import TrailEvent, add_event

_TOLD_AS = {
    SeriesEvent.CLOSE: TrailEvent.SERIES_CLOSED,
    SeriesEvent.SKIP: TrailEvent.SERIES_SKIPPED,
    SeriesEvent.HOLD: TrailEvent.SERIES_HELD,
}


@dataclass(frozen=True)
class Closing:
    """The decision on a series and why it was taken."""

    event: SeriesEvent
    reason: str | None
    message: str | None
    route: str | None
    evidence: dict[str, Any]
    job: NewJob | None
    completeness: str | None = None
    late_policy: str | None = None


def close_series(session: Session, series_id: int, revision: int, closing: Closing, *, at: datetime) -> bool:
    """Apply the decision if the series is as it was when the decision was taken. See `Index.close_series`."""
    if closing.event not in _TOLD_AS:
        raise IllegalTransitionError(SeriesState.RECEIVING, closing.event, "this does not close a series")
    # The row is locked before the statement that looks at associations: a database that does not lock
    # readers would otherwise judge them by what stood before the wait.
    row = lock_series(session, series_id)
    statement = (
        update(SeriesRow)
        .where(
            SeriesRow.id == series_id,
            SeriesRow.state == SeriesState.RECEIVING,
            SeriesRow.revision == revision,
            ~open_association_exists(),
        )
        .values(
            state=advance(SeriesState.RECEIVING, closing.event).value,
            revision=revision + 1,
            reason=closing.reason,
            message=closing.message,
            route=closing.route,
            evidence=closing.evidence,
            completeness=closing.completeness,
            late_policy=closing.late_policy,
            closed_at=at,
        )
        .execution_options(synchronize_session=False)
    )
    if changed(session.execute(statement)) != 1:
        return False
    session.refresh(row)
    data = {"generation": row.generation, "instances": row.instance_count, "reason": closing.reason}
    data |= {"route": closing.route, "completeness": closing.completeness}
    add_event(session, _TOLD_AS[closing.event], at=at, series_id=series_id, data=data)
    if closing.job is not None:
        _enqueue_once(session, row, closing.job, at)
    return True


def reopen_series(session: Session, series_id: int, actor: str, *, at: datetime) -> SeriesRow:
    """STABLE or SKIPPED to RECEIVING, in the next generation, with every instance that came late."""
    row = lock_series(session, series_id)
    was = row.state
    move_series(session, row, SeriesEvent.REOPEN, **next_generation(row, late=False))
    cancel_superseded(session, row.id, before=row.generation, at=at)
    name = TrailEvent.SERIES_REOPENED_BY_OPERATOR
    add_event(session, name, at=at, series_id=series_id, data={"actor": actor, "from": was})
    return row


def release_series(session: Session, series_id: int, actor: str, *, at: datetime) -> SeriesRow:
    """HELD to RECEIVING, with the evidence overruled for this generation."""
    row = lock_series(session, series_id)
    reason = row.reason
    move_series(
        session,
        row,
        SeriesEvent.RELEASE,
        released=True,
        late=False,
        closed_at=None,
        reason=None,
        message=None,
    )
    data = {"actor": actor, "reason": reason}
    add_event(session, TrailEvent.SERIES_RELEASED, at=at, series_id=series_id, data=data)
    return row


def discard_series(session: Session, series_id: int, actor: str, *, at: datetime) -> SeriesRow:
    """HELD to SKIPPED; the reason it was held for stays."""
    row = lock_series(session, series_id)
    move_series(session, row, SeriesEvent.DISCARD, closed_at=at)
    data = {"actor": actor, "reason": row.reason}
    add_event(session, TrailEvent.SERIES_DISCARDED, at=at, series_id=series_id, data=data)
    return row


def _enqueue_once(session: Session, series: SeriesRow, job: NewJob, at: datetime) -> None:
    """Insert the ENHANCE job unless one with its key exists: one input content, one derived series."""
    existing = session.scalars(select(JobRow).where(JobRow.key == job.key).with_for_update()).one_or_none()
    if existing is not None:
        _adopt(session, existing, series, at)
        return
    row = new_job_row(JobKind.ENHANCE, job, series_id=series.id, generation=series.generation, at=at)
    enqueue(session, row)


def _adopt(session: Session, job: JobRow, series: SeriesRow, at: datetime) -> None:
    """The content is that of an earlier generation: its job, and what it has to deliver, serve this one too.

    What the opening of this generation ended (SUPERSEDED), goes on: nothing replaced it after all.
    """
    if job.series_id != series.id or job.generation == series.generation:
        return
    deliveries = session.scalars(select(JobRow).where(JobRow.parent_id == job.id).with_for_update()).all()
    for row in (job, *deliveries):
        change_job(session, row, at=at, generation=series.generation)
        data = {"generation": series.generation}
        add_event(session, TrailEvent.JOB_ADOPTED, at=at, series_id=series.id, job_id=row.id, data=data)
        if row.state == JobState.CANCELED and row.reason == SUPERSEDED:
            start_over(session, row, "store", at=at)
