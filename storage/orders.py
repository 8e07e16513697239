"""What an operator orders to be sent: any stored series to any destination; inside a transaction of `Deliveries`.

An order is a DELIVER job like any other: it waits, is tried again and answers for every instance.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from storage.errors import NotFoundError
from storage.job_rows import enqueue, new_job_row
from storage.records import NewJob
from storage.series_rows import lock_series
from storage.states import DeliveryState, JobKind
from storage.tables import DeliveryRow, DerivedRow, InstanceRow, JobRow
from storage.trail import TrailEvent, add_event


def order_received(session: Session, series_id: int, destination: str, actor: str, *, at: datetime) -> JobRow:
    """A DELIVER job for the first copy of each received instance of a series."""
    series = lock_series(session, series_id)
    first = select(func.min(InstanceRow.id)).where(InstanceRow.series_id == series_id)
    query = (
        select(InstanceRow)
        .where(InstanceRow.id.in_(first.group_by(InstanceRow.sop_instance_uid)))
        .order_by(InstanceRow.id)
    )
    rows = session.scalars(query).all()
    if not rows:
        raise NotFoundError("instance of series", series_id)
    job = _new_job(session, f"received/{series_id}", destination, at=at)
    job.series_id, job.generation = series_id, series.generation
    items = [{"instance_id": row.id, "sop_instance_uid": row.sop_instance_uid} for row in rows]
    return _order(session, job, items, actor, at)


def order_derived(
    session: Session, series_instance_uid: str, destination: str, actor: str, *, at: datetime
) -> JobRow:
    """A DELIVER job for the manifest that names this series."""
    query = select(DerivedRow).where(DerivedRow.series_instance_uid == series_instance_uid)
    rows = session.scalars(query.order_by(DerivedRow.position)).all()
    if not rows:
        raise NotFoundError("derived series", series_instance_uid)
    made = session.get_one(JobRow, rows[0].job_id)
    job = _new_job(session, f"derived/{made.id}", destination, at=at)
    job.series_id, job.generation, job.parent_id = made.series_id, made.generation, made.id
    items = [{"derived_id": row.id, "sop_instance_uid": row.sop_instance_uid} for row in rows]
    return _order(session, job, items, actor, at)


def _new_job(session: Session, what: str, destination: str, *, at: datetime) -> JobRow:
    """A PENDING job under the next free key."""
    prefix = f"order/{what}/{destination}/"
    number = 1
    while session.scalar(select(JobRow.id).where(JobRow.key == f"{prefix}{number}")) is not None:
        number += 1
    draft = NewJob(key=f"{prefix}{number}", spec={"ordered": what})
    job = new_job_row(JobKind.DELIVER, draft, series_id=0, generation=0, at=at)
    job.destination = destination
    return job


def _order(session: Session, job: JobRow, items: list[dict[str, Any]], actor: str, at: datetime) -> JobRow:
    """Insert the job with a PENDING row for each instance, and say who wanted it."""
    enqueue(session, job)
    common = {
        "job_id": job.id,
        "destination": job.destination,
        "state": DeliveryState.PENDING.value,
        "comment": "",
        "attempts": 0,
        "updated_at": at,
    }
    session.execute(insert(DeliveryRow), [{**common, **item} for item in items])
    data = {"actor": actor, "destination": job.destination, "instances": len(items)}
    name = TrailEvent.DELIVERY_ORDERED
    add_event(session, name, at=at, series_id=job.series_id, job_id=job.id, data=data)
    return job
