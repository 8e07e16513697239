"""Claims, attempts and endings of jobs."""

from __future__ import annotations

from datetime import timedelta

import pytest

from storage.errors import IllegalTransitionError, LostClaimError, NotFoundError
from storage.records import NewDeliveryJob
from storage.states import JobKind, JobState, Stage


def test_a_claim_counts_the_attempt_and_names_the_holder(scene):
    scene.enqueue()

    job = scene.claim("worker-7")

    assert scene.store.jobs.get(job.id) == job
    assert (job.state, job.attempts, job.token, job.claimed_by) == (JobState.RUNNING, 1, 1, "worker-7")
    assert job.lease_expires_at == scene.clock.at + scene.lease
    assert scene.names(job=job.id) == ["job.enqueued", "job.claimed"]


def test_two_workers_never_get_the_same_job(scene):
    jobs = {scene.enqueue(number).id for number in (1, 2)}

    claimed = {scene.claim("worker-1").id, scene.claim("worker-2").id}

    assert claimed == jobs
    assert scene.store.jobs.claim(JobKind.ENHANCE, "worker-1", scene.lease) is None


def test_higher_priority_goes_first_and_then_the_older(scene):
    order = []
    for number, priority in ((1, 0), (2, 5), (3, 0)):
        scene.enqueue(number, priority)
        scene.clock.move(seconds=1)

    while job := scene.store.jobs.claim(JobKind.ENHANCE, "worker-1", scene.lease):
        order.append(job.key)

    assert order == ["key-2", "key-1", "key-3"]


def test_a_delivery_is_claimed_for_a_destination_only(scene):
    with pytest.raises(ValueError, match="destination"):
        scene.store.jobs.claim(JobKind.DELIVER, "sender-1", scene.lease)
    with pytest.raises(ValueError, match="destination"):
        scene.store.jobs.claim(JobKind.ENHANCE, "worker-1", scene.lease, destination="pacs")


def test_a_heartbeat_extends_the_lease(scene):
    scene.enqueue()
    job = scene.claim()
    scene.clock.move(seconds=50)

    beat = scene.store.jobs.heartbeat(job, scene.lease)

    assert (beat.alive, beat.cancel_requested) == (True, False)
    scene.clock.move(seconds=50)
    assert scene.store.jobs.requeue_expired(3) == []


def test_the_stage_is_kept_and_told(scene):
    scene.enqueue()
    job = scene.claim()

    scene.store.jobs.set_stage(job, Stage.ENHANCE)
    scene.store.jobs.record_attempt_note(job, {"read_s": 1.5})

    assert scene.store.jobs.get(job.id).stage is Stage.ENHANCE
    note = scene.store.trail.for_job(job.id)[-1]
    assert (note.name, note.data) == ("job.note", {"attempt": 1, "read_s": 1.5})


def test_a_transient_error_waits_for_its_time(scene):
    scene.enqueue()
    job = scene.claim()
    due = scene.clock.at + timedelta(seconds=5)

    failed = scene.store.jobs.fail(job, reason="NO_SPACE", message="full", retry_at=due)

    assert (failed.state, failed.reason, failed.not_before) == (JobState.RETRY, "NO_SPACE", due)
    assert (failed.claimed_by, failed.lease_expires_at, failed.finished_at) == (None, None, None)
    assert scene.store.jobs.claim(JobKind.ENHANCE, "worker-1", scene.lease) is None
    scene.clock.move(seconds=5)
    again = scene.claim()
    assert (again.attempts, again.token, again.reason) == (2, 2, None)


def test_a_permanent_error_ends_the_job(scene):
    scene.enqueue()

    failed = scene.store.jobs.fail(scene.claim(), reason="DECODE_ERROR", message="no")

    assert (failed.state, failed.finished_at) == (JobState.FAILED, scene.clock.at)
    assert scene.names(job=failed.id)[-1] == "job.failed"


def test_success_keeps_its_result(scene):
    scene.enqueue()

    done = scene.store.jobs.succeed(scene.claim(), {"wall_s": 3})

    assert (done.state, done.result) == (JobState.SUCCEEDED, {"wall_s": 3})


def test_a_clean_stop_does_not_cost_an_attempt(scene):
    scene.enqueue()

    back = scene.store.jobs.give_back(scene.claim(), reason="NODE_STOPPED", message="")

    assert (back.state, back.attempts) == (JobState.RETRY, 0)
    again = scene.claim()
    assert (again.attempts, again.token) == (1, 2)


@pytest.mark.parametrize(("counted", "attempts"), [(True, 1), (False, 0)])
def test_a_failure_may_be_tried_again_without_costing_an_attempt(scene, counted, attempts):
    scene.enqueue()
    job = scene.claim()

    again = scene.store.jobs.fail(
        job, reason="NO_SPACE", message="", retry_at=scene.store.clock(), counted=counted
    )

    assert (again.state, again.attempts, again.reason) == (JobState.RETRY, attempts, "NO_SPACE")


def _everything_a_holder_does(scene, job):
    jobs = scene.store.jobs
    return {
        "set_stage": lambda: jobs.set_stage(job, Stage.SEND),
        "record_attempt_note": lambda: jobs.record_attempt_note(job, {}),
        "fail": lambda: jobs.fail(job, reason="X", message=""),
        "retry": lambda: jobs.fail(job, reason="X", message="", retry_at=scene.clock.at),
        "give_back": lambda: jobs.give_back(job, reason="X", message=""),
        "succeed": lambda: jobs.succeed(job, {}),
        "mark_canceled": lambda: jobs.mark_canceled(job),
        "commit_manifest": lambda: jobs.commit_manifest(job, scene.derive(job), [NewDeliveryJob("pacs")]),
    }


ACTS = [
    "set_stage",
    "record_attempt_note",
    "fail",
    "retry",
    "give_back",
    "succeed",
    "mark_canceled",
    "commit_manifest",
]


@pytest.mark.parametrize("act", ACTS)
def test_the_old_holder_of_a_reclaimed_job_can_write_nothing(scene, act):
    scene.enqueue()
    old = scene.claim("worker-1")
    scene.clock.move(seconds=61)
    scene.store.jobs.requeue_expired(3)
    new = scene.claim("worker-2")
    before = scene.store.jobs.get(new.id), scene.store.trail.list()

    with pytest.raises(LostClaimError) as lost:
        _everything_a_holder_does(scene, old)[act]()

    assert (lost.value.job_id, lost.value.token) == (old.id, 1)
    assert (scene.store.jobs.get(new.id), scene.store.trail.list()) == before
    assert scene.store.jobs.list(kind=JobKind.DELIVER) == []


def test_the_heartbeat_of_an_old_holder_says_so_and_extends_nothing(scene):
    scene.enqueue()
    old = scene.claim("worker-1")
    scene.clock.move(seconds=61)
    scene.store.jobs.requeue_expired(3)
    new = scene.claim("worker-2")
    scene.clock.move(seconds=10)

    assert not scene.store.jobs.heartbeat(old, scene.lease).alive
    assert scene.store.jobs.get(new.id).lease_expires_at == new.lease_expires_at


@pytest.mark.parametrize("act", ACTS)
def test_a_holder_whose_lease_expired_unnoticed_may_still_finish(scene, act):
    scene.enqueue()
    job = scene.claim()
    scene.clock.move(seconds=61)

    _everything_a_holder_does(scene, job)[act]()

    assert scene.names(job=job.id)[-1] != "job.claimed"


def test_an_expired_lease_leads_to_another_attempt(scene):
    scene.enqueue()
    scene.claim()
    scene.clock.move(seconds=60)
    assert scene.store.jobs.requeue_expired(3) == []

    scene.clock.move(seconds=1)
    (job,) = scene.store.jobs.requeue_expired(3)

    assert (job.state, job.reason, job.attempts) == (JobState.RETRY, "ABANDONED", 1)
    assert scene.claim().attempts == 2


def test_a_job_that_kills_its_worker_every_time_is_abandoned(scene):
    scene.enqueue()
    states = []
    for _ in range(3):
        scene.claim()
        scene.clock.move(seconds=61)
        states += [job.state for job in scene.store.jobs.requeue_expired(3)]

    assert states == [JobState.RETRY, JobState.RETRY, JobState.FAILED]
    (job,) = scene.store.jobs.list()
    assert (job.reason, job.attempts, job.finished_at) == ("ABANDONED", 3, scene.clock.at)
    assert scene.names(job=job.id).count("job.abandoned") == 3


def test_a_delivery_is_never_abandoned_for_good(scene):
    scene.commit()
    for _ in range(5):
        assert scene.claim_delivery() is not None
        scene.clock.move(seconds=61)
        (job,) = scene.store.jobs.requeue_expired(3)
        assert job.state is JobState.RETRY


def test_an_expired_job_that_was_to_be_canceled_is_canceled(scene):
    scene.enqueue()
    job = scene.claim()
    scene.store.jobs.cancel(job.id, "operator")
    scene.clock.move(seconds=61)

    (ended,) = scene.store.jobs.requeue_expired(3)

    assert (ended.state, ended.reason) == (JobState.CANCELED, "CANCELED_BY_OPERATOR")


def test_an_unknown_job_is_not_found(scene):
    for act in (
        lambda: scene.store.jobs.get(9),
        lambda: scene.store.jobs.cancel(9, "operator"),
        lambda: scene.store.jobs.resubmit(9, "operator"),
    ):
        with pytest.raises(NotFoundError):
            act()


def test_jobs_are_listed_newest_first_and_by_filter(scene):
    first, second = scene.enqueue(1), scene.enqueue(2)
    scene.claim()
    jobs = scene.store.jobs

    assert [job.id for job in jobs.list()] == [second.id, first.id]
    assert [job.id for job in jobs.list(state=JobState.RUNNING)] == [first.id]
    assert [job.id for job in jobs.list(kind=JobKind.DELIVER)] == []
    assert [job.id for job in jobs.list(series_id=second.series_id)] == [second.id]
    assert [job.id for job in jobs.list(limit=1, offset=1)] == [first.id]


def test_illegal_endings_change_nothing(scene):
    job = scene.enqueue()
    scene.store.jobs.cancel(job.id, "operator")

    with pytest.raises(IllegalTransitionError):
        scene.store.jobs.cancel(job.id, "operator")
    assert scene.names(job=job.id).count("job.canceled") == 1
