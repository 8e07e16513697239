"""Who holds a job, told by one clock and proven with processes that sleep through the end of their lease."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from storage.database import Database
from storage.errors import StoreInUseError
from storage.lease_clock import LeaseClock
from storage.node_lock import NodeLock
from storage.states import JobKind, JobState
from storage.store import open_store
from storage.watchdog import Limits

HOLDER = """
import sys
from datetime import timedelta
from pathlib import Path
from storage.errors import LostClaimError
from storage.states import JobKind, Stage
from storage.store import open_store

with open_store(sys.argv[1], Path(sys.argv[2])) as store:
    job = store.jobs.claim(JobKind.ENHANCE, "sleeper", timedelta(seconds=1))
    print(job.token, flush=True)
    sys.stdin.readline()
    tries = {
        "heartbeat": lambda: store.jobs.heartbeat(job, timedelta(hours=1)).alive or None,
        "stage": lambda: store.jobs.set_stage(job, Stage.COMMIT) or True,
        "commit": lambda: store.jobs.commit_manifest(job, [], []) or True,
        "fail": lambda: store.jobs.fail(job, reason="X", message="") and True,
        "succeed": lambda: store.jobs.succeed(job) and True,
    }
    for name, write in tries.items():
        try:
            print(name, write(), flush=True)
        except LostClaimError:
            print(name, None, flush=True)
"""


NODE = """
import sys, time
from storage.node_lock import NodeLock
lock = NodeLock(sys.argv[1])
print(1, flush=True)
time.sleep(60)
"""


def _await(condition: Callable[[], object], limit_s: float = 60.0) -> object:
    """Wait until something is so."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.02)
    raise AssertionError("it did not come to pass")


def test_a_process_that_wakes_up_after_its_lease_cannot_write(tmp_path, database_url, make_scene):
    with open_store(database_url, tmp_path / "data") as store:
        make_scene(store).enqueue()
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, database_url, str(tmp_path / "data")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert holder.stdout.readline() == "1\n"
            os.kill(holder.pid, signal.SIGSTOP)
            _await(lambda: store.jobs.requeue_expired(3))
            second = _await(lambda: store.jobs.claim(JobKind.ENHANCE, "awake", timedelta(minutes=5)))

            os.kill(holder.pid, signal.SIGCONT)
            told, _ = holder.communicate("\n", timeout=60)
        finally:
            holder.kill()

        assert told.splitlines() == [
            f"{name} None" for name in ("heartbeat", "stage", "commit", "fail", "succeed")
        ]
        now = store.jobs.get(second.id)
        assert (now.state, now.claimed_by, now.token, now.attempts) == (JobState.RUNNING, "awake", 2, 2)


class WallClock:
    """A wall clock that somebody sets."""

    def __init__(self) -> None:
        self.set_by = timedelta(0)

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.set_by


@pytest.mark.parametrize("jump", [timedelta(days=1), timedelta(days=-1)])
def test_a_wall_clock_that_is_set_expires_nothing_and_delays_nothing(tmp_path, sqlite_url, jump):
    with open_store(sqlite_url, tmp_path / "data") as store:
        wall = WallClock()
        clock = LeaseClock(store._database, wall=wall)
        store.destinations.failed("pacs", "away", wait=lambda _failures: timedelta(minutes=5), opens_at=9)
        before = clock()

        wall.set_by = jump
        unmoved = clock() - before
        moved_by = clock.settle()

        assert timedelta(0) <= unmoved < timedelta(minutes=2)
        assert abs(moved_by - jump) < timedelta(minutes=2)
        until = store.destinations.status("pacs").not_before
        assert timedelta(minutes=2) < until - clock() < timedelta(minutes=6)
        assert [alarm.code for alarm in store.alarms.active()] == ["clock_jump"]
        assert clock.settle() is None


def test_a_new_boot_hangs_the_clock_anew(tmp_path, sqlite_url, monkeypatch):
    with open_store(sqlite_url, tmp_path / "data") as store:
        monkeypatch.setattr("storage.lease_clock._boot_id", lambda: "another boot")
        wall = WallClock()
        wall.set_by = timedelta(days=30)

        clock = LeaseClock(store._database, wall=wall)

        assert abs(clock() - wall()) < timedelta(minutes=1)


def test_postgresql_tells_the_time_by_its_own_clock(postgres_url):
    database = Database(postgres_url)
    wall = WallClock()
    wall.set_by = timedelta(days=300)

    assert abs(LeaseClock(database, wall=wall)() - datetime.now(UTC)) < timedelta(minutes=1)
    database.close()


def test_a_second_node_on_one_sqlite_file_is_refused(sqlite_url):
    first = NodeLock(sqlite_url)

    with pytest.raises(StoreInUseError, match=str(os.getpid())):
        NodeLock(sqlite_url)

    first.release()
    NodeLock(sqlite_url).release()


def test_a_node_that_was_killed_leaves_no_lock(sqlite_url):
    node = subprocess.Popen([sys.executable, "-c", NODE, sqlite_url], stdout=subprocess.PIPE, text=True)
    node.stdout.readline()
    with pytest.raises(StoreInUseError):
        NodeLock(sqlite_url)

    node.kill()
    node.communicate()

    NodeLock(sqlite_url).release()


def test_several_nodes_may_share_a_postgresql_database(postgres_url):
    first, second = NodeLock(postgres_url), NodeLock(postgres_url)

    first.release()
    second.release()


def test_opening_a_store_twice_in_one_process_keeps_the_locks_of_the_first(tmp_path, sqlite_url):
    with open_store(sqlite_url, tmp_path / "data") as store, store._database.writing() as session:
        session.connection()
        Database(sqlite_url).close()
        other = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0.1).execute('BEGIN IMMEDIATE')",
                str(tmp_path / "node.db"),
            ],
            capture_output=True,
            text=True,
            check=False,
        )

    assert "database is locked" in other.stderr


SMALL = Limits(**{name: timedelta(seconds=60) for name in Limits.__dataclass_fields__})


def _stuck_association(scene):
    scene.associate()
    return "association 1 OPEN"


def _stuck_series(scene):
    scene.add("1.1.1", series="1.1")
    return "series 1 RECEIVING"


def _forgotten_series(scene):
    scene.close(scene.add("1.1.1", series="1.1").series.id, event="hold", reason="MISSING_SLICE")
    return "series 1 HELD"


def _stuck_job(scene):
    scene.enqueue()
    return "job 1 WAITING"


def _stuck_delivery(scene):
    scene.commit()
    return "job 2 DELIVERING"


@pytest.mark.parametrize(
    "freeze", [_stuck_association, _stuck_series, _forgotten_series, _stuck_job, _stuck_delivery]
)
def test_whatever_stays_too_long_raises_one_alarm(scene, freeze):
    subject = freeze(scene)
    assert scene.store.watchdog.watch(SMALL) == ()
    scene.clock.move(seconds=61)

    assert [item.subject for item in scene.store.watchdog.watch(SMALL)] == [subject]
    assert scene.store.watchdog.watch(SMALL) == ()
    assert [alarm.subject for alarm in scene.store.alarms.active("overdue")] == [subject]


def test_a_worker_that_neither_works_nor_dies_is_seen_by_its_lease(scene):
    scene.enqueue()
    scene.claim()
    scene.clock.move(seconds=200)

    subjects = {item.subject for item in scene.store.watchdog.watch(SMALL)}

    assert subjects == {"job 1 RUNNING", "job 1 LEASE"}


def test_an_alarm_ends_when_things_go_on(scene):
    scene.enqueue()
    scene.clock.move(seconds=61)
    scene.store.watchdog.watch(SMALL)

    scene.claim()
    scene.store.watchdog.watch(SMALL)

    assert scene.store.alarms.active() == []
