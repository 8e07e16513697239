"""Changes to one job row, for use inside a transaction of `JobQueue`, `Deliveries` or `Index`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from storage.database import changed
from storage.errors import LostClaimError, NotFoundError
from storage.records import JobRecord, Json, NewJob
from storage.states import OPEN_JOB_STATES, JobEvent, JobKind, JobState, advance
from storage.tables import JobRow
from storage.trail import TrailEvent, add_event

# The words of dicom_node.errors.Reason that the store itself has to write.
SUPERSEDED = "SUPERSEDED"
ABANDONED = "ABANDONED"
CANCELED_BY_OPERATOR = "CANCELED_BY_OPERATOR"

_UNCLAIMED: dict[str, Any] = {"claimed_by": None, "lease_expires_at": None}


def new_job_row(kind: JobKind, new: NewJob, *, series_id: int, generation: int, at: datetime) -> JobRow:
    """A PENDING job, due at once."""
    return JobRow(
        kind=kind.value,
        key=new.key,
        series_id=series_id,
        generation=generation,
        state=JobState.PENDING.value,
        attempts=0,
        token=0,
        priority=new.priority,
        cancel_requested=False,
        not_before=at,
        created_at=at,
        updated_at=at,
        spec=dict(new.spec),
        result={},
    )


def enqueue(session: Session, row: JobRow) -> None:
    """Insert a job and tell of it."""
    session.add(row)
    session.flush()
    data = {"kind": row.kind, "key": row.key, "generation": row.generation, "destination": row.destination}
    add_event(
        session,
        TrailEvent.JOB_ENQUEUED,
        at=row.created_at,
        series_id=row.series_id,
        job_id=row.id,
        data=data,
    )


def lock_job(session: Session, job_id: int) -> JobRow:
    """Read a job and keep others from changing it until the transaction ends."""
    query = select(JobRow).where(JobRow.id == job_id).with_for_update(key_share=True)
    row = session.scalars(query).one_or_none()
    if row is None:
        raise NotFoundError("job", job_id)
    return row


def claimed_job(session: Session, job: JobRecord) -> JobRow:
    """The row of a job that is still RUNNING under this record's token; else `LostClaimError`."""
    row = lock_job(session, job.id)
    if row.state != JobState.RUNNING or row.token != job.token:
        raise LostClaimError(job.id, job.token)
    return row


def change_job(session: Session, row: JobRow, *, at: datetime, **changes: Any) -> None:
    """Change columns by compare-and-set on (state, token). Raises `LostClaimError` when that fails."""
    statement = (
        update(JobRow)
        .where(JobRow.id == row.id, JobRow.state == row.state, JobRow.token == row.token)
        .values(updated_at=at, **changes)
        .execution_options(synchronize_session=False)
    )
    if changed(session.execute(statement)) != 1:
        raise LostClaimError(row.id, row.token)
    session.refresh(row)


def move_job(
    session: Session,
    row: JobRow,
    event: JobEvent,
    name: TrailEvent,
    *,
    at: datetime,
    data: Json | None = None,
    **changes: Any,
) -> None:
    """Apply an event by compare-and-set and tell of it. Whoever is not RUNNING holds no claim."""
    state = advance(JobState(row.state), event)
    if state is not JobState.RUNNING:
        changes = {**_UNCLAIMED, **changes}
    if state not in OPEN_JOB_STATES:
        changes.setdefault("finished_at", at)
    change_job(session, row, at=at, state=state.value, **changes)
    told = {"state": state.value, "attempt": row.attempts, **(data or {})}
    add_event(session, name, at=at, series_id=row.series_id, job_id=row.id, data=told)


def cancel_superseded(session: Session, series_id: int, *, before: int, at: datetime) -> None:
    """End every job of an earlier generation, also a running one: its next write finds no claim.

    A sender that holds a DELIVER job finds the claim lost at its next instance and releases the association.
    """
    query = (
        select(JobRow)
        .where(
            JobRow.series_id == series_id,
            JobRow.generation < before,
            JobRow.state.in_(OPEN_JOB_STATES),
        )
        .order_by(JobRow.id)
        .with_for_update(key_share=True)
    )
    for row in session.scalars(query).all():
        move_job(
            session,
            row,
            JobEvent.CANCEL,
            TrailEvent.JOB_CANCELED,
            at=at,
            data={"reason": SUPERSEDED},
            reason=SUPERSEDED,
            message=f"Generation {before} of the series replaces generation {row.generation}.",
        )
