"""What an operator may do to a job: cancel it, or have it done again; inside a transaction of `JobQueue`."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from storage.errors import IllegalTransitionError
from storage.job_rows import CANCELED_BY_OPERATOR, change_job, enqueue, move_job, new_job_row
from storage.records import NewJob
from storage.states import DELIVERY_TRANSITIONS, DeliveryEvent, DeliveryState, JobEvent, JobKind, JobState
from storage.tables import DeliveryRow, JobRow, SeriesRow
from storage.trail import TrailEvent, add_event

_RUN_SUFFIX = re.compile(r"\+\d+$")
# A job that starts over forgets its ending, but keeps its token: an old holder must stay fenced off.
_AFRESH: dict[str, Any] = {
    "attempts": 0,
    "stage": None,
    "reason": None,
    "message": None,
    "finished_at": None,
    "cancel_requested": False,
}


def cancel(session: Session, row: JobRow, actor: str, *, at: datetime) -> None:
    """Cancel at once what waits; ask the worker of what runs to stop at its next step."""
    if row.state == JobState.RUNNING:
        change_job(session, row, at=at, cancel_requested=True)
        name = TrailEvent.JOB_CANCEL_REQUESTED
        add_event(session, name, at=at, series_id=row.series_id, job_id=row.id, data={"actor": actor})
        return
    data = {"actor": actor, "reason": CANCELED_BY_OPERATOR}
    changes = {"reason": CANCELED_BY_OPERATOR, "message": None}
    move_job(session, row, JobEvent.CANCEL, TrailEvent.JOB_CANCELED, at=at, data=data, **changes)


def resubmit(session: Session, row: JobRow, actor: str, *, at: datetime) -> JobRow:
    """Have the job done again; the job to follow from now on.

    The same job, with the same key and so the same UIDs, as long as no manifest stands under that key;
    a new job under a new key after that, because one UID never names two contents.
    """
    if row.kind == JobKind.ENHANCE:
        _refuse_outdated(session, row)
        if row.state == JobState.SUCCEEDED:
            return _again_under_new_key(session, row, actor, at)
    start_over(session, row, actor, at=at)
    reopen_refused(session, row, at=at)
    return row


def start_over(session: Session, row: JobRow, actor: str, *, at: datetime) -> None:
    """FAILED or CANCELED to PENDING, with every attempt left. What is delivered stays delivered."""
    changes = {**_AFRESH, "not_before": at}
    data = {"actor": actor}
    move_job(session, row, JobEvent.RESUBMIT, TrailEvent.JOB_RESUBMITTED, at=at, data=data, **changes)


def hurry(session: Session, row: JobRow, actor: str, *, at: datetime) -> None:
    """Make a waiting attempt due now."""
    data = {"actor": actor}
    move_job(session, row, JobEvent.DUE, TrailEvent.DELIVERY_RETRIED, at=at, data=data, not_before=at)


def reopen_refused(session: Session, row: JobRow, *, at: datetime) -> None:
    """Let the refused instances of a DELIVER job be sent again; what is delivered stays delivered."""
    session.execute(
        update(DeliveryRow)
        .where(DeliveryRow.job_id == row.id, DeliveryRow.state == DeliveryState.REFUSED)
        .values(state=DELIVERY_TRANSITIONS[(DeliveryState.REFUSED, DeliveryEvent.RETRY)].value, updated_at=at)
        .execution_options(synchronize_session=False)
    )


def _refuse_outdated(session: Session, row: JobRow) -> None:
    """An earlier generation is not the series any more; enhancing it would send an incomplete one."""
    query = select(SeriesRow.generation, SeriesRow.purged_at).where(SeriesRow.id == row.series_id)
    generation, purged_at = session.execute(query).one()
    if purged_at is not None:
        raise IllegalTransitionError(row.state, JobEvent.RESUBMIT, "the instances were deleted by retention")
    if generation != row.generation:
        detail = f"the series is in generation {generation}, the job belongs to {row.generation}"
        raise IllegalTransitionError(row.state, JobEvent.RESUBMIT, detail)


def _again_under_new_key(session: Session, row: JobRow, actor: str, at: datetime) -> JobRow:
    """A new job with the same input; its key is the first one with `+2`, `+3` and so on behind it."""
    base = _RUN_SUFFIX.sub("", row.key)
    run = 2
    while session.scalar(select(JobRow.id).where(JobRow.key == f"{base}+{run}")) is not None:
        run += 1
    draft = NewJob(key=f"{base}+{run}", spec=row.spec, priority=row.priority)
    again = new_job_row(JobKind.ENHANCE, draft, series_id=row.series_id, generation=row.generation, at=at)
    enqueue(session, again)
    data = {"actor": actor, "instead_of": row.id}
    name = TrailEvent.JOB_RESUBMITTED
    add_event(session, name, at=at, series_id=row.series_id, job_id=again.id, data=data)
    return again
