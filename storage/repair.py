"""A damaged file that is sent again: the whole one takes its place, and what the damage had stopped goes on."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.alarms import AlarmCode, clear_alarm, damaged_subject
from storage.files import durable_mkdir, filesystem, sync_directory
from storage.operator_acts import start_over
from storage.records import NewInstance
from storage.series_rows import change_series, move_series
from storage.states import JobKind, JobState, SeriesEvent, SeriesState
from storage.tables import InstanceRow, JobRow, SeriesRow
from storage.trail import TrailEvent, add_event

# The word of dicom_node.errors.Reason for a file that lost its digest.
SOURCE_CHANGED = "SOURCE_CHANGED"


def repair(
    session: Session, series: SeriesRow, row: InstanceRow, new: NewInstance, *, root: Path, at: datetime
) -> None:
    """Put the file that came where the damaged one is, since jobs name it by its path.

    Should the transaction fail after that, the file is whole and still counts as damaged until it comes again. A
    series that was held for the damage opens, a job that failed of it starts over, once no file is damaged.
    """
    _put(new.path, root / row.path)
    row.size = new.size
    row.damaged = False
    row.checked_at = at
    session.flush()
    add_event(
        session,
        TrailEvent.INSTANCE_REPAIRED,
        at=at,
        series_id=series.id,
        association_id=new.association_id,
        data={"sop_instance_uid": row.sop_instance_uid, "digest": row.digest, "size": row.size},
    )
    clear_alarm(session, AlarmCode.DAMAGED_FILE, damaged_subject("received", row.id), at=at)
    change_series(session, series)
    damaged = select(InstanceRow.id).where(InstanceRow.series_id == series.id, InstanceRow.damaged.is_(True))
    if session.scalar(damaged.limit(1)) is None:
        _go_on(session, series, at=at)


def _put(new: Path, old: Path) -> None:
    """Replace a file by another for good."""
    with filesystem():
        durable_mkdir(old.parent)
        if new.exists():  # it does not when the database wants the transaction once more
            new.replace(old)
        sync_directory(old.parent)


def _go_on(session: Session, series: SeriesRow, *, at: datetime) -> None:
    """Let the series, or its job, try again what the damage had stopped."""
    if SeriesState(series.state) is SeriesState.HELD and series.reason == SOURCE_CHANGED:
        data = {"from": series.state, "generation": series.generation}
        move_series(session, series, SeriesEvent.REPAIRED, closed_at=None, reason=None, message=None)
        add_event(session, TrailEvent.SERIES_REOPENED, at=at, series_id=series.id, data=data)
    failed = select(JobRow).where(
        JobRow.series_id == series.id,
        JobRow.kind == JobKind.ENHANCE,
        JobRow.generation == series.generation,
        JobRow.state == JobState.FAILED,
        JobRow.reason == SOURCE_CHANGED,
    )
    for job in session.scalars(failed.with_for_update()).all():
        start_over(session, job, "store", at=at)
