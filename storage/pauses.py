"""Parts of the line that a person has paused: a row each, asked before a job is claimed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.clock import Clock
from storage.database import Database
from storage.desk_tables import PauseRow
from storage.states import JobKind
from storage.trail import add_event


class Part(StrEnum):
    """What can be paused by itself."""

    INTAKE = "intake"
    PROCESSING = "processing"
    SENDING = "sending"


PART_OF_KIND = {JobKind.ENHANCE: Part.PROCESSING, JobKind.DELIVER: Part.SENDING}


@dataclass(frozen=True)
class PauseRecord:
    """The last decision about one part."""

    part: Part
    paused: bool
    actor: str
    at: datetime


class Pauses:
    """Pause and resume parts of the line. What runs already is finished."""

    def __init__(self, database: Database, now: Clock) -> None:
        self._database = database
        self._now = now

    def set(self, part: Part, *, paused: bool, actor: str) -> PauseRecord:
        """Pause or resume a part; the same again changes nothing."""

        def work() -> PauseRecord:
            with self._database.writing() as session:
                row = session.get(PauseRow, part.value, with_for_update=True)
                if row is None:
                    row = PauseRow(part=part.value, paused=False, actor=actor, at=self._now())
                    session.add(row)
                if row.paused != paused:
                    row.paused, row.actor, row.at = paused, actor, self._now()
                    name = "line.paused" if paused else "line.resumed"
                    add_event(session, name, at=row.at, data={"part": part.value, "actor": actor})
                session.flush()
                return _record(row)

        return self._database.retrying(work)

    def paused(self, part: Part) -> bool:
        """Whether the part is paused."""
        with self._database.reading() as session:
            return is_paused(session, part)

    def all(self) -> dict[str, bool]:
        """Every part and whether it is paused."""
        with self._database.reading() as session:
            rows = {row.part: row.paused for row in session.scalars(select(PauseRow))}
        return {part.value: rows.get(part.value, False) for part in Part}

    def records(self) -> list[PauseRecord]:
        """The last decision about each part that was ever paused."""
        with self._database.reading() as session:
            return [_record(row) for row in session.scalars(select(PauseRow).order_by(PauseRow.part))]


def is_paused(session: Session, part: Part) -> bool:
    """Whether the part is paused, for use inside a transaction."""
    return bool(session.scalar(select(PauseRow.paused).where(PauseRow.part == part.value)))


def _record(row: PauseRow) -> PauseRecord:
    return PauseRecord(Part(row.part), row.paused, row.actor, row.at)
