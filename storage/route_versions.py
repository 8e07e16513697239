"""Routes as they were applied, version by version; the latest one counts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import select

from storage.clock import Clock
from storage.database import Database
from storage.desk_tables import RouteVersionRow
from storage.errors import IllegalTransitionError, NotFoundError
from storage.trail import add_event


@dataclass(frozen=True)
class RouteVersion:
    """One applied version; `text` None means: as in the configuration file."""

    id: int
    text: str | None
    digest: str
    author: str
    comment: str
    restored_from: int | None
    created_at: datetime


class RouteVersions:
    """Apply and read versions. Nothing is ever changed or removed."""

    def __init__(self, database: Database, now: Clock) -> None:
        self._database = database
        self._now = now

    def latest(self) -> RouteVersion | None:
        """The version in force; None while only the file counts."""
        query = select(RouteVersionRow).order_by(RouteVersionRow.id.desc()).limit(1)
        with self._database.reading() as session:
            row = session.scalars(query).one_or_none()
            return None if row is None else _record(row)

    def get(self, version: int) -> RouteVersion:
        """One version. Raises `NotFoundError`."""
        with self._database.reading() as session:
            row = session.get(RouteVersionRow, version)
            if row is None:
                raise NotFoundError("route version", version)
            return _record(row)

    def list(self, limit: int = 100) -> list[RouteVersion]:
        """Versions, newest first."""
        query = select(RouteVersionRow).order_by(RouteVersionRow.id.desc()).limit(limit)
        with self._database.reading() as session:
            return [_record(row) for row in session.scalars(query)]

    def apply(
        self,
        text: str | None,
        *,
        author: str,
        comment: str,
        expected: int | None,
        restored_from: int | None = None,
    ) -> RouteVersion:
        """Make a version that counts from now on.

        `expected` is the version the author looked at, None for the file: when another was applied meanwhile,
        `IllegalTransitionError` is raised and nothing changes.
        """
        with self._database.writing() as session:
            self._database.serialise_on(session, "route-versions")
            current = session.scalar(select(RouteVersionRow.id).order_by(RouteVersionRow.id.desc()).limit(1))
            if current != expected:
                raise IllegalTransitionError(
                    f"version {current or 'of the file'}", "apply", "the routes were changed meanwhile"
                )
            row = RouteVersionRow(
                text=text,
                digest=hashlib.sha256((text or "").encode()).hexdigest(),
                author=author,
                comment=comment,
                restored_from=restored_from,
                created_at=self._now(),
            )
            session.add(row)
            session.flush()
            data = {"actor": author, "version": row.id, "digest": row.digest, "restored_from": restored_from}
            add_event(session, "routes.applied", at=row.created_at, data=data)
            return _record(row)


def _record(row: RouteVersionRow) -> RouteVersion:
    return RouteVersion(
        id=row.id,
        text=row.text,
        digest=row.digest,
        author=row.author,
        comment=row.comment,
        restored_from=row.restored_from,
        created_at=row.created_at,
    )
