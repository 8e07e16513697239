"""Reading stored files again, the longest unread first: a file that lost its digest is told of and used no more.

The digest of a received file is over its data set, that of a derived file over the whole of it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from storage.alarms import AlarmCode, damaged_subject, raise_alarm
from storage.database import Database
from storage.lease_clock import LeaseClock
from storage.tables import DerivedRow, InstanceRow, SeriesRow
from storage.trail import TrailEvent, add_event

_CHUNK = 1 << 20
_META_LENGTH = 144  # preamble, prefix and the element that says how long the file meta is (PS3.10 7.1)
Stored = InstanceRow | DerivedRow
Table = type[InstanceRow] | type[DerivedRow]
Verdict = Literal["whole", "damaged", "missing"]


@dataclass(frozen=True)
class Scrubbed:
    """What a round of reading found."""

    files: int
    bytes: int
    damaged: int


class Scrubber:
    """Reads files round and round. Safe beside everything else: a file that was deleted meanwhile is no damage."""

    def __init__(self, database: Database, directory: Path, clock: LeaseClock) -> None:
        self._database = database
        self._root = directory
        self._clock = clock

    def scrub(
        self,
        *,
        every: timedelta,
        most_bytes: int = 1 << 30,
        go_on: Callable[[], bool] = lambda: True,
    ) -> Scrubbed:
        """Read what was not read for `every`, the longest unread first, at most about `most_bytes` of it."""
        files = size = damaged = 0
        for table in (InstanceRow, DerivedRow):
            for number in self._due(table, every):
                if size >= most_bytes or not go_on():
                    return Scrubbed(files, size, damaged)
                verdict, length = self.check(table, number)
                files, size, damaged = files + 1, size + length, damaged + (verdict != "whole")
        return Scrubbed(files, size, damaged)

    def check_received(self, series_id: int) -> int:
        """Read every received file of a series now, as `scrub` would in time; how many are damaged or gone."""
        with self._database.reading() as session:
            query = select(InstanceRow.id).where(InstanceRow.series_id == series_id).order_by(InstanceRow.id)
            numbers = list(session.scalars(query))
        return sum(self.check(InstanceRow, number)[0] != "whole" for number in numbers)

    def check(self, table: Table, number: int) -> tuple[Verdict, int]:
        """Read one file, and write down what was found; the bytes read."""
        with self._database.reading() as session:
            row = _row(session, table, number)
            if row is None:
                return "whole", 0
            path, digest, size = self._root / row.path, row.digest, row.size
        verdict = verify_file(path, digest, whole=table is DerivedRow)
        with self._database.writing() as session:
            row = _row(session, table, number)
            gone = row is None or (isinstance(row, DerivedRow) and row.purged_at is not None)
            if row is None or gone:
                return "whole", size
            row.checked_at = self._clock.at(session)
            if verdict != "whole" and not row.damaged:
                # Once more with the row in hand: it may have been replaced while it was read.
                verdict = verify_file(path, digest, whole=table is DerivedRow)
            if verdict != "whole" and not row.damaged:
                _tell(session, row, verdict, self._clock)
        return verdict, size

    def _due(self, table: Table, every: timedelta) -> list[int]:
        """The files to read, never read ones first."""
        with self._database.reading() as session:
            before = self._clock.at(session) - every
            late = (table.checked_at.is_(None)) | (table.checked_at < before)
            query = select(table.id).where(late, table.damaged.is_(False))
            if table is DerivedRow:
                query = query.where(DerivedRow.purged_at.is_(None))
            else:
                query = query.where(InstanceRow.received_at < before)
            return list(session.scalars(query.order_by(table.checked_at.nulls_first(), table.id).limit(2000)))


def _row(session: Session, table: Table, number: int) -> Stored | None:
    return cast("Stored | None", session.get(table, number))


def verify_file(path: Path, digest: str, *, whole: bool) -> Verdict:
    """Whether a file has the digest; `whole` files count from their first byte, others from their data set."""
    try:
        found = hashlib.sha256()
        for chunk in _chunks(path, whole=whole):
            found.update(chunk)
    except FileNotFoundError:
        return "missing"
    except OSError:
        return "damaged"
    return "whole" if found.hexdigest() == digest else "damaged"


def _chunks(path: Path, *, whole: bool) -> Iterator[bytes]:
    with path.open("rb") as file:
        if not whole:
            head = file.read(_META_LENGTH)
            file.seek(_META_LENGTH + int.from_bytes(head[140:144], "little"))
        while chunk := file.read(_CHUNK):
            yield chunk


def _tell(session: Session, row: Stored, verdict: str, clock: LeaseClock) -> None:
    """Mark the file, and let whoever looks at its series look again."""
    at = clock.at(session)
    row.damaged = True
    series = session.get(SeriesRow, row.series_id)
    if series is not None:
        series.revision += 1
    session.flush()
    kind = "derived" if isinstance(row, DerivedRow) else "received"
    data = {"sop_instance_uid": row.sop_instance_uid, "kind": kind, "found": verdict}
    add_event(session, TrailEvent.INSTANCE_DAMAGED, at=at, series_id=row.series_id, data=data)
    subject = damaged_subject(kind, row.id)
    raise_alarm(session, AlarmCode.DAMAGED_FILE, subject, at=at, series_id=row.series_id, data=data)
