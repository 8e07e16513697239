"""The one clock by which leases expire and attempts become due: the database's own.

PostgreSQL answers with its clock, so that nodes whose clocks differ agree on who holds what. SQLite has no clock;
all its processes run on one machine, so theirs is the machine's time since boot, hung on the wall clock once. When
the wall clock is set, nothing expires early and nothing waits longer than it was told to: `settle` moves the times
that are waiting along with it.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import select, text
from sqlalchemy.orm import Session

from storage.alarms import AlarmCode, raise_alarm
from storage.clock import Clock, utc_now
from storage.database import Database
from storage.link_states import OPEN_COMMITMENT_STATES, OPEN_KEEP_STATES
from storage.safekeeping_tables import KeepRequestRow
from storage.states import OPEN_JOB_STATES
from storage.tables import ClockRow, CommitmentRow, DestinationRow, JobRow
from storage.trail import TrailEvent, add_event

# A smaller difference is a clock being steered, not set.
JUMP = timedelta(seconds=2)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class LeaseClock:
    """Now, inside a transaction. With a clock of its own (a test's), that one alone counts."""

    def __init__(self, database: Database, now: Clock | None = None, wall: Clock = utc_now) -> None:
        self._database = database
        self._now = now
        self._wall = wall
        self._steady = database.dialect == "sqlite" and now is None
        if self._steady:
            self._anchor_after_boot()

    def at(self, session: Session) -> datetime:
        """The time of the database."""
        if self._now is not None:
            return self._now()
        if not self._steady:
            at: datetime = session.execute(text("SELECT clock_timestamp()")).scalar_one()
            return at
        row = session.get(ClockRow, 1)
        return self._wall() if row is None else _by(row)

    def __call__(self) -> datetime:
        """The time of the database, asked for on its own."""
        if self._now is not None:
            return self._now()
        with self._database.reading() as session:
            return self.at(session)

    def settle(self) -> timedelta | None:
        """Follow the wall clock where it was set; by how much, or None. Waiting times keep their durations."""
        if not self._steady:
            return None
        with self._database.reading() as session:
            if abs(self._wall() - self.at(session)) < JUMP:
                return None
        with self._database.writing() as session:
            wall = self._wall()
            jump = wall - self.at(session)
            if abs(jump) < JUMP:
                return None
            _shift(session, jump)
            _anchor(session, wall)
            data = {"seconds": round(jump.total_seconds(), 3)}
            add_event(session, TrailEvent.CLOCK_JUMPED, at=wall, data=data)
            raise_alarm(session, AlarmCode.CLOCK_JUMP, "wall clock", at=wall, data=data)
            return jump

    def _anchor_after_boot(self) -> None:
        """Hang the clock on the wall clock once in the life of the machine's boot."""
        with self._database.reading() as session:
            row = session.get(ClockRow, 1)
            if row is not None and row.boot_id == _boot_id():
                return
        with self._database.writing() as session:
            row = session.get(ClockRow, 1)
            if row is None or row.boot_id != _boot_id():
                _anchor(session, self._wall())


def _by(row: ClockRow) -> datetime:
    """The time that has passed since the anchor, on top of it."""
    return row.wall + timedelta(seconds=_since_boot() - row.since_boot)


def _anchor(session: Session, wall: datetime) -> None:
    session.merge(ClockRow(id=1, boot_id=_boot_id(), wall=wall, since_boot=_since_boot()))
    session.flush()


def _shift(session: Session, jump: timedelta) -> None:
    """Move every time that somebody waits for."""
    for row in session.scalars(select(JobRow).where(JobRow.state.in_(OPEN_JOB_STATES))):
        row.not_before += jump
        if row.lease_expires_at is not None:
            row.lease_expires_at += jump
    for destination in session.scalars(select(DestinationRow).where(DestinationRow.not_before.is_not(None))):
        if destination.not_before is not None:
            destination.not_before += jump
    for commitment in session.scalars(
        select(CommitmentRow).where(CommitmentRow.state.in_(OPEN_COMMITMENT_STATES))
    ):
        commitment.not_before += jump
    for request in session.scalars(select(KeepRequestRow).where(KeepRequestRow.state.in_(OPEN_KEEP_STATES))):
        request.not_before += jump
        request.received_at += jump
        if request.judged_at is not None:
            request.judged_at += jump
    session.flush()


def _since_boot() -> float:
    """Seconds since boot, sleep included; no one can set it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return "unknown"
