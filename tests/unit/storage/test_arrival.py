"""Instances arriving: stored, duplicate, conflict, late."""

from __future__ import annotations

import threading

import pytest

from storage.errors import LostClaimError, NotFoundError
from storage.records import NewDeliveryJob
from storage.states import JobState, SeriesState
from tests.unit.storage.conftest import HEAD


def test_the_first_instance_opens_its_series(scene):
    added = scene.add("1.2.3.1", association=scene.associate())

    assert (added.outcome, added.instance.conflict) == ("stored", False)
    series = scene.store.index.get_series("1.2.3")
    assert series == added.series
    assert (series.state, series.generation, series.instance_count) == (SeriesState.RECEIVING, 1, 1)
    assert series.first_received_at == scene.clock.at
    assert scene.names(series=series.id) == ["series.opened", "instance.stored"]
    assert scene.store.index.instances(series.id) == [added.instance]
    assert added.instance.path.read_bytes() == HEAD + b"a1.2.3.1"


def test_every_stored_instance_raises_the_revision_and_the_count(scene):
    first = scene.add("1.2.3.1").series
    second = scene.add("1.2.3.2").series

    assert second.revision > first.revision
    assert second.instance_count == 2
    assert second.generation == 1


def test_the_same_series_uid_in_two_studies_is_two_series(scene):
    from dataclasses import replace

    draft = scene.draft("1.2.3.1")
    other = replace(scene.draft("1.2.3.2"), study_uid="1.9")

    first = scene.store.index.add_instance(draft)
    second = scene.store.index.add_instance(other)

    assert first.series.id != second.series.id
    assert scene.store.index.get_series("1.2.3").id == second.series.id


def test_an_identical_instance_is_a_duplicate_and_changes_nothing(scene):
    association = scene.associate()
    first = scene.add("1.2.3.1", association=association)
    before = scene.store.index.get_series(first.series.id), scene.store.trail.list()

    again = scene.add("1.2.3.1", association=association)

    assert again.outcome == "duplicate"
    assert again.instance == first.instance
    assert (scene.store.index.get_series(first.series.id), scene.store.trail.list()) == before


def test_a_duplicate_does_not_reopen_a_closed_series(scene):
    added = scene.add("1.2.3.1", association=scene.associate())
    scene.store.index.close_association(1, "released")
    scene.close(added.series.id)

    again = scene.add("1.2.3.1", association=scene.associate())

    assert again.series.state is SeriesState.STABLE
    assert scene.store.jobs.list()[0].state is JobState.PENDING


def test_other_content_under_the_same_uid_is_kept_and_both_are_marked(scene):
    first = scene.add("1.2.3.1", content="a")

    second = scene.add("1.2.3.1", content="b")

    assert second.outcome == "conflict"
    kept = scene.store.index.instances(first.series.id)
    assert [row.conflict for row in kept] == [True, True]
    assert len({row.path.read_bytes() for row in kept}) == 2
    assert scene.names(series=first.series.id)[-1] == "instance.conflict"


def test_a_uid_that_turns_up_in_another_series_is_a_conflict_in_both(scene):
    first = scene.add("1.2.3.1", series="1.2.3")

    second = scene.add("1.2.3.1", series="1.2.4")

    assert second.outcome == "conflict"
    assert second.series.id != first.series.id
    assert scene.store.index.instances(first.series.id)[0].conflict
    assert scene.store.index.get_series("1.2.3").revision > first.series.revision


def test_a_resent_conflicting_instance_is_a_duplicate_of_its_own_content(scene):
    scene.add("1.2.3.1", content="a")
    scene.add("1.2.3.1", content="b")

    assert scene.add("1.2.3.1", content="b").outcome == "duplicate"


def test_find_instance_knows_a_uid_only_with_its_content(scene):
    added = scene.add("1.2.3.1")

    assert scene.store.index.find_instance("1.2.3.1", added.instance.digest) == added.instance
    assert scene.store.index.find_instance("1.2.3.1", "0" * 64) is None


@pytest.mark.parametrize("event", ["close", "skip", "hold"])
def test_a_late_instance_reopens_a_closed_series_in_its_next_generation(scene, event):
    added = scene.add("1.2.3.1")
    assert scene.close(added.series.id, event=event, reason="WHY", route="head", evidence={"gaps": 1})

    late = scene.add("1.2.3.2")

    assert (late.outcome, late.instance.generation) == ("stored", 2)
    assert (late.series.state, late.series.generation) == (SeriesState.RECEIVING, 2)
    assert (late.series.reason, late.series.route, late.series.evidence) == (None, None, {})
    assert late.series.closed_at is None
    assert "series.reopened" in scene.names(series=added.series.id)


def test_a_late_instance_cancels_the_pending_job_of_the_earlier_generation(scene):
    job = scene.enqueue()

    scene.add("1.2.3.1.9", series="1.2.3.1")

    canceled = scene.store.jobs.get(job.id)
    assert (canceled.state, canceled.reason) == (JobState.CANCELED, "SUPERSEDED")
    assert scene.names(job=job.id)[-1] == "job.canceled"


def test_a_late_instance_takes_the_claim_from_the_worker_before_anything_is_sent(scene):
    scene.enqueue()
    job = scene.claim()

    scene.add("1.2.3.1.9", series="1.2.3.1")

    assert scene.store.jobs.get(job.id).state is JobState.CANCELED
    assert not scene.store.jobs.heartbeat(job, scene.lease).alive
    with pytest.raises(LostClaimError):
        scene.store.jobs.commit_manifest(job, scene.derive(job), [NewDeliveryJob("pacs")])
    assert scene.store.index.derived(job.id) == []


def test_a_hundred_equal_sends_at_once_store_one_row(scene):
    drafts = [scene.draft("1.2.3.1", association=scene.associate()) for _ in range(100)]
    outcomes: list[str] = []
    start = threading.Barrier(len(drafts))

    def send(draft):
        start.wait()
        outcomes.append(scene.store.index.add_instance(draft).outcome)

    threads = [threading.Thread(target=send, args=(draft,)) for draft in drafts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(outcomes) == ["duplicate"] * 99 + ["stored"]
    series = scene.store.index.get_series("1.2.3")
    assert series.instance_count == 1
    assert len(scene.store.index.instances(series.id)) == 1


def test_series_and_instances_hold_no_demographics(scene):
    series = scene.add("1.2.3.1").series

    assert "patient" not in repr(series).lower()
    with pytest.raises(NotFoundError):
        scene.store.index.get_series("1.2.999")
