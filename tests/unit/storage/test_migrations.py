"""The schema: from nothing to what the tables say, by several processes at once, never from the future."""

from __future__ import annotations

import multiprocessing
import stat
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, text

from storage.errors import DatabaseUnavailableError, SchemaError, StorageError
from storage.store import current_revision, head_revision, open_store, upgrade
from storage.tables import Base


def test_the_migrations_lead_from_an_empty_database_to_the_tables(empty_url):
    assert current_revision(empty_url) is None

    upgrade(empty_url)

    assert current_revision(empty_url) == head_revision()
    engine = create_engine(empty_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_a_second_upgrade_changes_nothing(database_url, scene):
    added = scene.add("1.2.3.1")

    upgrade(database_url)

    assert scene.store.index.get_series("1.2.3") == added.series


def test_a_newer_schema_is_refused_and_left_alone(tmp_path, database_url):
    upgrade(database_url)
    engine = create_engine(database_url)
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()

    with pytest.raises(SchemaError, match="9999"):
        open_store(database_url, tmp_path / "data")

    assert current_revision(database_url) == "9999"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_database_survives_a_power_cut_by_its_settings(tmp_path, store):
    with store._database.writing() as session:
        pragmas = {
            name: session.connection().exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }

    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 30000}
    assert stat.S_IMODE((tmp_path / "node.db").stat().st_mode) == 0o600


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_that_processes_cannot_share_is_refused(url, tmp_path):
    with pytest.raises(StorageError, match="file"):
        open_store(url, tmp_path / "data")


def test_a_database_that_cannot_be_opened_is_unavailable(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(DatabaseUnavailableError):
        open_store(f"sqlite:///{tmp_path / 'file' / 'node.db'}", tmp_path / "data")


def test_a_file_that_is_no_database_is_unavailable(tmp_path):
    (tmp_path / "node.db").write_bytes(b"not a database, but long enough to be looked at" * 100)

    with pytest.raises(DatabaseUnavailableError, match="SQLITE_NOTADB"):
        open_store(f"sqlite:///{tmp_path / 'node.db'}", tmp_path / "data")


def _first_start(database_url: str, directory: str, barrier, done) -> None:
    barrier.wait()
    with open_store(database_url, Path(directory)) as store:
        store.trail.append("process.started")
    done.put(True)


def test_processes_may_start_for_the_first_time_at_once(tmp_path, empty_url):
    spawn = multiprocessing.get_context("fork")
    barrier, done = spawn.Barrier(4), spawn.Queue()
    processes = [
        spawn.Process(target=_first_start, args=(empty_url, str(tmp_path / "data"), barrier, done))
        for _ in range(4)
    ]

    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    with open_store(empty_url, tmp_path / "data") as store:
        assert [event.name for event in store.trail.list()] == ["process.started"] * 4
