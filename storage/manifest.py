"""The manifest: the one moment when a derived series comes to exist; a transaction of `JobQueue`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from sqlalchemy import insert
from sqlalchemy.orm import Session

from storage.job_rows import enqueue, move_job, new_job_row
from storage.mapping import relative
from storage.records import Json, NewDeliveryJob, NewDerived, NewJob
from storage.states import DeliveryState, JobEvent, JobKind
from storage.tables import DeliveryRow, DerivedRow, JobRow
from storage.trail import TrailEvent, add_event


def commit_manifest(
    session: Session,
    job: JobRow,
    derived: Sequence[NewDerived],
    deliveries: Sequence[NewDeliveryJob],
    *,
    result: Json,
    root: Path,
    at: datetime,
) -> list[JobRow]:
    """Write derived rows, DELIVER jobs and their PENDING rows, and end the ENHANCE job; all or nothing."""
    rows = [_derived_row(job, new, root) for new in derived]
    session.add_all(rows)
    session.flush()
    jobs = [_delivery_job(session, job, new, rows, at) for new in _distinct(deliveries)]
    data = {"instances": len(rows), "destinations": [row.destination for row in jobs]}
    name = TrailEvent.MANIFEST_COMMITTED
    add_event(session, name, at=at, series_id=job.series_id, job_id=job.id, data=data)
    move_job(session, job, JobEvent.DONE, TrailEvent.JOB_SUCCEEDED, at=at, result=dict(result))
    return jobs


def _derived_row(job: JobRow, new: NewDerived, root: Path) -> DerivedRow:
    return DerivedRow(
        job_id=job.id,
        series_id=job.series_id,
        sop_class_uid=new.sop_class_uid,
        sop_instance_uid=new.sop_instance_uid,
        series_instance_uid=new.series_instance_uid,
        transfer_syntax_uid=new.transfer_syntax_uid,
        path=relative(new.path, root),
        digest=new.digest,
        size=new.size,
        position=new.position,
    )


def _distinct(deliveries: Sequence[NewDeliveryJob]) -> list[NewDeliveryJob]:
    """One job per destination, in the order given."""
    return list({new.destination: new for new in reversed(deliveries)}.values())[::-1]


def _delivery_job(
    session: Session, job: JobRow, new: NewDeliveryJob, derived: Sequence[DerivedRow], at: datetime
) -> JobRow:
    """Insert the DELIVER job for one destination and a PENDING row for each instance."""
    draft = NewJob(key=f"{job.id}/deliver/{new.destination}", spec=new.spec, priority=job.priority)
    row = new_job_row(JobKind.DELIVER, draft, series_id=job.series_id, generation=job.generation, at=at)
    row.destination = new.destination
    row.parent_id = job.id
    enqueue(session, row)
    values = [
        {
            "job_id": row.id,
            "derived_id": item.id,
            "sop_instance_uid": item.sop_instance_uid,
            "destination": new.destination,
            "state": DeliveryState.PENDING.value,
            "comment": "",
            "attempts": 0,
            "updated_at": at,
        }
        for item in derived
    ]
    if values:
        session.execute(insert(DeliveryRow), values)
    return row
