"""A damaged file that is sent again: the whole one takes its place, and what the damage had stopped goes on."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.alarms import AlarmCode, clear_alarm, damaged_subject
from storage.job_rows import cancel_superseded
from storage.mapping import relative
from storage.records import NewInstance
from storage.series_rows import change_series, move_series, next_generation
from storage.states import JobKind, JobState, SeriesEvent, SeriesState
from storage.tables import InstanceRow, JobRow, SeriesRow
from storage.trail import TrailEvent, add_event

# The word of dicom_node.errors.Reason for a file that lost its digest.
SOURCE_CHANGED = "SOURCE_CHANGED"


def repair(
    session: Session, series: SeriesRow, row: InstanceRow, new: NewInstance, *, root: Path, at: datetime
) -> None:
    """Give the row the file that came; no row knows the damaged one any more then, and it is swept up.

    A series that was held for the damage, or whose job failed of it, opens again once no file of it is damaged.
    """
    row.path = relative(new.path, root)
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
    if _is_whole(session, series) and _was_stopped(session, series):
        _open_again(session, series, at=at)
    else:
        change_series(session, series)


def _is_whole(session: Session, series: SeriesRow) -> bool:
    """Whether no file of the series is known to be damaged."""
    damaged = select(InstanceRow.id).where(InstanceRow.series_id == series.id, InstanceRow.damaged.is_(True))
    return session.scalar(damaged.limit(1)) is None


def _was_stopped(session: Session, series: SeriesRow) -> bool:
    """Whether the damage is why there is no derived series of this generation."""
    state = SeriesState(series.state)
    if state is SeriesState.HELD:
        return series.reason == SOURCE_CHANGED
    failed = select(JobRow.id).where(
        JobRow.series_id == series.id,
        JobRow.kind == JobKind.ENHANCE,
        JobRow.generation == series.generation,
        JobRow.state == JobState.FAILED,
        JobRow.reason == SOURCE_CHANGED,
    )
    return state is SeriesState.STABLE and session.scalar(failed.limit(1)) is not None


def _open_again(session: Session, series: SeriesRow, *, at: datetime) -> None:
    """Begin a generation: the jobs of the last name the files that were damaged."""
    was = series.state
    move_series(session, series, SeriesEvent.STORED, **next_generation(series, late=False))
    data = {"from": was, "generation": series.generation}
    add_event(session, TrailEvent.SERIES_REOPENED, at=at, series_id=series.id, data=data)
    cancel_superseded(session, series.id, before=series.generation, at=at)
