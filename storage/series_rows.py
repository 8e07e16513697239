"""Changes to one series row, for use inside a transaction of `Index`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, exists, false, insert, select, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from storage.alarms import AlarmCode, raise_alarm
from storage.database import changed
from storage.errors import IllegalTransitionError, NotFoundError
from storage.job_rows import cancel_superseded
from storage.states import JobKind, JobState, LatePolicy, SeriesEvent, SeriesState, advance
from storage.tables import AssociationRow, CarriedRow, JobRow, SeriesRow, plain
from storage.trail import TrailEvent, add_event

# The word of dicom_node.errors.Reason for a series whose sender broke off.
INTERRUPTED = "INTERRUPTED"

_SERIES = plain(SeriesRow)
_MOVE = update(_SERIES).where(
    _SERIES.c.id == bindparam("at_id"),
    _SERIES.c.state == bindparam("at_state"),
    _SERIES.c.revision == bindparam("at_revision"),
)


def lock_series(session: Session, series_id: int) -> SeriesRow:
    """Read a series and keep others from changing it until the transaction ends."""
    query = select(SeriesRow).where(SeriesRow.id == series_id).with_for_update(key_share=True)
    row = session.scalars(query).one_or_none()
    if row is None:
        raise NotFoundError("series", series_id)
    return row


def move_series(session: Session, row: SeriesRow, event: SeriesEvent, **changes: Any) -> None:
    """Apply an event by compare-and-set on (state, revision); the revision grows by one."""
    changes |= {"state": advance(SeriesState(row.state), event).value, "revision": row.revision + 1}
    _set(session, row, event, changes)


def _set(session: Session, row: SeriesRow, event: str, changes: dict[str, Any]) -> None:
    guard = {"at_id": row.id, "at_state": row.state, "at_revision": row.revision}
    if changed(session.execute(_MOVE.values(**changes), guard)) != 1:
        raise IllegalTransitionError(row.state, event, "the series changed meanwhile")
    for name, value in changes.items():
        set_committed_value(row, name, value)


def mark_stored(session: Session, row: SeriesRow, *, at: datetime, association_id: int | None) -> int:
    """A new instance was stored: count it, and open the next generation when the series was closed.

    Jobs of earlier generations that have not ended end here: their input is not the series any more. What a late
    instance does to a series whose derived series exists already, its route decided (`LatePolicy`). Returns the
    generation that the instance belongs to.
    """
    was = SeriesState(row.state)
    if association_id is not None and row.last_association_id != association_id:
        link_association(session, row.id, association_id)
    changes: dict[str, Any] = {"instance_count": row.instance_count + 1, "last_received_at": at}
    if association_id is not None:
        changes["last_association_id"] = association_id
    if was is SeriesState.RECEIVING:
        move_series(session, row, SeriesEvent.STORED, **changes)
        return row.generation
    policy = _late_policy(session, row, was)
    if policy is not None:
        _tell_late(session, row, policy, at=at)
    if policy is LatePolicy.IGNORE:
        change_series(session, row, **changes)
        return row.generation + 1
    move_series(session, row, SeriesEvent.STORED, **changes, **next_generation(row, late=policy is not None))
    data = {"from": was.value, "generation": row.generation}
    add_event(session, TrailEvent.SERIES_REOPENED, at=at, series_id=row.id, data=data)
    cancel_superseded(session, row.id, before=row.generation, at=at)
    return row.generation


def next_generation(row: SeriesRow, *, late: bool) -> dict[str, Any]:
    """What changes when a closed series opens again: a person's decision was made for what was there then."""
    return {
        "generation": row.generation + 1,
        "released": False,
        "closed_at": None,
        "purged_at": None,
        "reason": None,
        "message": None,
        "route": None,
        "evidence": {},
        "completeness": None,
        # Once late, late until somebody has decided: a second late instance changes nothing about the first.
        "late": late or row.late,
    }


def _late_policy(session: Session, row: SeriesRow, was: SeriesState) -> LatePolicy | None:
    """The policy that applies, or None while no derived series of this generation exists."""
    if was is not SeriesState.STABLE:
        return None
    committed = select(JobRow.id).where(
        JobRow.series_id == row.id,
        JobRow.kind == JobKind.ENHANCE,
        JobRow.state == JobState.SUCCEEDED,
        JobRow.generation == row.generation,
    )
    if session.scalar(committed.limit(1)) is None:
        return None
    return LatePolicy(row.late_policy or LatePolicy.SUPERSEDE)


def _tell_late(session: Session, row: SeriesRow, policy: LatePolicy, *, at: datetime) -> None:
    """Say in the trail and by an alarm that a derived series stands which lacks an instance."""
    data = {"policy": policy.value, "generation": row.generation}
    add_event(session, TrailEvent.SERIES_LATE, at=at, series_id=row.id, data=data)
    facts = {**data, "series": row.id}
    raise_alarm(session, AlarmCode.LATE_INSTANCE, f"series {row.id}", at=at, series_id=row.id, data=facts)


def change_series(session: Session, row: SeriesRow, **changes: Any) -> None:
    """Change columns without an event, by compare-and-set on (state, revision); the revision grows by one."""
    _set(session, row, row.state, changes | {"revision": row.revision + 1})


def link_association(session: Session, series_id: int, association_id: int) -> bool:
    """Note that the association carried the series; False when that was known."""
    known = select(CarriedRow.series_id).where(
        CarriedRow.series_id == series_id, CarriedRow.association_id == association_id
    )
    if session.scalar(known) is not None:
        return False
    session.execute(insert(CarriedRow).values(series_id=series_id, association_id=association_id))
    return True


def open_association_exists() -> Any:
    """SQL: an association that carried the series of the outer query is still open."""
    return exists().where(
        CarriedRow.series_id == SeriesRow.id,
        CarriedRow.association_id == AssociationRow.id,
        AssociationRow.ended_at.is_(None),
    )


def mark_ending(session: Session, association_id: int, *, interrupted: bool, at: datetime) -> None:
    """Carry the ending of an association over to the series it carried last.

    A series that was held because it was interrupted opens again once its sender has come back and released.
    """
    of_it = SeriesRow.last_association_id == association_id
    waiting = (
        of_it & (SeriesRow.state == SeriesState.HELD) & (SeriesRow.reason == INTERRUPTED)
        if not interrupted
        else false()
    )
    for row in session.scalars(select(SeriesRow).where(waiting).order_by(SeriesRow.id).with_for_update()):
        changes = {"interrupted": False, "closed_at": None, "reason": None, "message": None}
        move_series(session, row, SeriesEvent.RESENT, **changes)
        add_event(session, TrailEvent.SERIES_RESENT, at=at, series_id=row.id, association_id=association_id)
    session.execute(
        update(SeriesRow)
        .where(of_it, SeriesRow.interrupted != interrupted)
        .values(interrupted=interrupted, revision=SeriesRow.revision + 1)
        .execution_options(synchronize_session=False)
    )
