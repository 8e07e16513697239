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
from storage.link_states import CircuitState
from storage.states import WAITING_JOB_STATES, JobEvent, JobKind, JobState
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


def next_delivery(
    session: Session, destination: str, at: datetime, *, only_before: datetime | None = None
) -> JobRow | None:
    """The oldest due DELIVER job of the destination, if one may start now.

    None while the destination is held, its circuit is not closed, or one of its jobs runs. A job that waits
    for a time of its own lets younger ones pass: a series that its destination cannot digest must not block
    the others for days. `only_before`: whatever the destination, but only jobs created before then.
    """
    link = session.get(DestinationRow, destination)
    if only_before is None and link is not None and not _is_usable(link, at):
        return None
    running = select(JobRow.id).where(
        JobRow.kind == JobKind.DELIVER, JobRow.destination == destination, JobRow.state == JobState.RUNNING
    )
    if session.scalar(running.limit(1)) is not None:
        return None
    query = (
        select(JobRow)
        .where(due(JobKind.DELIVER, at), JobRow.destination == destination)
        .order_by(JobRow.created_at, JobRow.id)
        .limit(1)
        .with_for_update(key_share=True)
    )
    if only_before is not None:
        query = query.where(JobRow.created_at <= only_before)
    return session.scalars(query).one_or_none()


def _is_usable(link: DestinationRow, at: datetime) -> bool:
    """Whether the destination is neither held nor cut off."""
    return link.circuit == CircuitState.CLOSED and (link.not_before is None or link.not_before <= at)


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
