"""How destinations behave: a hold after failures, so that a dead one is asked seldom and delays no other."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.records import DestinationStatus
from storage.tables import DestinationRow
from storage.trail import TrailEvent, add_event


def hold(session: Session, name: str, until: datetime, error: str, *, at: datetime) -> DestinationRow:
    """Let no delivery to the destination start before `until`, and count the failure."""
    row = _locked(session, name)
    if row is None:
        row = DestinationRow(name=name, failures=0)
        session.add(row)
    row.failures += 1
    row.not_before = until
    row.last_error = error
    session.flush()
    data = {"destination": name, "failures": row.failures, "until": until.isoformat(), "error": error}
    add_event(session, TrailEvent.DESTINATION_HELD, at=at, data=data)
    return row


def clear(session: Session, name: str, *, at: datetime) -> None:
    """Forget the failures of a destination."""
    row = _locked(session, name)
    if row is None or (row.failures == 0 and row.not_before is None):
        return
    data = {"destination": name, "failures": row.failures}
    row.failures = 0
    row.not_before = None
    row.last_error = None
    session.flush()
    add_event(session, TrailEvent.DESTINATION_CLEARED, at=at, data=data)


def unknown(name: str) -> DestinationStatus:
    """The status of a destination that has never failed."""
    return DestinationStatus(name=name, failures=0, not_before=None, last_error=None)


def _locked(session: Session, name: str) -> DestinationRow | None:
    query = select(DestinationRow).where(DestinationRow.name == name).with_for_update()
    return session.scalars(query).one_or_none()
