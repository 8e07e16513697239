"""Looking at a database without changing it: nothing is created, migrated or locked."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from storage.database import translated
from storage.errors import DatabaseUnavailableError
from storage.migrate import head_revision, known_revisions

_CONNECT_S = 5


@dataclass(frozen=True)
class DatabaseFacts:
    """What a database says about itself.

    revision       of its schema; None when it is empty, or an SQLite file that does not exist yet
    known          whether this version knows the revision; `head` is the one it works with
    clock          the database's own clock; None for SQLite, which has none
    clock_error_s  how far the clock may be off because of the way there and back
    durable        whether a commit waits for the disk (PostgreSQL: fsync and synchronous_commit)
    """

    kind: str
    revision: str | None
    head: str
    known: bool
    clock: datetime | None
    clock_error_s: float
    durable: bool


def sqlite_file(database_url: str) -> Path | None:
    """The file of an SQLite database, or None for another kind."""
    url = make_url(database_url)
    return Path(url.database) if url.get_backend_name() == "sqlite" and url.database else None


def probe_database(database_url: str) -> DatabaseFacts:
    """Ask a database who it is. Raises `DatabaseUnavailableError` with a cause that names no password."""
    file = sqlite_file(database_url)
    if file is not None:
        return _probe_sqlite(file)
    try:
        engine = create_engine(
            database_url, connect_args={"connect_timeout": _CONNECT_S}, hide_parameters=True
        )
    except (ArgumentError, NoSuchModuleError, ImportError) as exc:
        raise DatabaseUnavailableError(f"its driver is not installed ({type(exc).__name__})") from exc
    try:
        with translated(), engine.connect() as connection:
            return _facts_of_server(connection)
    finally:
        engine.dispose()


def _facts_of_server(connection: Connection) -> DatabaseFacts:
    """What PostgreSQL answers."""
    settings = [connection.execute(text(f"SHOW {name}")).scalar() for name in ("fsync", "synchronous_commit")]
    began = time.monotonic()
    clock = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
    taken = time.monotonic() - began
    durable = settings[0] != "off" and settings[1] != "off"
    revision = MigrationContext.configure(connection).get_current_revision()
    return _facts("PostgreSQL", revision, clock.astimezone(UTC), taken, durable=durable)


def _probe_sqlite(file: Path) -> DatabaseFacts:
    """Read an SQLite file through a connection that cannot write."""
    if not file.exists():
        return _facts("SQLite", None, None, 0.0, durable=True)
    try:
        connection = sqlite3.connect(f"file:{_quoted(file)}?mode=ro", uri=True, timeout=_CONNECT_S)
        try:
            connection.execute("PRAGMA schema_version").fetchone()
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            rows = (
                connection.execute("SELECT version_num FROM alembic_version").fetchall()
                if "alembic_version" in tables
                else []
            )
            if connection.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                raise DatabaseUnavailableError("the file is damaged (quick_check)")
        finally:
            connection.close()
    except sqlite3.Error as exc:
        name = getattr(exc, "sqlite_errorname", type(exc).__name__)
        raise DatabaseUnavailableError(f"the file cannot be read ({name})") from exc
    return _facts("SQLite", rows[0][0] if rows else None, None, 0.0, durable=True)


def _quoted(file: Path) -> str:
    """A path as part of a URI."""
    return file.absolute().as_uri().removeprefix("file://")


def _facts(
    kind: str, revision: str | None, clock: datetime | None, error_s: float, *, durable: bool
) -> DatabaseFacts:
    known = revision is None or revision in known_revisions()
    return DatabaseFacts(kind, revision, head_revision(), known, clock, error_s, durable)
