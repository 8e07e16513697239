"""Instances that arrive when the derived series exists already, and series whose sender broke off."""

from __future__ import annotations

import pytest

from storage.delivery_records import NewAnswer
from storage.errors import IllegalTransitionError, LostClaimError
from storage.states import DeliveryState, JobState, SeriesState

SERIES = "1.2.3.1"


def _late(scene, uid: str = "1.2.3.1.9"):
    return scene.add(uid, series=SERIES)


@pytest.mark.parametrize("policy", ["hold", "supersede"])
def test_a_late_instance_stops_what_is_not_sent_yet(scene, policy):
    (delivery,) = scene.commit(late_policy=policy)

    late = _late(scene)

    job = scene.store.jobs.get(delivery.id)
    assert (job.state, job.reason) == (JobState.CANCELED, "SUPERSEDED")
    assert (late.series.state, late.series.generation, late.series.late) == (SeriesState.RECEIVING, 2, True)


@pytest.mark.parametrize("policy", ["hold", "supersede"])
def test_a_late_instance_takes_the_claim_from_a_sender_in_the_middle(scene, policy):
    scene.commit(late_policy=policy)
    job = scene.claim_delivery()
    (first, _), _ = scene.store.deliveries.for_job(job.id)
    scene.store.deliveries.record(job, [NewAnswer(first.id, DeliveryState.DELIVERED, 0)])

    _late(scene)

    with pytest.raises(LostClaimError):
        scene.store.deliveries.record(job, [NewAnswer(first.id, DeliveryState.DELIVERED, 0)])


def test_a_route_may_ignore_late_instances_and_keeps_them_all_the_same(scene):
    (delivery,) = scene.commit(late_policy="ignore")

    late = _late(scene)

    assert late.series.state is SeriesState.STABLE
    assert (late.series.generation, late.instance.generation) == (1, 2)
    assert scene.store.jobs.get(delivery.id).state is JobState.PENDING
    assert late.instance.path.exists()


def test_an_operator_takes_ignored_instances_in(scene):
    scene.commit(late_policy="ignore")
    series = _late(scene).series

    reopened = scene.store.index.reopen_series(series.id, "alice")

    assert (reopened.state, reopened.generation) == (SeriesState.RECEIVING, 2)
    assert scene.names(series=series.id)[-1] == "series.reopened_by_operator"


@pytest.mark.parametrize("policy", ["hold", "supersede", "ignore"])
def test_a_late_instance_raises_one_alarm(scene, policy):
    scene.commit(late_policy=policy)

    _late(scene)

    (alarm,) = scene.store.alarms.active()
    assert (alarm.code, alarm.data["policy"]) == ("late_instance", policy)


def test_an_instance_before_the_derived_series_exists_is_not_late(scene):
    scene.enqueue(late_policy="hold")
    scene.claim()

    late = _late(scene)

    assert not late.series.late
    assert scene.store.alarms.active() == []


def test_a_series_that_is_late_stays_so_until_a_person_decides(scene):
    scene.commit(late_policy="hold")
    series = _late(scene).series
    assert scene.close(series.id, event="hold", reason="LATE_INSTANCE")
    again = _late(scene, "1.2.3.1.10")
    assert again.series.late

    scene.close(series.id, event="hold", reason="LATE_INSTANCE")

    assert not scene.store.index.release_series(series.id, "alice").late


def test_a_series_that_closes_with_the_same_content_goes_on_with_its_job(scene):
    job = scene.enqueue()
    series = _late(scene).series
    assert scene.store.jobs.get(job.id).state is JobState.CANCELED

    scene.close(series.id, job.key)

    (adopted,) = scene.store.jobs.list(series_id=series.id)
    assert (adopted.id, adopted.state, adopted.generation) == (job.id, JobState.PENDING, 2)


def test_a_series_that_closes_with_the_same_content_goes_on_with_its_deliveries(scene):
    (delivery,) = scene.commit()
    series = _late(scene).series

    scene.close(series.id, "key-1")

    again = scene.store.jobs.get(delivery.id)
    assert (again.state, again.generation) == (JobState.PENDING, 2)
    assert len(scene.store.jobs.list(series_id=series.id)) == 2


def test_a_job_that_an_operator_ended_stays_ended_when_the_content_comes_again(scene):
    job = scene.enqueue()
    scene.store.jobs.cancel(job.id, "alice")
    series = _late(scene).series

    scene.close(series.id, job.key)

    assert scene.store.jobs.get(job.id).state is JobState.CANCELED


def _interrupt(scene):
    """A series whose sender broke off and that was held for it."""
    broken = scene.associate()
    series = scene.add("1.2.3.1.1", series=SERIES, association=broken).series
    scene.store.index.close_association(broken, "aborted")
    assert scene.close(series.id, event="hold", reason="INTERRUPTED")
    return series


@pytest.mark.parametrize(
    ("ending", "state"), [("released", SeriesState.RECEIVING), ("aborted", SeriesState.HELD)]
)
def test_an_interrupted_series_opens_again_when_its_sender_comes_back_and_releases(scene, ending, state):
    series = _interrupt(scene)
    again = scene.associate()
    scene.add("1.2.3.1.1", series=SERIES, association=again)

    scene.store.index.close_association(again, ending)

    assert scene.store.index.get_series(series.id).state is state


def test_a_series_held_for_another_reason_stays_held_when_it_is_sent_again(scene):
    series = _interrupt(scene)
    scene.store.index.release_series(series.id, "alice")
    scene.close(series.id, event="hold", reason="MISSING_SLICE")
    again = scene.associate()
    scene.add("1.2.3.1.1", series=SERIES, association=again)

    scene.store.index.close_association(again, "released")

    assert scene.store.index.get_series(series.id).state is SeriesState.HELD


def test_contents_that_mean_the_same_are_no_conflict(scene):
    first = scene.add("1.2.3.1.1", series=SERIES, content="a").instance
    second = scene.add("1.2.3.1.1", series=SERIES, content="b")

    series = scene.store.index.note_content(second.series.id, {first.id: "s", second.instance.id: "s"})

    assert [copy.conflict for copy in scene.store.index.instances(series.id)] == [False, False]
    assert series.revision > second.series.revision


@pytest.mark.parametrize("digests", [("s", "t"), ("s",)])
def test_contents_that_differ_or_are_not_known_stay_in_conflict(scene, digests):
    scene.add("1.2.3.1.1", series=SERIES, content="a")
    series = scene.add("1.2.3.1.1", series=SERIES, content="b").series
    copies = scene.store.index.instances(series.id)

    scene.store.index.note_content(
        series.id, {copy.id: digest for copy, digest in zip(copies, digests, strict=False)}
    )

    assert [copy.conflict for copy in scene.store.index.instances(series.id)] == [True, True]


def test_one_uid_in_two_series_stays_in_conflict_even_when_it_means_the_same(scene):
    first = scene.add("1.2.3.1.1", series=SERIES, content="a").instance
    second = scene.add("1.2.3.1.1", series="1.2.3.2", content="b")

    scene.store.index.note_content(second.series.id, {first.id: "s", second.instance.id: "s"})

    assert scene.store.index.instances(second.series.id)[0].conflict


def test_an_open_series_cannot_be_reopened(scene):
    series = scene.add("1.2.3.1.1", series=SERIES).series

    with pytest.raises(IllegalTransitionError):
        scene.store.index.reopen_series(series.id, "alice")


def test_an_alarm_counts_and_tells_of_its_first_time_and_its_end(scene):
    alarms = scene.store.alarms
    assert alarms.raise_("disk", "space", {"free": 5})
    assert not alarms.raise_("disk", "space", {"free": 4})
    (alarm,) = alarms.active("disk")
    assert (alarm.count, alarm.data) == (2, {"free": 4})

    assert alarms.clear("disk", "space", actor="alice")

    assert not alarms.clear("disk", "space")
    assert [event.name for event in scene.store.trail.list()] == ["alarm.cleared", "alarm.raised"]
