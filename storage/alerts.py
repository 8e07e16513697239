"""What is wrong right now, since when, and when somebody was told; so that nobody is told twice, nor never."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, select, update

from storage.clock import Clock
from storage.database import Database
from storage.desk_tables import AlertRow


@dataclass(frozen=True)
class AlertRecord:
    """One trouble; `resolved_at` None while it lasts, `last_sent_at` None until somebody was told."""

    key: str
    kind: str
    since: datetime
    last_sent_at: datetime | None
    resolved_at: datetime | None
    detail: Mapping[str, Any]


class Alerts:
    """Remember troubles. Every method is one short transaction."""

    def __init__(self, database: Database, now: Clock) -> None:
        self._database = database
        self._now = now

    def observe(self, found: Mapping[str, tuple[str, Mapping[str, Any]]]) -> list[AlertRecord]:
        """Take note of everything that is wrong now (key to kind and facts); what is not named is over.

        Returns what lasts, oldest first.
        """

        def work() -> list[AlertRecord]:
            with self._database.writing() as session:
                at = self._now()
                rows = {row.key: row for row in session.scalars(select(AlertRow).with_for_update())}
                for key, (kind, detail) in found.items():
                    row = rows.get(key)
                    if row is None:
                        row = AlertRow(key=key, kind=kind, since=at, last_seen_at=at, detail=dict(detail))
                        session.add(row)
                    elif row.resolved_at is not None:
                        row.since, row.resolved_at, row.last_sent_at = at, None, None
                    row.last_seen_at, row.detail = at, dict(detail)
                for key, row in rows.items():
                    if key not in found and row.resolved_at is None:
                        row.resolved_at = at
                session.flush()
                lasting = select(AlertRow).where(AlertRow.resolved_at.is_(None))
                return [
                    _record(row) for row in session.scalars(lasting.order_by(AlertRow.since, AlertRow.key))
                ]

        return self._database.retrying(work)

    def sent(self, keys: Collection[str]) -> None:
        """Somebody was told of these."""
        with self._database.writing() as session:
            session.execute(update(AlertRow).where(AlertRow.key.in_(keys)).values(last_sent_at=self._now()))

    def lasting(self) -> list[AlertRecord]:
        """What is wrong now, oldest first."""
        query = select(AlertRow).where(AlertRow.resolved_at.is_(None)).order_by(AlertRow.since, AlertRow.key)
        with self._database.reading() as session:
            return [_record(row) for row in session.scalars(query)]

    def drop_resolved(self, age: timedelta) -> None:
        """Forget what has been over for so long."""
        with self._database.writing() as session:
            session.execute(delete(AlertRow).where(AlertRow.resolved_at < self._now() - age))


def _record(row: AlertRow) -> AlertRecord:
    return AlertRecord(
        key=row.key,
        kind=row.kind,
        since=row.since,
        last_sent_at=row.last_sent_at,
        resolved_at=row.resolved_at,
        detail=row.detail,
    )
