"""Changes to one series row, for use inside a transaction of `Index`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import bindparam, exists, insert, select, update
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from storage.database import changed
from storage.errors import IllegalTransitionError, NotFoundError
from storage.job_rows import cancel_superseded
from storage.states import SeriesEvent, SeriesState, advance
from storage.tables import AssociationRow, CarriedRow, SeriesRow, plain
from storage.trail import TrailEvent, add_event

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
    guard = {"at_id": row.id, "at_state": row.state, "at_revision": row.revision}
    if changed(session.execute(_MOVE.values(**changes), guard)) != 1:
        raise IllegalTransitionError(row.state, event, "the series changed meanwhile")
    for name, value in changes.items():
        set_committed_value(row, name, value)


def mark_stored(session: Session, row: SeriesRow, *, at: datetime, association_id: int | None) -> None:
    """A new instance was stored: count it, and open the next generation when the series was closed.

    Jobs of earlier generations that have not ended end here: their input is not the series any more.
    """
    was = SeriesState(row.state)
    if association_id is not None and row.last_association_id != association_id:
        link_association(session, row.id, association_id)
    changes: dict[str, Any] = {"instance_count": row.instance_count + 1, "last_received_at": at}
    if association_id is not None:
        changes["last_association_id"] = association_id
    if was is not SeriesState.RECEIVING:
        # A person's decision to go on was made for what was there then.
        changes |= {"generation": row.generation + 1, "released": False, "closed_at": None}
        changes |= {"reason": None, "message": None, "route": None, "evidence": {}}
    move_series(session, row, SeriesEvent.STORED, **changes)
    if was is not SeriesState.RECEIVING:
        data = {"from": was.value, "generation": row.generation}
        add_event(session, TrailEvent.SERIES_REOPENED, at=at, series_id=row.id, data=data)
        cancel_superseded(session, row.id, before=row.generation, at=at)


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
