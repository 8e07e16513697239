"""What the API does to the line, seen in the store; and that a repeated write has one effect."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from storage.pauses import Part
from storage.states import JobKind

LEASE = timedelta(seconds=60)


def test_a_job_is_canceled_and_run_again(operator, line, store):
    job = line.job()

    assert operator.post(f"/api/v1/jobs/{job}/cancel").json()["state"] == "CANCELED"
    assert operator.post(f"/api/v1/jobs/{job}/resubmit").json()["state"] == "PENDING"

    assert [e.data.get("actor") for e in store.trail.for_job(job)][-2:] == ["user:operator-1"] * 2


def test_what_the_state_does_not_allow_is_a_conflict(operator, line):
    job = line.job()

    answer = operator.post(f"/api/v1/jobs/{job}/resubmit")

    assert (answer.status_code, answer.json()["type"]) == (409, "urn:dicom-node:problem:not-possible-now")


@pytest.mark.parametrize(("act", "state"), [("release", "RECEIVING"), ("discard", "SKIPPED")])
def test_a_held_series_is_released_or_discarded(operator, line, act, state):
    series = line.series()
    line.close(series, "hold", reason="MISSING_SLICE", message="A slice is missing.")

    assert operator.post(f"/api/v1/series/{series}/{act}").json()["state"] == state


def test_a_stored_series_is_sent_to_a_peer_that_is_configured(operator, scans, store):
    series = scans.series()

    job = operator.post(f"/api/v1/series/{series}/send", json={"destination": "pacs"}).json()

    assert (job["kind"], job["destination"], job["series_id"]) == ("DELIVER", "pacs", series)
    assert store.jobs.get(job["id"]).state == "PENDING"
    nobody = operator.post(f"/api/v1/series/{series}/send", json={"destination": "nobody"})
    assert nobody.status_code == 404


def test_deliveries_are_tried_again_by_job_or_by_destination(operator, line, store, clock):
    _, delivery = line.derived()
    job = store.jobs.claim(JobKind.DELIVER, "sender", LEASE, destination="pacs")
    store.jobs.fail(job, reason="PEER_UNREACHABLE", message="no", retry_at=clock() + timedelta(hours=1))

    assert operator.post("/api/v1/deliveries/retry", json={"destination": "pacs"}).json() == {"jobs": 1}
    assert store.jobs.get(delivery).not_before == clock()
    assert operator.post("/api/v1/deliveries/retry", json={}).status_code == 422


@pytest.mark.parametrize(
    ("part", "kind", "destination"),
    [(Part.PROCESSING, JobKind.ENHANCE, None), (Part.SENDING, JobKind.DELIVER, "pacs")],
)
def test_a_paused_part_claims_nothing_until_it_is_resumed(admin, line, store, part, kind, destination):
    line.derived()
    line.job()

    assert admin.put(f"/api/v1/pauses/{part}", json={"paused": True}).json()[part] is True
    assert store.jobs.claim(kind, "w", LEASE, destination=destination) is None
    assert admin.get("/api/v1/overview").json()["paused"][part] is True
    admin.put(f"/api/v1/pauses/{part}", json={"paused": False})
    assert store.jobs.claim(kind, "w", LEASE, destination=destination) is not None


def test_a_peer_that_does_not_answer_an_echo_is_a_result_with_a_reason(operator, store):
    seen = operator.post("/api/v1/peers/pacs/echo").json()

    assert (seen["answered"], seen["reason"]) == (False, "PEER_UNREACHABLE")
    assert operator.post("/api/v1/peers/nobody/echo").status_code == 404


def test_a_write_repeated_under_its_key_has_one_effect_and_the_same_answer(operator, line, store):
    job, _ = line.derived()
    path, headers = f"/api/v1/jobs/{job}/resubmit", {"Idempotency-Key": "again-1"}

    first = operator.post(path, headers=headers)
    second = operator.post(path, headers=headers)

    assert first.status_code == second.status_code == 200
    assert first.json() == second.json()
    assert second.headers["idempotent-replay"] == "true"
    assert len(store.jobs.list(kind=JobKind.ENHANCE)) == 2


def test_a_key_used_for_another_request_is_refused(operator, line):
    one, two = line.job(), line.job()
    headers = {"Idempotency-Key": "k"}

    operator.post(f"/api/v1/jobs/{one}/cancel", headers=headers)
    answer = operator.post(f"/api/v1/jobs/{two}/cancel", headers=headers)

    assert (answer.status_code, answer.json()["type"]) == (422, "urn:dicom-node:problem:key-reused")


def test_many_equal_writes_at_once_have_one_effect(operator, line, store):
    job, _ = line.derived()
    path, headers = f"/api/v1/jobs/{job}/resubmit", {"Idempotency-Key": "burst"}

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: operator.post(path, headers=headers), range(20)))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1
    assert len(store.jobs.list(kind=JobKind.ENHANCE)) == 2


def test_a_refused_write_is_as_final_under_its_key(operator, line):
    job = line.job()
    path, headers = f"/api/v1/jobs/{job}/resubmit", {"Idempotency-Key": "no"}

    answers = [operator.post(path, headers=headers) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [409, 409]
    assert answers[0].json() == answers[1].json()


def test_health_is_open_on_loopback_only(people):
    near = people.nobody(peer="127.0.0.1")
    far = people.nobody(peer="192.0.2.9")

    assert near.get("/api/v1/health/live").json() == {"live": True}
    assert far.get("/api/v1/health/live").status_code == 401
    ready = near.get("/api/v1/health/ready")
    assert (ready.status_code, ready.json()["checks"]["database"]) == (503, "ok")
    assert "DICOM port" in ready.json()["checks"]["receiver"]


def test_statistics_tell_what_came_and_what_ended(viewer, line):
    line.derived()

    (step,) = viewer.get("/api/v1/statistics", params={"hours": 1}).json()["steps"]

    assert (step["received"], step["enhance.succeeded"]) == (1, 1)
