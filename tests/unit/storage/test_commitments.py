"""Storage commitment in the database: asked once, matched whenever the report comes, promises per instance."""

from __future__ import annotations

from datetime import timedelta

import pytest

from storage.commitments import Patience
from storage.delivery_records import CommitmentReport, NewAnswer
from storage.link_states import CommitmentState, Promise
from storage.states import DeliveryState, JobState
from storage.store import open_store

PATIENCE = Patience(asks=2, answer_within=timedelta(minutes=10), longest=timedelta(days=14))
NOT_THERE, NOT_SUPPORTED = 0x0112, 0x0122


@pytest.fixture
def delivered(scene):
    """A DELIVER job of two instances, all delivered, whose destination is to be asked."""
    (job,) = scene.commit()
    deliver(scene)
    return job


def deliver(scene):
    job = scene.claim_delivery()
    rows = scene.store.deliveries.for_job(job.id, only_pending=True)
    scene.store.deliveries.record(
        job, [NewAnswer(row.id, DeliveryState.DELIVERED, 0, ask_to_keep=True) for row, _ in rows]
    )
    scene.store.jobs.succeed(job)


def ask(scene):
    scene.store.commitments.prepare("pacs", PATIENCE)
    return scene.store.commitments.take("pacs", PATIENCE)


def report(scene, request, *, committed=(), failed=None, resends=2):
    return scene.store.commitments.report(
        CommitmentReport(request.record.transaction_uid, frozenset(committed), failed or {}),
        resend={NOT_THERE},
        resends=lambda _destination: resends,
    )


def promises(scene, job):
    return [row.commitment for row, _ in scene.store.deliveries.for_job(job.id)]


def uids(request):
    return [uid for _, uid in request.instances]


def test_delivered_is_not_committed_until_the_destination_said_so(scene, delivered):
    assert promises(scene, delivered) == [Promise.WANTED, Promise.WANTED]

    request = ask(scene)
    outcome = report(scene, request, committed=uids(request))

    assert len(request.instances) == outcome.committed == 2
    assert promises(scene, delivered) == [Promise.COMMITTED, Promise.COMMITTED]
    assert outcome.record.state is CommitmentState.ANSWERED
    assert ask(scene) is None
    names = scene.names(job=delivered.id)
    assert names[-2:] == ["commitment.asked", "commitment.answered"]


def test_a_delivery_that_is_not_over_or_not_to_be_asked_for_is_not_asked_for(scene):
    scene.commit()
    job = scene.claim_delivery()
    (first, _), (second, _) = scene.store.deliveries.for_job(job.id)
    scene.store.deliveries.record(job, [NewAnswer(first.id, DeliveryState.DELIVERED, 0, ask_to_keep=True)])
    assert ask(scene) is None

    scene.store.deliveries.record(job, [NewAnswer(second.id, DeliveryState.DELIVERED, 0)])
    scene.store.jobs.succeed(job)

    assert uids(ask(scene)) == [first.sop_instance_uid]


def test_a_report_is_matched_after_a_restart(scene, delivered, database_url, tmp_path):
    request = ask(scene)

    with open_store(database_url, tmp_path / "data", now=scene.clock) as again:
        outcome = again.commitments.report(
            CommitmentReport(request.record.transaction_uid, frozenset(uids(request))),
            resend=(),
            resends=lambda _destination: 0,
        )

    assert outcome.committed == 2
    assert promises(scene, delivered) == [Promise.COMMITTED, Promise.COMMITTED]


def test_a_report_of_a_transaction_that_is_not_ours_changes_nothing(scene, delivered):
    report_ = CommitmentReport("1.2.3", frozenset(), {})

    assert scene.store.commitments.report(report_, resend=(), resends=lambda _: 2) is None
    assert promises(scene, delivered) == [Promise.WANTED, Promise.WANTED]


def test_no_report_in_time_is_asked_again_and_given_up_after_the_last_ask(scene, delivered):
    first = ask(scene)
    assert ask(scene) is None
    scene.clock.move(minutes=10)
    second = ask(scene)
    assert (second.record.ask, second.record.transaction_uid != first.record.transaction_uid) == (2, True)
    scene.clock.move(minutes=10)

    assert scene.store.commitments.prepare("pacs", PATIENCE) == (0, 1)

    assert promises(scene, delivered) == [Promise.FAILED, Promise.FAILED]
    assert scene.names(job=delivered.id)[-1] == "commitment.given_up"


def test_a_report_that_comes_too_late_counts_all_the_same(scene, delivered):
    first = ask(scene)
    scene.clock.move(hours=1)
    ask(scene)
    scene.clock.move(hours=1)
    scene.store.commitments.prepare("pacs", PATIENCE)

    assert report(scene, first, committed=uids(first)).committed == 2
    assert promises(scene, delivered) == [Promise.COMMITTED, Promise.COMMITTED]


def test_what_the_destination_does_not_have_is_sent_again_and_asked_for_again(scene, delivered):
    request = ask(scene)
    kept, lost = uids(request)

    outcome = report(scene, request, committed=[kept], failed={lost: NOT_THERE})

    assert (outcome.committed, outcome.sent_again, outcome.given_up) == (1, 1, 0)
    assert scene.store.jobs.get(delivered.id).state is JobState.PENDING
    pending = scene.store.deliveries.for_job(delivered.id, only_pending=True)
    assert [row.sop_instance_uid for row, _ in pending] == [lost]
    deliver(scene)
    assert uids(ask(scene)) == [lost]


def test_sending_again_has_an_end(scene, delivered):
    for sent_again in (1, 1, 0):
        request = ask(scene)
        lost = uids(request)[-1]
        outcome = report(scene, request, committed=uids(request)[:-1], failed={lost: NOT_THERE})
        assert outcome.sent_again == sent_again
        if sent_again:
            deliver(scene)

    assert promises(scene, delivered) == [Promise.COMMITTED, Promise.FAILED]
    assert ask(scene) is None


def test_a_failure_that_sending_cannot_mend_stands_with_its_reason(scene, delivered):
    request = ask(scene)
    first, second = uids(request)

    outcome = report(scene, request, failed={first: NOT_SUPPORTED, second: NOT_SUPPORTED})

    assert outcome.given_up == 2
    rows = [row for row, _ in scene.store.deliveries.for_job(delivered.id)]
    assert {(row.commitment, row.commitment_reason) for row in rows} == {(Promise.FAILED, NOT_SUPPORTED)}


def test_a_promise_is_not_taken_back_by_a_report_that_comes_later(scene, delivered):
    request = ask(scene)
    report(scene, request, committed=uids(request))

    outcome = report(scene, request, failed=dict.fromkeys(uids(request), NOT_THERE))

    assert (outcome.sent_again, outcome.given_up) == (0, 0)
    assert promises(scene, delivered) == [Promise.COMMITTED, Promise.COMMITTED]


def test_a_report_that_leaves_an_instance_out_is_asked_again(scene, delivered):
    request = ask(scene)
    report(scene, request, committed=uids(request)[:1])

    assert uids(ask(scene)) == uids(request)[1:]


def test_a_destination_that_cannot_be_asked_is_asked_later_with_the_same_transaction(scene, delivered):
    request = ask(scene)
    scene.store.commitments.defer(request.record, scene.clock.at + timedelta(minutes=1), "no connection")
    assert ask(scene) is None
    scene.clock.move(minutes=1)

    again = ask(scene)

    assert again.record.transaction_uid == request.record.transaction_uid
    assert [record.ask for record in scene.store.commitments.list(job_id=delivered.id)] == [1]


def test_a_destination_that_can_never_be_asked_is_given_up_in_the_end(scene, delivered):
    for _ in range(2):
        request = ask(scene)
        scene.store.commitments.defer(request.record, scene.clock.at, "no connection")
        scene.clock.move(days=14)

    assert scene.store.commitments.prepare("pacs", PATIENCE) == (0, 1)
    assert promises(scene, delivered) == [Promise.FAILED, Promise.FAILED]


def test_any_stored_series_can_be_ordered_to_any_destination(scene):
    scene.commit()
    series = scene.store.index.list_series()[0]

    received = scene.store.deliveries.send_series(series.id, "elsewhere", "operator")
    again = scene.store.deliveries.send_series(series.id, "elsewhere", "operator")
    enhanced = next(job for job in scene.store.jobs.list(series_id=series.id) if job.kind == "ENHANCE")
    derived = scene.store.deliveries.send_derived(f"2.25.{enhanced.id}", "elsewhere", "operator")

    assert len({received.key, again.key, derived.key}) == 3
    ((_, stored),) = scene.store.deliveries.for_job(received.id)
    (instance,) = scene.store.index.instances(series.id)
    assert (stored.path, stored.digest, stored.digest_scope) == (instance.path, instance.digest, "data set")
    parcels = scene.store.deliveries.for_job(derived.id)
    assert [stored.digest_scope for _, stored in parcels] == ["file", "file"]
    assert scene.claim_delivery("elsewhere").id == received.id
