"""What a destination said about keeping single instances; inside a transaction of `Commitments`."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from storage.database import changed
from storage.job_rows import move_job
from storage.link_states import Promise
from storage.states import OPEN_JOB_STATES, DeliveryEvent, DeliveryState, JobEvent, JobState, advance
from storage.tables import DeliveryRow, DerivedRow, InstanceRow, JobRow
from storage.trail import TrailEvent


def wanted(session: Session, job_id: int) -> list[tuple[str, str]]:
    """(SOP class, SOP instance) of what was delivered and is not promised yet."""
    sop_class = func.coalesce(DerivedRow.sop_class_uid, InstanceRow.sop_class_uid)
    query = (
        select(sop_class, DeliveryRow.sop_instance_uid)
        .outerjoin(DerivedRow, DerivedRow.id == DeliveryRow.derived_id)
        .outerjoin(InstanceRow, InstanceRow.id == DeliveryRow.instance_id)
        .where(
            DeliveryRow.job_id == job_id,
            DeliveryRow.state == DeliveryState.DELIVERED,
            DeliveryRow.commitment == Promise.WANTED,
        )
        .order_by(DeliveryRow.id)
    )
    return [(class_uid, instance_uid) for class_uid, instance_uid in session.execute(query)]


def keep(session: Session, job_id: int, uids: Collection[str], *, at: datetime) -> int:
    """Mark instances as committed, also such as were given up; how many that changed."""
    values = {"commitment": Promise.COMMITTED.value, "commitment_reason": None, "committed_at": at}
    return _mark(session, job_id, uids, (Promise.WANTED, Promise.FAILED), values)


def fail(
    session: Session, job_id: int, uids: Collection[str] | None, *, reason: int | None, at: datetime
) -> int:
    """Mark instances (all, for None) whose promise is open as not kept; how many that changed."""
    values = {"commitment": Promise.FAILED.value, "commitment_reason": reason, "updated_at": at}
    return _mark(session, job_id, uids, (Promise.WANTED,), values)


def reopen(session: Session, job: JobRow, uids: Collection[str], *, at: datetime) -> int:
    """Have delivered instances sent again, and their job with them; how many that are."""
    values = {"state": advance(DeliveryState.DELIVERED, DeliveryEvent.RESEND).value, "updated_at": at}
    count = _mark(session, job.id, uids, (Promise.WANTED,), values, state=DeliveryState.DELIVERED)
    if count and JobState(job.state) not in OPEN_JOB_STATES and job.state != JobState.CANCELED:
        move_job(
            session,
            job,
            JobEvent.REOPEN,
            TrailEvent.DELIVERY_REOPENED,
            at=at,
            data={"instances": count, "destination": job.destination},
            not_before=at,
            attempts=0,
            finished_at=None,
            stage=None,
            reason=None,
            message=None,
        )
    return count


def _mark(
    session: Session,
    job_id: int,
    uids: Collection[str] | None,
    promises: tuple[Promise, ...],
    values: dict[str, Any],
    *,
    state: DeliveryState | None = None,
) -> int:
    """Change the rows of a job whose promise is one of these; how many those were."""
    statement = update(DeliveryRow).where(
        DeliveryRow.job_id == job_id, DeliveryRow.commitment.in_([str(promise) for promise in promises])
    )
    if uids is not None:
        statement = statement.where(DeliveryRow.sop_instance_uid.in_(list(uids)))
    if state is not None:
        statement = statement.where(DeliveryRow.state == state)
    return changed(session.execute(statement.values(**values).execution_options(synchronize_session=False)))
