"""The schema: brought to this version's, never away from a newer one.

Processes that start at once queue here: the first one migrates, the others find nothing left to do.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from storage.database import BUSY_TIMEOUT_S, build_engine, is_sqlite, translated
from storage.errors import DatabaseUnavailableError, SchemaError

# Any fixed number, the same for every process of every version.
_ADVISORY_LOCK = 0x6E6F6465


def upgrade(database_url: str) -> None:
    """Bring the schema to head. Raises `SchemaError` for a schema this version does not know."""
    engine = build_engine(database_url)
    try:
        with translated(), _alone(engine), engine.begin() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
            _refuse_unknown(found)
            if found != head_revision():
                _migrate(connection)
    finally:
        engine.dispose()


def current_revision(database_url: str) -> str | None:
    """The revision the database is at; None when it is empty."""
    engine = build_engine(database_url)
    try:
        with translated(), engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()


def head_revision() -> str:
    """The revision this version works with."""
    head = _scripts().get_current_head()
    if head is None:
        raise SchemaError("the package holds no migrations")
    return head


def known_revisions() -> frozenset[str]:
    """Every revision this version can work on from."""
    return frozenset(script.revision for script in _scripts().walk_revisions())


@cache
def _scripts() -> ScriptDirectory:
    """The migrations of this version; read once, for they do not change under a running process."""
    return ScriptDirectory.from_config(_config())


def _config() -> Config:
    """Alembic's configuration, without a file: the migrations lie beside this module."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def _migrate(connection: Connection) -> None:
    """Run the missing migrations in the caller's transaction: all of them, or none."""
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _refuse_unknown(revision: str | None) -> None:
    """Leave a database alone that a newer version has migrated."""
    if revision is not None and revision not in known_revisions():
        raise SchemaError(f"the database has schema {revision}; this version knows up to {head_revision()}")


@contextmanager
def _alone(engine: Engine) -> Iterator[None]:
    """Let one process at a time look at and change the schema."""
    if not is_sqlite(engine):
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _ADVISORY_LOCK})
            try:
                yield
            finally:
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": _ADVISORY_LOCK})
                connection.rollback()
        return
    path = Path(str(engine.url.database))
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        _lock(descriptor)
        _use_write_ahead_log(path)
        yield
    finally:
        os.close(descriptor)  # which also gives the lock back


def _lock(descriptor: int) -> None:
    """Wait for the file lock no longer than for the database itself."""
    give_up = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > give_up:
                raise DatabaseUnavailableError("another process keeps migrating the database") from None
            time.sleep(0.02)


def _use_write_ahead_log(path: Path) -> None:
    """Switch the file to WAL. The mode stays with the file, so this happens once and while alone."""
    connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
    except sqlite3.Error as exc:
        raise DatabaseUnavailableError(f"the database cannot keep a log ({exc.sqlite_errorname})") from exc
    finally:
        connection.close()
