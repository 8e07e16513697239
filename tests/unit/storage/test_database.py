"""The edge to the database: what its failures become, and several processes on one file."""

from __future__ import annotations

import multiprocessing
import sqlite3
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError, StatementError

from storage import database as database_module
from storage.database import Database, translated
from storage.errors import DatabaseUnavailableError, SpoolFullError, StorageError
from storage.records import NewInstance
from storage.states import JobKind, JobState
from storage.store import Store, open_store


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_locked_database_is_unavailable_and_nothing_was_kept(tmp_path, monkeypatch, database_url):
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.2)
    with open_store(database_url, tmp_path / "data") as store:
        other = sqlite3.connect(tmp_path / "node.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(DatabaseUnavailableError, match="SQLITE_BUSY"):
            store.trail.append("process.started")
        assert store.trail.list() == []

        other.close()
        store.trail.append("process.started")
        assert len(store.trail.list()) == 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_thread_does_not_wait_for_ever_for_another(database_url, monkeypatch, store):
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.1)

    with store._database.writing(), pytest.raises(DatabaseUnavailableError, match="busy"):
        store.trail.append("process.started")


def test_the_error_text_has_no_statement_and_no_values():
    origin = sqlite3.OperationalError("secret")

    with pytest.raises(DatabaseUnavailableError) as unavailable, translated():
        raise OperationalError("SELECT secret", {"name": "secret"}, origin)

    assert "secret" not in str(unavailable.value)


def test_a_transaction_that_collides_is_tried_again(store):
    tries: list[int] = []

    def work() -> str:
        tries.append(1)
        if len(tries) < 3:
            with translated():
                error = sqlite3.OperationalError("deadlock")
                error.sqlstate = "40P01"
                raise OperationalError("", {}, error)
        return "done"

    assert store._database.retrying(work) == "done"
    assert len(tries) == 3


def test_a_key_that_stays_taken_is_an_error_of_the_store(store, scene):
    draft = scene.draft("1.2.3.1")
    scene.store.index.add_instance(draft)
    other = NewInstance(**{**vars(draft), "sop_instance": "1.2.3.2"})

    with pytest.raises(StorageError, match="key"):
        store.index.add_instance(other)


def test_a_row_that_refers_to_nothing_is_refused(scene):
    with pytest.raises(StorageError):
        scene.add("1.2.3.1", association=77)
    assert scene.store.index.list_series() == []


def test_times_come_back_aware_and_in_utc(scene):
    scene.clock.at = datetime(2031, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))

    added = scene.add("1.2.3.1")

    assert added.series.first_received_at == scene.clock.at
    read = scene.store.index.get_series("1.2.3").first_received_at
    assert (read, read.tzinfo) == (datetime(2031, 1, 1, 10, tzinfo=UTC), UTC)


def test_a_naive_time_is_refused(scene):
    scene.clock.at = datetime(2031, 1, 1)  # noqa: DTZ001

    with pytest.raises(StatementError, match="naive"):
        scene.add("1.2.3.1")


def _fill(path: Path) -> None:
    """Write until the disk takes no more."""
    with path.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass


def _tell_much(store: Store) -> None:
    """More lines than a full disk can take."""
    for _ in range(100):
        store.trail.append("while full", data={"filler": "x" * 4000})


def test_a_full_disk_below_the_database_is_a_full_store_and_recovers(small_disk):
    with open_store(f"sqlite:///{small_disk / 'node.db'}", small_disk / "data") as store:
        store.trail.append("before")
        ballast = small_disk / "ballast"
        with pytest.raises(OSError, match="No space"):
            _fill(ballast)

        with pytest.raises((SpoolFullError, DatabaseUnavailableError)):
            _tell_much(store)
        ballast.unlink()
        store.trail.append("after")

        names = [event.name for event in store.trail.list()]
        assert (names[0], names[-1]) == ("after", "before")


def _receive(database_url: str, directory: str, first: int, count: int) -> None:
    with open_store(database_url, Path(directory)) as store:
        for number in range(first, first + count):
            store.index.add_instance(
                NewInstance(
                    study_uid="1.2",
                    series_uid="1.2.3",
                    modality="CT",
                    sop_class="1.2",
                    sop_instance=f"1.2.3.{number % 40}",
                    transfer_syntax="1.2",
                    digest=f"{number % 40:064d}",
                    path=Path(directory).absolute() / f"{number}",
                    size=1,
                    association_id=None,
                    calling_ae="A",
                    called_ae="B",
                )
            )


def _work(database_url: str, directory: str, worker: str) -> None:
    with open_store(database_url, Path(directory)) as store:
        while job := store.jobs.claim(JobKind.ENHANCE, worker, timedelta(minutes=1)):
            assert store.jobs.heartbeat(job, timedelta(minutes=1)).alive
            store.jobs.succeed(job, {"worker": worker})


def _run_together(targets) -> list[int | None]:
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=target, args=args) for target, args in targets]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


def test_receivers_in_two_processes_store_each_instance_once(tmp_path, database_url):
    arguments = [(_receive, (database_url, str(tmp_path / "data"), first, 40)) for first in (1, 1001)]

    assert _run_together(arguments) == [0, 0]

    with open_store(database_url, tmp_path / "data") as store:
        series = store.index.get_series("1.2.3")
        assert series.instance_count == len(store.index.instances(series.id)) == 40
        assert not any(instance.conflict for instance in store.index.instances(series.id))


def test_workers_in_two_processes_share_the_queue_without_a_double(tmp_path, database_url, scene):
    scene.clock.at = datetime(2021, 1, 1, tzinfo=UTC)  # the workers read the real clock
    jobs = [scene.enqueue(number).id for number in range(1, 13)]
    arguments = [
        (_work, (database_url, str(tmp_path / "data"), worker)) for worker in ("worker-1", "worker-2")
    ]

    assert _run_together(arguments) == [0, 0]

    done = scene.store.jobs.list(state=JobState.SUCCEEDED)
    assert sorted(job.id for job in done) == jobs
    assert {job.attempts for job in done} == {1}
    assert all(scene.names(job=job.id).count("job.claimed") == 1 for job in done)


def test_a_store_that_was_closed_can_be_opened_again(tmp_path, database_url, scene):
    added = scene.add("1.2.3.1")
    scene.store.close()

    with open_store(database_url, tmp_path / "data") as again:
        assert again.index.get_series("1.2.3") == added.series
        assert Database(database_url).close() is None
