"""Associations and the closing of series."""

from __future__ import annotations

import pytest

from storage.errors import IllegalTransitionError, NotFoundError
from storage.records import NewJob
from storage.states import JobKind, JobState, SeriesState


def _ids(records):
    return [record.id for record in records]


def test_a_series_is_not_closable_while_an_association_that_stored_into_it_is_open(scene):
    association = scene.associate()
    series = scene.add("1.2.3.1", association=association).series

    assert scene.store.index.closable_series() == []
    assert not scene.close(series.id)

    scene.store.index.close_association(association, "released")
    assert _ids(scene.store.index.closable_series()) == [series.id]
    assert scene.close(series.id)
    assert scene.store.index.closable_series() == []


def test_a_series_is_not_closable_while_an_association_sends_it_again(scene):
    first = scene.associate()
    added = scene.add("1.2.3.1", association=first)
    scene.store.index.close_association(first, "released")
    again = scene.associate()

    scene.store.index.note_carried(added.series.id, again)
    scene.store.index.note_carried(added.series.id, again)

    assert scene.store.index.closable_series() == []
    assert scene.names(series=added.series.id).count("series.carried") == 1


def test_one_open_association_of_several_keeps_the_series_open(scene):
    first, second = scene.associate(), scene.associate()
    series = scene.add("1.2.3.1", association=first).series
    scene.add("1.2.3.2", association=second)

    scene.store.index.close_association(second, "released")

    assert scene.store.index.closable_series() == []
    assert not scene.close(series.id)


@pytest.mark.parametrize(("ending", "interrupted"), [("released", False), ("aborted", True), ("lost", True)])
def test_a_series_is_interrupted_by_any_ending_but_a_release(scene, ending, interrupted):
    association = scene.associate()
    scene.add("1.2.3.1", association=association)

    scene.store.index.close_association(association, ending)

    assert scene.store.index.get_series("1.2.3").interrupted is interrupted


def test_a_complete_resend_after_an_abort_ends_the_interruption(scene):
    aborted = scene.associate()
    scene.add("1.2.3.1", association=aborted)
    scene.store.index.close_association(aborted, "aborted")
    before = scene.store.index.get_series("1.2.3")

    resend = scene.associate()
    scene.add("1.2.3.1", association=resend)
    scene.store.index.close_association(resend, "released")

    after = scene.store.index.get_series("1.2.3")
    assert not after.interrupted
    assert after.revision > before.revision


def test_the_second_ending_of_an_association_changes_nothing(scene):
    association = scene.associate()
    scene.add("1.2.3.1", association=association)
    scene.store.index.close_association(association, "released")

    scene.store.index.close_association(association, "aborted")

    assert not scene.store.index.get_series("1.2.3").interrupted


def test_associations_of_an_earlier_run_are_lost_and_interrupt_their_series(scene):
    old, new = scene.associate("run-1"), scene.associate("run-2")
    scene.add("1.2.3.1", association=old, series="1.2.3")
    scene.add("1.2.4.1", association=new, series="1.2.4")

    assert scene.store.index.close_lost_associations("run-2") == 1

    assert scene.store.index.get_series("1.2.3").interrupted
    assert [series.series_instance_uid for series in scene.store.index.closable_series()] == ["1.2.3"]


def test_closing_inserts_the_job_in_the_same_step(scene):
    series = scene.add("1.2.3.1").series

    assert scene.close(
        series.id, "key-1", priority=3, reason=None, message="complete", route="head", evidence={"found": 1}
    )

    closed = scene.store.index.get_series(series.id)
    assert (closed.state, closed.route, closed.evidence) == (SeriesState.STABLE, "head", {"found": 1})
    assert closed.closed_at == scene.clock.at
    (job,) = scene.store.jobs.list()
    assert (job.kind, job.state, job.key) == (JobKind.ENHANCE, JobState.PENDING, "key-1")
    assert (job.priority, job.spec, job.generation) == (3, {"strength": 0.9}, 1)
    assert scene.names(series=series.id)[-2:] == ["series.closed", "job.enqueued"]


def test_closing_loses_to_an_instance_that_arrived_after_the_decision(scene):
    decided_on = scene.add("1.2.3.1").series
    scene.add("1.2.3.2")

    closed = scene.store.index.close_series(
        decided_on.id, decided_on.revision, event="close", job=NewJob("key-1")
    )

    assert not closed
    assert scene.store.index.get_series(decided_on.id).state is SeriesState.RECEIVING
    assert scene.store.jobs.list() == []


def test_closing_loses_to_an_abort_after_the_decision(scene):
    association = scene.associate()
    decided_on = scene.add("1.2.3.1", association=association).series
    scene.store.index.close_association(association, "aborted")

    assert not scene.store.index.close_series(decided_on.id, decided_on.revision, event="close")


def test_a_series_is_closed_once(scene):
    series = scene.add("1.2.3.1").series

    assert scene.close(series.id, "key-1")
    assert not scene.close(series.id, "key-2")
    assert len(scene.store.jobs.list()) == 1


def test_a_job_key_that_exists_makes_no_second_job(scene):
    first = scene.add("1.2.3.1").series
    scene.close(first.id, "key-1")
    scene.add("1.2.3.2")

    assert scene.close(first.id, "key-1")

    assert [job.generation for job in scene.store.jobs.list()] == [2]


@pytest.mark.parametrize(
    ("event", "state", "name"),
    [("skip", SeriesState.SKIPPED, "series.skipped"), ("hold", SeriesState.HELD, "series.held")],
)
def test_a_series_that_is_not_enhanced_says_why(scene, event, state, name):
    series = scene.add("1.2.3.1").series

    assert scene.close(series.id, event=event, reason="MISSING_SLICE", message="One is missing.")

    closed = scene.store.index.get_series(series.id)
    assert (closed.state, closed.reason, closed.message) == (state, "MISSING_SLICE", "One is missing.")
    assert scene.store.jobs.list() == []
    told = scene.store.trail.for_series(series.id)[-1]
    assert (told.name, told.data["reason"]) == (name, "MISSING_SLICE")


def test_only_an_event_that_closes_closes(scene):
    series = scene.add("1.2.3.1").series

    with pytest.raises(IllegalTransitionError):
        scene.close(series.id, event="release")


def test_a_person_may_release_a_held_series(scene):
    series = scene.add("1.2.3.1").series
    scene.close(series.id, event="hold", reason="MISSING_SLICE")

    released = scene.store.index.release_series(series.id, "operator")

    assert (released.state, released.released, released.reason) == (SeriesState.RECEIVING, True, None)
    assert released.generation == 1
    told = scene.store.trail.for_series(series.id)[-1]
    assert told.name == "series.released"
    assert told.data == {"actor": "operator", "reason": "MISSING_SLICE"}


def test_a_release_does_not_outlive_its_generation(scene):
    series = scene.add("1.2.3.1").series
    scene.close(series.id, event="hold")
    scene.store.index.release_series(series.id, "operator")
    scene.close(series.id)

    late = scene.add("1.2.3.2")

    assert not late.series.released


def test_a_person_may_discard_a_held_series(scene):
    series = scene.add("1.2.3.1").series
    scene.close(series.id, event="hold", reason="UID_CONFLICT")

    discarded = scene.store.index.discard_series(series.id, "operator")

    assert (discarded.state, discarded.reason) == (SeriesState.SKIPPED, "UID_CONFLICT")
    assert len(scene.store.index.instances(series.id)) == 1


@pytest.mark.parametrize("verb", ["release_series", "discard_series"])
def test_only_a_held_series_waits_for_a_person(scene, verb):
    series = scene.add("1.2.3.1").series

    with pytest.raises(IllegalTransitionError):
        getattr(scene.store.index, verb)(series.id, "operator")
    with pytest.raises(NotFoundError):
        getattr(scene.store.index, verb)(999, "operator")
    assert scene.names(series=series.id) == ["series.opened", "instance.stored"]


def test_series_are_listed_newest_first_and_by_filter(scene):
    first = scene.add("1.2.3.1", series="1.2.3").series
    second = scene.add("1.2.4.1", series="1.2.4").series
    scene.close(second.id)
    index = scene.store.index

    assert _ids(index.list_series()) == [second.id, first.id]
    assert _ids(index.list_series(state=SeriesState.STABLE)) == [second.id]
    assert _ids(index.list_series(modality="MR")) == []
    assert _ids(index.list_series(study_instance_uid="1.2", limit=1, offset=1)) == [first.id]


def test_a_node_closes_what_its_own_earlier_run_left_open_and_nothing_of_another_node(scene):
    ours, theirs = scene.associate("ours/1"), scene.associate("theirs/1")
    scene.associate("of a version without names")

    assert scene.store.index.close_lost_associations("ours/2") == 2

    scene.add("1.1.1", series="1.1", association=ours)
    scene.add("1.2.1", series="1.2", association=theirs)
    assert [series.series_instance_uid for series in scene.store.index.closable_series()] == ["1.1"]
