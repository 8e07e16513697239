"""PostgreSQL goes away, comes back, cuts connections and is slow: no false success, no loss, no restart of ours."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from storage.errors import DatabaseUnavailableError, StorageError
from storage.store import open_store, upgrade


def _await(condition: Callable[[], object], limit_s: float = 60.0) -> object:
    end = time.monotonic() + limit_s
    while True:
        try:
            return condition()
        except StorageError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


@pytest.fixture
def own_server(make_postgres):
    """A server that the test may stop."""
    return make_postgres()


@pytest.fixture
def store(own_server, tmp_path, clock):
    url = own_server.create()
    upgrade(url)
    with open_store(url, tmp_path / "data", now=clock) as opened:
        yield opened


@pytest.mark.parametrize("mode", ["immediate", "fast"])
def test_a_server_that_is_away_is_said_to_be_and_used_again_when_it_is_back(own_server, store, scene, mode):
    kept = scene.add("1.1.1", series="1.1")
    own_server.stop(mode)
    draft = scene.draft("1.1.2", series="1.1")

    with pytest.raises(DatabaseUnavailableError):
        scene.store.index.add_instance(draft)
    with pytest.raises(DatabaseUnavailableError):
        scene.store.listing.jobs()
    own_server.start()

    assert _await(lambda: scene.store.index.add_instance(draft)).outcome == "stored"
    uids = [copy.sop_instance_uid for copy in scene.store.index.instances(kept.series.id)]
    assert uids == ["1.1.1", "1.1.2"]


def test_connections_that_were_cut_are_replaced(own_server, store, scene):
    scene.add("1.1.1", series="1.1")
    own_server.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )

    assert (
        _await(lambda: scene.store.index.add_instance(scene.draft("1.1.2", series="1.1"))).outcome == "stored"
    )


def test_every_acknowledged_instance_outlives_a_server_that_keeps_dying(own_server, store, scene):
    acknowledged: list[str] = []
    stop = threading.Event()

    def send() -> None:
        number = 0
        while not stop.is_set():
            uid = f"1.1.{number}"
            try:
                scene.store.index.add_instance(scene.draft(uid, series="1.1"))
            except StorageError:
                continue
            acknowledged.append(uid)
            number += 1

    sender = threading.Thread(target=send)
    sender.start()
    for _ in range(3):
        before = len(acknowledged)
        end = time.monotonic() + 60
        while len(acknowledged) < before + 5 and time.monotonic() < end:
            time.sleep(0.01)
        own_server.stop("immediate")
        own_server.start()
    stop.set()
    sender.join(60)

    series = _await(lambda: scene.store.index.get_series("1.1"))
    stored = {copy.sop_instance_uid for copy in scene.store.index.instances(series.id)}
    assert set(acknowledged) <= stored
    assert len(acknowledged) >= 15


def test_a_slow_database_makes_slow_answers_and_no_wrong_ones(own_server, store, scene):
    scene.add("1.1.1", series="1.1")
    with store._database.writing() as session:
        # Somebody holds the row of the series for a while.
        from storage.series_rows import lock_series

        lock_series(session, 1)
        outcome: list[str] = []
        draft = scene.draft("1.1.2", series="1.1")
        late = threading.Thread(target=lambda: outcome.append(store.index.add_instance(draft).outcome))
        late.start()
        late.join(0.5)
        assert outcome == []

    late.join(60)
    assert outcome == ["stored"]
