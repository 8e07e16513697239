"""Deliveries: first in, first out for each destination, and one row per instance."""

from __future__ import annotations

from datetime import timedelta

import pytest

from storage.delivery_records import NewAnswer
from storage.errors import IllegalTransitionError, LostClaimError, NotFoundError
from storage.states import DeliveryState, JobState


def _deliver(scene, job):
    for delivery, _ in scene.store.deliveries.for_job(job.id, only_pending=True):
        scene.store.deliveries.record(job, [NewAnswer(delivery.id, DeliveryState.DELIVERED, 0)])


def fail(scene, name, *, minutes):
    wait = timedelta(minutes=minutes)
    return scene.store.destinations.failed(name, "refused", wait=lambda _failures: wait, opens_at=99)


def test_a_destination_drains_oldest_first(scene):
    committed = []
    for number in (1, 2, 3):
        committed += [job.id for job in scene.commit(number)]
        scene.clock.move(seconds=1)
    claimed = []

    while job := scene.claim_delivery():
        claimed.append(job.id)
        _deliver(scene, job)
        scene.store.jobs.succeed(job)

    assert claimed == committed


def test_nothing_overtakes_a_delivery_that_runs(scene):
    scene.commit(1)
    scene.commit(2)
    scene.claim_delivery()

    assert scene.claim_delivery(worker="sender-2") is None


def test_a_delivery_with_a_trouble_of_its_own_lets_others_pass_and_goes_first_when_it_is_due(scene):
    (first,) = scene.commit(1)
    scene.clock.move(seconds=1)
    (second,) = scene.commit(2)
    scene.clock.move(seconds=1)
    job, again = scene.claim_delivery(), scene.clock.at + timedelta(seconds=5)
    scene.store.jobs.fail(job, reason="PEER_BUSY", message="", retry_at=again)

    passing = scene.claim_delivery()
    assert passing.id == second.id
    scene.store.jobs.fail(passing, reason="PEER_BUSY", message="", retry_at=again)
    assert scene.claim_delivery() is None
    scene.clock.move(seconds=5)
    assert scene.claim_delivery().id == first.id


def test_a_failed_delivery_makes_way_for_the_next(scene):
    scene.commit(1)
    (second,) = scene.commit(2)

    scene.store.jobs.fail(scene.claim_delivery(), reason="REFUSED_BY_PEER", message="")

    assert scene.claim_delivery().id == second.id


def test_one_dead_destination_never_delays_another(scene):
    scene.commit(1, ("dead", "alive"))
    fail(scene, "dead", minutes=15)

    assert scene.claim_delivery("dead") is None
    assert scene.claim_delivery("alive") is not None


def test_pending_destinations_are_those_with_work(scene):
    scene.commit(1, ("b", "a"))

    assert scene.store.jobs.pending_destinations() == ["a", "b"]
    scene.claim_delivery("a")
    assert scene.store.jobs.pending_destinations() == ["b"]
    assert scene.store.destinations.status("never").failures == 0


def test_instances_are_sent_by_ascending_position(scene):
    (job,) = scene.commit()

    positions = [derived.position for _, derived in scene.store.deliveries.for_job(job.id)]

    assert positions == [0, 1]


def test_an_answer_is_kept_with_its_status(scene):
    scene.commit()
    job = scene.claim_delivery()
    (delivery, _), _ = scene.store.deliveries.for_job(job.id)

    (deferred,) = scene.store.deliveries.record(
        job, [NewAnswer(delivery.id, DeliveryState.PENDING, 0xA700, "Out of resources")]
    )
    (answered,) = scene.store.deliveries.record(
        job, [NewAnswer(delivery.id, DeliveryState.DELIVERED, 0xB000)]
    )

    assert (deferred.state, deferred.status, deferred.attempts) == (DeliveryState.PENDING, 0xA700, 1)
    assert deferred.comment == "Out of resources"
    assert (answered.state, answered.status, answered.attempts) == (DeliveryState.DELIVERED, 0xB000, 2)
    assert scene.names(job=job.id).count("delivery.instance") == 2
    assert scene.store.deliveries.list(state=DeliveryState.DELIVERED) == [answered]
    assert scene.store.deliveries.list(destination="other") == []
    assert len(scene.store.deliveries.list(job_id=job.id)) == 2


@pytest.mark.parametrize("final", [DeliveryState.DELIVERED, DeliveryState.REFUSED])
def test_a_final_answer_stays(scene, final):
    scene.commit()
    job = scene.claim_delivery()
    (delivery, _), _ = scene.store.deliveries.for_job(job.id)
    scene.store.deliveries.record(job, [NewAnswer(delivery.id, final, 0)])

    with pytest.raises(IllegalTransitionError):
        scene.store.deliveries.record(job, [NewAnswer(delivery.id, DeliveryState.PENDING)])


def test_only_the_holder_of_the_claim_records_answers(scene):
    scene.commit()
    old = scene.claim_delivery()
    (delivery, _), _ = scene.store.deliveries.for_job(old.id)
    scene.clock.move(seconds=61)
    scene.store.jobs.requeue_expired(3)
    new = scene.claim_delivery(worker="sender-2")

    with pytest.raises(LostClaimError):
        scene.store.deliveries.record(old, [NewAnswer(delivery.id, DeliveryState.DELIVERED, 0)])
    with pytest.raises(NotFoundError):
        scene.store.deliveries.record(
            new, [NewAnswer(delivery.id, DeliveryState.DELIVERED, 0), NewAnswer(999, DeliveryState.DELIVERED)]
        )
    assert scene.store.deliveries.for_job(new.id)[0][0].state is DeliveryState.PENDING


def test_a_series_is_delivered_only_when_every_instance_is(scene):
    scene.commit()
    job = scene.claim_delivery()

    with pytest.raises(IllegalTransitionError, match="2 instances"):
        scene.store.jobs.succeed(job)

    _deliver(scene, job)
    assert scene.store.jobs.succeed(job).state is JobState.SUCCEEDED


def test_an_operator_may_hurry_a_destination(scene):
    (first,) = scene.commit(1)
    (second,) = scene.commit(2)
    scene.store.jobs.fail(scene.claim_delivery(), reason="REFUSED_BY_PEER", message="")
    later = scene.clock.at + timedelta(hours=1)
    scene.store.jobs.fail(scene.claim_delivery(), reason="PEER_BUSY", message="", retry_at=later)
    fail(scene, "pacs", minutes=60)

    jobs = scene.store.deliveries.retry("pacs", "operator")

    assert [(job.id, job.state) for job in jobs] == [
        (first.id, JobState.PENDING),
        (second.id, JobState.PENDING),
    ]
    assert scene.claim_delivery().id == first.id


def test_an_operator_may_retry_one_delivery_but_not_a_running_or_finished_one(scene):
    (job,) = scene.commit()
    claimed = scene.claim_delivery()
    with pytest.raises(IllegalTransitionError):
        scene.store.deliveries.retry(job.id, "operator")

    scene.store.jobs.fail(claimed, reason="GAVE_UP", message="")

    assert scene.store.deliveries.retry(job.id, "operator")[0].state is JobState.PENDING
    with pytest.raises(NotFoundError):
        scene.store.deliveries.retry(job.parent_id, "operator")
