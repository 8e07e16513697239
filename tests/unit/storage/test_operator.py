"""Canceling and resubmitting."""

from __future__ import annotations

import pytest

from storage.delivery_records import NewAnswer
from storage.errors import IllegalTransitionError
from storage.states import DeliveryState, JobKind, JobState


def test_a_waiting_job_is_canceled_at_once(scene):
    job = scene.enqueue()

    canceled = scene.store.jobs.cancel(job.id, "operator")

    assert (canceled.state, canceled.reason) == (JobState.CANCELED, "CANCELED_BY_OPERATOR")
    assert canceled.finished_at == scene.clock.at
    assert scene.store.trail.for_job(job.id)[-1].data["actor"] == "operator"
    assert scene.store.jobs.claim(JobKind.ENHANCE, "worker-1", scene.lease) is None


def test_a_running_job_is_asked_to_stop_and_stops(scene):
    scene.enqueue()
    job = scene.claim()

    asked = scene.store.jobs.cancel(job.id, "operator")

    assert (asked.state, asked.cancel_requested) == (JobState.RUNNING, True)
    assert scene.store.jobs.heartbeat(job, scene.lease).cancel_requested
    ended = scene.store.jobs.mark_canceled(job)
    assert (ended.state, ended.reason) == (JobState.CANCELED, "CANCELED_BY_OPERATOR")
    assert scene.names(job=job.id)[-2:] == ["job.cancel_requested", "job.canceled"]


def test_no_attempt_follows_an_error_once_a_stop_was_asked_for(scene):
    scene.enqueue()
    job = scene.claim()
    scene.store.jobs.cancel(job.id, "operator")

    ended = scene.store.jobs.fail(job, reason="NO_SPACE", message="", retry_at=scene.clock.at)

    assert ended.state is JobState.CANCELED


def test_a_failed_job_is_done_again_under_the_same_key(scene):
    scene.enqueue()
    failed = scene.store.jobs.fail(scene.claim(), reason="TIME_LIMIT", message="slow")

    again = scene.store.jobs.resubmit(failed.id, "operator")

    assert (again.id, again.key, again.state) == (failed.id, failed.key, JobState.PENDING)
    assert (again.attempts, again.reason, again.finished_at) == (0, None, None)
    assert scene.store.trail.for_job(failed.id)[-1].data["actor"] == "operator"


def test_a_resubmitted_job_keeps_fencing_off_its_old_holder(scene):
    scene.enqueue()
    old = scene.claim()
    scene.store.jobs.fail(old, reason="X", message="")
    scene.store.jobs.resubmit(old.id, "operator")

    assert scene.claim().token == 2
    assert not scene.store.jobs.heartbeat(old, scene.lease).alive


def test_a_resubmitted_job_is_not_canceled_by_the_earlier_request(scene):
    scene.enqueue()
    job = scene.claim()
    scene.store.jobs.cancel(job.id, "operator")
    scene.store.jobs.mark_canceled(job)

    again = scene.store.jobs.resubmit(job.id, "operator")

    assert not again.cancel_requested


def test_an_enhancement_with_a_manifest_is_done_again_as_a_new_job_with_new_uids(scene):
    (delivery,) = scene.commit()
    first = scene.store.jobs.get(delivery.parent_id)

    second = scene.store.jobs.resubmit(first.id, "operator")
    third = scene.store.jobs.resubmit(first.id, "operator")

    assert [job.key for job in (first, second, third)] == ["key-1", "key-1+2", "key-1+3"]
    assert (second.state, second.spec) == (JobState.PENDING, first.spec)
    assert scene.store.jobs.get(first.id) == first
    assert scene.store.trail.for_job(second.id)[-1].data == {"actor": "operator", "instead_of": first.id}


def test_the_job_of_an_earlier_generation_is_not_done_again(scene):
    job = scene.enqueue()
    scene.add("1.2.3.1.9", series="1.2.3.1")

    with pytest.raises(IllegalTransitionError, match="generation 2"):
        scene.store.jobs.resubmit(job.id, "operator")


@pytest.mark.parametrize("state", [JobState.PENDING, JobState.RUNNING])
def test_a_job_that_has_not_ended_cannot_be_resubmitted(scene, state):
    job = scene.enqueue()
    if state is JobState.RUNNING:
        scene.claim()

    with pytest.raises(IllegalTransitionError):
        scene.store.jobs.resubmit(job.id, "operator")


def test_a_resubmitted_delivery_sends_the_refused_instances_only(scene):
    scene.commit()
    job = scene.claim_delivery()
    (first, _), (second, _) = scene.store.deliveries.for_job(job.id)
    scene.store.deliveries.record(job, [NewAnswer(first.id, DeliveryState.DELIVERED, 0)])
    scene.store.deliveries.record(job, [NewAnswer(second.id, DeliveryState.REFUSED, 0xA900)])
    scene.store.jobs.fail(job, reason="REFUSED_BY_PEER", message="")

    scene.store.jobs.resubmit(job.id, "operator")

    pending = scene.store.deliveries.for_job(job.id, only_pending=True)
    assert [delivery.id for delivery, _ in pending] == [second.id]
