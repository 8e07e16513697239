"""One database, one way in: short transactions, the writer's lock taken first, driver errors translated.

SQLite runs in WAL mode with synchronous=FULL, so a committed row survives a power cut, and every writer begins
with BEGIN IMMEDIATE: a transaction that read first and then waits for the write lock could only fail.
Threads of one process queue on a lock of their own, because SQLite's busy handler sleeps in steps of up to
100 ms and is not fair. Processes meet at the busy timeout.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text, update
from sqlalchemy.engine import CursorResult, Dialect, Result
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker

from storage.errors import DatabaseDiskError, DatabaseUnavailableError, SpoolFullError, StorageError

T = TypeVar("T")

BUSY_TIMEOUT_S = 30.0
MAX_TRIES = 5
_READING = "storage_reading"
# SQLSTATE (PostgreSQL manual, Appendix A): disk_full, io_error, serialization_failure, deadlock_detected.
_DISK_FULL = "53100"
_IO_ERROR = "58030"
_TRY_AGAIN = frozenset({"40001", "40P01"})


class _TryAgainError(DatabaseUnavailableError):
    """The database chose this transaction as the one to give way; the same work may be tried at once."""


class _KeyTakenError(StorageError):
    """A unique key, or a reference, forbids the change; nothing of it was kept."""


class Database:
    """Transactions on one database. Safe to share between threads; not across a fork."""

    def __init__(self, database_url: str) -> None:
        self._engine = build_engine(database_url)
        self._sessions = sessionmaker(self._engine, expire_on_commit=False, autoflush=False)
        self._readers = sessionmaker(
            self._engine.execution_options(**{_READING: True}), expire_on_commit=False, autoflush=False
        )
        self._write_lock = threading.Lock() if is_sqlite(self._engine) else None
        self._kept_connection: Connection | None = None

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """One write transaction: committed when the block ends, rolled back when it raises.

        Raises `DatabaseUnavailableError` or `SpoolFullError` in place of the driver's errors.
        """
        with self._queued(), translated(), self._sessions.begin() as session:
            yield session

    @contextmanager
    def writing_plainly(self) -> Iterator[Connection]:
        """One write transaction without a session, for statements on the driver's cursor; else as `writing`."""
        driver: Any = self._engine.dialect.dbapi
        with self._queued(), translated(), self._kept() as connection:
            try:
                yield connection
            except driver.IntegrityError as exc:
                raise _KeyTakenError("the database holds this key already") from exc
            except driver.Error as exc:
                raise _translate(exc) from exc

    @contextmanager
    def _kept(self) -> Iterator[Connection]:
        """A transaction on SQLite's one connection for plain writes, which are one at a time anyway.

        A pool's checkout and return cost as much as the statements do. PostgreSQL has many writers.
        """
        if self._write_lock is None:
            with self._engine.begin() as connection:
                yield connection
            return
        connection = self._kept_connection or self._engine.connect()
        self._kept_connection = None  # and so it stays if this fails
        try:
            with connection.begin():
                yield connection
        except BaseException:
            connection.close()
            raise
        self._kept_connection = connection

    @property
    def writer(self) -> Dialect:
        """How to write for this database."""
        return self._engine.dialect

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """One read transaction: a consistent view that waits for no writer."""
        with translated(), self._readers.begin() as session:
            yield session

    def retrying(self, work: Callable[[], T]) -> T:
        """Run work that opens its own transaction; again when two transactions collided on a unique key."""
        for _ in range(MAX_TRIES - 1):
            try:
                return work()
            except (_KeyTakenError, _TryAgainError):
                continue
        return work()

    def serialise_on(self, session: Session | Connection, key: str) -> None:
        """Let only one transaction at a time pass for this key, until it ends.

        SQLite has one writer at a time anyway; PostgreSQL takes an advisory lock.
        """
        if self._engine.dialect.name == "postgresql":
            session.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": key})

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    def close(self) -> None:
        """Close every connection."""
        kept, self._kept_connection = self._kept_connection, None
        if kept is not None:
            kept.close()
        self._engine.dispose()

    @contextmanager
    def _queued(self) -> Iterator[None]:
        """Wait for the turn of this thread, no longer than the database itself would be waited for."""
        if self._write_lock is None:
            yield
            return
        if not self._write_lock.acquire(timeout=BUSY_TIMEOUT_S):
            raise DatabaseUnavailableError("the database is busy")
        try:
            yield
        finally:
            self._write_lock.release()


def build_engine(database_url: str) -> Engine:
    """Build the SQLAlchemy engine for a URL; creates the SQLite file, readable by its owner only."""
    url = make_url(database_url)
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=20, hide_parameters=True)
    if not url.database or url.database == ":memory:":
        raise StorageError("an SQLite database needs a file: several processes share it")
    _create_private(Path(url.database))
    engine = create_engine(
        url,
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
        pool_size=5,
        max_overflow=64,
        hide_parameters=True,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def is_sqlite(engine: Engine) -> bool:
    """Whether this is SQLite."""
    return engine.dialect.name == "sqlite"


def changed(result: Result[Any]) -> int:
    """How many rows an UPDATE or DELETE changed."""
    return cast("CursorResult[Any]", result).rowcount


def set_state(session: Session, row: Any, following: str, **changes: Any) -> bool:
    """Give a mapped row (with `id` and `state`) its next state by compare-and-set on the one it was read in.

    False, and nothing changed, when it is in another state by now, which cannot be while its lock is held.
    """
    table = type(row)
    statement = (
        update(table)
        .where(table.id == row.id, table.state == row.state)
        .values(state=following, **changes)
        .execution_options(synchronize_session=False)
    )
    if changed(session.execute(statement)) != 1:
        return False
    session.refresh(row)
    return True


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's errors into the store's."""
    try:
        yield
    except IntegrityError as exc:
        raise _KeyTakenError("the database holds this key already, or lacks what the row refers to") from exc
    except PoolTimeoutError as exc:
        raise DatabaseUnavailableError("no database connection became free") from exc
    except DBAPIError as exc:
        raise _translate(exc.orig) from exc


def _translate(origin: BaseException | None) -> StorageError:
    """The store's error for a driver's error; the text has neither statement nor parameters."""
    state = getattr(origin, "sqlstate", None)
    if state == _DISK_FULL or getattr(origin, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return SpoolFullError("the database has no space left")
    if state in _TRY_AGAIN:
        return _TryAgainError("the database asked to try again")
    name = getattr(origin, "sqlite_errorname", None) or state or type(origin).__name__
    if name == _IO_ERROR or name.startswith("SQLITE_IOERR"):
        return DatabaseDiskError(name)
    return DatabaseUnavailableError(f"the database did not take the transaction ({name})")


def _create_private(path: Path) -> None:
    """Create the file for its owner alone; SQLite gives its side files the same mode."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Never opened when it exists: closing it again would give up SQLite's locks of this process on it.
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except OSError as exc:
        raise DatabaseUnavailableError(f"the database file cannot be opened (errno {exc.errno})") from exc


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    """Settings that belong to the connection. The journal mode belongs to the file: see `migrate`."""
    connection.isolation_level = None  # the driver must not begin transactions of its own
    connection.execute(f"PRAGMA busy_timeout = {int(BUSY_TIMEOUT_S * 1000)}")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")
    # 16 MiB of log between checkpoints: a fourth of the syncs that the default of 4 MiB costs while receiving.
    connection.execute("PRAGMA wal_autocheckpoint = 4000")


def _begin_sqlite(connection: Connection) -> None:
    """Begin as a reader or as a writer."""
    reading = connection.get_execution_options().get(_READING, False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
