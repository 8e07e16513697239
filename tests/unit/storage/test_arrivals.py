"""Arrivals in one transaction end as they would one by one, and nobody hears success before his own is committed."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from storage.arriving import Folder
from storage.errors import DatabaseUnavailableError, StorageError
from storage.group_commit import GroupCommit
from storage.index import Index
from storage.states import SeriesState
from storage.store import open_store


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path, lambda _exc: None)


def picture(store):
    """Everything the index says about series and instances, without the numbers of rows and paths."""
    found = []
    for series in sorted(store.index.list_series(), key=lambda one: one.series_instance_uid):
        instances = store.index.instances(series.id)
        events = [event.name for event in store.trail.for_series(series.id)]
        found.append(
            (
                (series.study_instance_uid, series.series_instance_uid, series.state, series.generation),
                (series.instance_count, series.last_received_at),
                sorted((one.sop_instance_uid, one.digest, one.conflict, one.generation) for one in instances),
                sorted(events),
            )
        )
    return found


@pytest.mark.parametrize("seed", range(3))
def test_any_mixture_ends_as_it_would_one_by_one(scene, clock, tmp_path, seed):
    dice = random.Random(seed)
    alone = open_store(f"sqlite:///{tmp_path / 'alone.db'}", tmp_path / "alone", now=clock)
    with alone:
        other = type(scene)(alone, clock)
        associations = [(scene.associate(), other.associate()) for _ in range(3)]
        for step in range(3):
            ours, theirs = [], []
            for _ in range(12):
                ids = dice.choice(associations)
                uid, content, series = (
                    f"1.2.{dice.randrange(14)}",
                    dice.choice("aab"),
                    f"9.{dice.randrange(3)}",
                )
                ours.append(scene.draft(uid, content=content, series=series, association=ids[0]))
                theirs.append(other.draft(uid, content=content, series=series, association=ids[1]))
            together = scene.store.index.add_instances(ours)
            order = sorted(range(12), key=lambda number: theirs[number].series_uid)
            singly = {number: alone.index.add_instance(theirs[number]).outcome for number in order}

            assert together == [singly[number] for number in range(12)], step
            assert picture(scene.store) == picture(alone)


def test_stored_twice_in_one_group_is_a_duplicate(scene):
    drafts = [scene.draft("1.2.1", content="same") for _ in range(3)]

    assert scene.store.index.add_instances(drafts) == ["stored", "duplicate", "duplicate"]


def test_late_instance_within_a_group_reopens_its_series(scene):
    added = scene.add("1.2.1")
    scene.close(added.series.id)

    outcomes = scene.store.index.add_instances([scene.draft("1.2.2"), scene.draft("1.2.3")])

    series = scene.store.index.get_series(added.series.id)
    assert outcomes == ["stored", "stored"]
    assert (series.state, series.generation, series.instance_count) == (SeriesState.RECEIVING, 2, 3)


def test_a_group_is_all_or_nothing(scene):
    good, bad = scene.draft("1.2.1", series="9.1"), scene.draft("1.2.2", series="9.2")
    twice = [good, bad, type(bad)(**{**vars(bad), "sop_instance": "1.2.3"})]  # one file cannot have two rows

    with pytest.raises(StorageError):
        scene.store.index.add_instances(twice)

    assert scene.store.index.list_series() == []


def test_those_who_come_while_one_commits_share_the_next_transaction(scene, folder, monkeypatch):
    commits, groups, gate = GroupCommit(scene.store.index, scene.store.health), [], threading.Event()
    add = Index.add_instances

    def slow(index, new):
        groups.append(len(new))
        assert len(groups) > 1 or gate.wait(10)
        return add(index, new)

    monkeypatch.setattr(Index, "add_instances", slow)
    scene.add("1.2.0")
    drafts = [scene.draft(f"1.2.{number}") for number in range(1, 21)]
    with ThreadPoolExecutor(20) as pool:
        waiting = [pool.submit(commits.commit, draft, folder) for draft in drafts]
        while len(commits._queue) < 19:
            gate.wait(0.01)
        gate.set()
        outcomes = [one.result(20) for one in waiting]

    assert outcomes == ["stored"] * 20
    assert groups == [1, 19]
    (series,) = scene.store.index.list_series()
    assert series.instance_count == 21


def test_one_bad_arrival_spoils_no_other(scene, folder, monkeypatch):
    commits = GroupCommit(scene.store.index, scene.store.health)
    add = Index.add_instances

    def picky(index, new):
        if any(one.sop_instance == "1.2.2" for one in new):
            raise StorageError("this one cannot be stored")
        return add(index, new)

    monkeypatch.setattr(Index, "add_instances", picky)
    drafts = [scene.draft(f"1.2.{number}") for number in range(4)]
    commits._turn.acquire()
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(commits.commit, draft, folder) for draft in drafts]
        while len(commits._queue) < 4:
            threading.Event().wait(0.01)
        commits._turn.release()
        errors = [one.exception(20) for one in waiting]

    assert [type(error) for error in errors] == [type(None), type(None), StorageError, type(None)]


def test_everybody_hears_that_there_is_no_database(scene, folder, monkeypatch):
    def unavailable(_index, _new):
        raise DatabaseUnavailableError("no database")

    monkeypatch.setattr(Index, "add_instances", unavailable)

    with pytest.raises(DatabaseUnavailableError):
        GroupCommit(scene.store.index, scene.store.health).commit(scene.draft("1.2.1"), folder)
