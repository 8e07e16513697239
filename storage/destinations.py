"""How destinations behave: holds and circuits, so that a dead one is asked seldom and delays no other.

A destination that fails waits for a growing time. One that fails too often has its circuit opened: nothing
is sent, no job spends an attempt, until somebody has asked it with success. All of it survives a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.clock import Clock
from storage.database import Database
from storage.link_states import CircuitEvent, CircuitState, advance_circuit
from storage.mapping import destination_status
from storage.records import DestinationStatus
from storage.tables import DestinationRow
from storage.trail import TrailEvent, add_event

Statuses = list[DestinationStatus]


class Destinations:
    """What is known of each destination. Every method is one short transaction."""

    def __init__(self, database: Database, now: Clock) -> None:
        self._database = database
        self._now = now

    def status(self, name: str) -> DestinationStatus:
        """How the destination behaves; no failures for one never heard of."""
        with self._database.reading() as session:
            row = session.get(DestinationRow, name)
            return unknown(name) if row is None else destination_status(row)

    def list(self) -> Statuses:
        """Every destination that was ever heard of, by name."""
        with self._database.reading() as session:
            rows = session.scalars(select(DestinationRow).order_by(DestinationRow.name))
            return [destination_status(row) for row in rows]

    def failed(
        self,
        name: str,
        error: str,
        *,
        wait: Callable[[int], timedelta],
        opens_at: int,
        for_good: bool = False,
    ) -> DestinationStatus:
        """Count a failure and start nothing for `wait(failures)`.

        The circuit opens with the `opens_at`-th failure in a row, or at once when only a person can mend it
        (`for_good`); one that is open stays so.
        """

        def work() -> DestinationStatus:
            with self._database.writing() as session:
                row, at = _locked(session, name), self._now()
                row.failures += 1
                row.not_before = at + wait(row.failures)
                row.last_error = error
                trips = for_good or row.failures >= opens_at or row.circuit != CircuitState.CLOSED
                _move(session, row, CircuitEvent.TRIP if trips else CircuitEvent.FAIL, at)
                data = {"failures": row.failures, "until": row.not_before.isoformat(), "error": error}
                _tell(session, TrailEvent.DESTINATION_HELD, row, at, data)
                return destination_status(row)

        return self._database.retrying(work)

    def probing(self, name: str, patience: timedelta) -> bool:
        """Take the right to ask a destination with an open circuit; False when its time has not come.

        Whoever dies while asking keeps others from it for `patience` only.
        """
        with self._database.writing() as session:
            row, at = _locked(session, name), self._now()
            if row.circuit == CircuitState.CLOSED or (row.not_before is not None and row.not_before > at):
                return False
            row.not_before = at + patience
            _move(session, row, CircuitEvent.PROBE, at)
            session.flush()
            return True

    def works(self, name: str) -> None:
        """The destination has done what it was asked: no hold, no failures, the circuit closed."""
        known = self.status(name)
        if known.failures == 0 and known.not_before is None and known.circuit is CircuitState.CLOSED:
            return
        with self._database.writing() as session:
            row, at = _locked(session, name), self._now()
            data = {"failures": row.failures}
            row.failures, row.not_before, row.last_error = 0, None, None
            _move(session, row, CircuitEvent.WORK, at)
            _tell(session, TrailEvent.DESTINATION_CLEARED, row, at, data)

    def measured(self, name: str, *, bytes_per_s: float | None, answer_s: float | None) -> None:
        """Keep the running means of what a destination takes and how long it answers."""

        def work() -> None:
            with self._database.writing() as session:
                row = _locked(session, name)
                row.bytes_per_s, row.answer_s = bytes_per_s, answer_s
                session.flush()

        self._database.retrying(work)


def lift_hold(session: Session, name: str) -> None:
    """Let the next try, or the next probe, start now; an operator asked for it."""
    row = session.get(DestinationRow, name)
    if row is not None:
        row.not_before = None
        session.flush()


def unknown(name: str) -> DestinationStatus:
    """The status of a destination that has never failed."""
    return DestinationStatus(name=name, failures=0, not_before=None, last_error=None)


def _locked(session: Session, name: str) -> DestinationRow:
    """The row, made when there is none, and nobody else's until the transaction ends."""
    query = select(DestinationRow).where(DestinationRow.name == name).with_for_update()
    row = session.scalars(query).one_or_none()
    if row is None:
        row = DestinationRow(name=name, failures=0, circuit=CircuitState.CLOSED.value)
        session.add(row)
        session.flush()
    return row


def _move(session: Session, row: DestinationRow, event: CircuitEvent, at: datetime) -> None:
    """Apply an event to the circuit; the first opening is an event of its own."""
    before = CircuitState(row.circuit)
    after = advance_circuit(before, event)
    if after is not before:
        row.circuit, row.since = after.value, at
    session.flush()
    if before is CircuitState.CLOSED and after is CircuitState.OPEN:
        _tell(session, TrailEvent.DESTINATION_OPENED, row, at, {"error": row.last_error})


def _tell(
    session: Session, name: TrailEvent, row: DestinationRow, at: datetime, data: Mapping[str, object]
) -> None:
    add_event(session, name, at=at, data={"destination": row.name, **data})
