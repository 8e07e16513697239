"""Who may work on a job: claiming under a lease, and taking back what a dead worker held.

A claim is a growing fencing token. The attempt is counted in the same transaction, before any work starts, so
that a worker that is killed has spent it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, or_, select
from sqlalchemy.orm import Session

from storage.job_rows import ABANDONED, CANCELED_BY_OPERATOR, move_job
from storage.states import OPEN_JOB_STATES, WAITING_JOB_STATES, JobEvent, JobKind, JobState
from storage.tables import DestinationRow, JobRow
from storage.trail import TrailEvent


def due(kind: JobKind, at: datetime) -> ColumnElement[bool]:
    """SQL: the job waits for an attempt and may have it."""
    return (JobRow.kind == kind) & JobRow.state.in_(WAITING_JOB_STATES) & (JobRow.not_before <= at)


def next_enhance(at: datetime) -> Select[Any]:
    """The due ENHANCE job with the highest priority, the oldest of those."""
    return (
        select(JobRow)
        .where(due(JobKind.ENHANCE, at))
        .order_by(JobRow.priority.desc(), JobRow.created_at, JobRow.id)
        .limit(1)
        .with_for_update(skip_locked=True, key_share=True)
    )


def next_delivery(session: Session, destination: str, at: datetime) -> JobRow | None:
    """The oldest unfinished DELIVER job of the destination, if it is the one that may start now.

    First in, first out: while the oldest runs or waits for its time, none overtakes it.
    """
    held = select(DestinationRow.not_before).where(DestinationRow.name == destination)
    until = session.scalar(held)
    if until is not None and until > at:
        return None
    query = (
        select(JobRow)
        .where(
            JobRow.kind == JobKind.DELIVER,
            JobRow.destination == destination,
            JobRow.state.in_(OPEN_JOB_STATES),
        )
        .order_by(JobRow.created_at, JobRow.id)
        .limit(1)
        .with_for_update(key_share=True)
    )
    oldest = session.scalars(query).one_or_none()
    if oldest is None or oldest.state == JobState.RUNNING or oldest.not_before > at:
        return None
    return oldest


def take(session: Session, row: JobRow, worker: str, lease: timedelta, *, at: datetime) -> None:
    """Make the worker the holder: next token, one attempt more."""
    move_job(
        session,
        row,
        JobEvent.CLAIM,
        TrailEvent.JOB_CLAIMED,
        at=at,
        data={"worker": worker, "attempt": row.attempts + 1, "token": row.token + 1},
        claimed_by=worker,
        lease_expires_at=at + lease,
        token=row.token + 1,
        attempts=row.attempts + 1,
        stage=None,
        reason=None,
        message=None,
    )


def expired(at: datetime) -> Select[Any]:
    """Jobs whose holder has not been heard of for its whole lease."""
    return (
        select(JobRow)
        .where(
            JobRow.state == JobState.RUNNING,
            or_(JobRow.lease_expires_at.is_(None), JobRow.lease_expires_at < at),
        )
        .order_by(JobRow.id)
        .with_for_update(skip_locked=True, key_share=True)
    )


def take_back(session: Session, row: JobRow, max_attempts: int, *, at: datetime) -> None:
    """End the claim of a holder that disappeared. A delivery is always tried again: its age limits it."""
    holder = {"worker": row.claimed_by, "token": row.token, "stage": row.stage}
    if row.cancel_requested:
        data = {**holder, "reason": CANCELED_BY_OPERATOR}
        changes = {"reason": CANCELED_BY_OPERATOR}
        move_job(session, row, JobEvent.CANCEL, TrailEvent.JOB_CANCELED, at=at, data=data, **changes)
        return
    exhausted = row.kind == JobKind.ENHANCE and row.attempts >= max_attempts
    move_job(
        session,
        row,
        JobEvent.ABANDON if exhausted else JobEvent.EXPIRE,
        TrailEvent.JOB_ABANDONED,
        at=at,
        data={**holder, "reason": ABANDONED},
        not_before=at,
        reason=ABANDONED,
        message=f"The worker disappeared in attempt {row.attempts}.",
    )
