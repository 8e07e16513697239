"""A second model on the same inputs: unsent, side by side, decided in one audited act."""

from __future__ import annotations

import pytest

from dicom_node.desk.rules import RouteBook
from dicom_node.pipeline.shadow import ShadowRunner
from storage.shadow import TrialState
from storage.states import JobKind


def test_a_trial_runs_beside_the_sent_model_and_sends_nothing(admin, desk, settings, scans, store):
    trial = admin.post("/api/v1/shadow/trials", json={"enhancer": "identity"}).json()
    job = scans.enhanced(slices=8)
    runner = ShadowRunner(store, settings, now=desk.now)
    before = len(store.deliveries.list()), len(store.jobs.list())

    assert runner.run_once()
    assert not runner.run_once()  # each input once
    runner.close()

    seen = admin.get(f"/api/v1/shadow/trials/{trial['id']}").json()
    assert [result["job_id"] for result in seen["results"]] == [job]
    assert (seen["inputs"], seen["primary"]["noise_after"]) == (1, 4.0)
    assert seen["failed"] == 0
    assert seen["shadow"]["seconds"] > 0
    assert (len(store.deliveries.list()), len(store.jobs.list())) == before
    assert list(settings.storage.directory.glob("shadow-*")) == []


def test_a_trial_waits_while_real_work_waits(admin, desk, settings, scans, store, line):
    admin.post("/api/v1/shadow/trials", json={"enhancer": "identity"})
    scans.enhanced()
    line.job()

    assert store.shadow.next_job(store.shadow.running()) is None


def test_promoting_makes_the_model_the_default_and_withdrawing_takes_it_back(admin, settings, store):
    book = RouteBook(store, settings)
    trial = admin.post("/api/v1/shadow/trials", json={"enhancer": "classical"}).json()["id"]
    path = f"/api/v1/shadow/trials/{trial}/decision"

    assert admin.post(path, json={"decision": "promote"}).json()["decided_by"] == "user:admin-1"
    assert book.settings().enhancement.enhancer == "classical"
    assert admin.get("/api/v1/overview").json()["enhancer"] == "classical"
    assert admin.post(path, json={"decision": "drop"}).status_code == 409
    admin.post(path, json={"decision": "withdraw"})
    assert book.settings().enhancement.enhancer == settings.enhancement.enhancer

    told = [event.name for event in store.trail.list() if event.name.startswith("shadow.")]
    assert told == ["shadow.withdrawn", "shadow.promoted", "shadow.started"]


def test_one_trial_at_a_time_and_of_known_models_only(admin, store):
    assert admin.post("/api/v1/shadow/trials", json={"enhancer": "nothing"}).status_code == 404
    admin.post("/api/v1/shadow/trials", json={"enhancer": "classical"})

    assert admin.post("/api/v1/shadow/trials", json={"enhancer": "identity"}).status_code == 409
    assert [trial.state for trial in store.shadow.trials()] == [TrialState.RUNNING]


@pytest.mark.parametrize("decision", ["promote", "drop"])
def test_a_decided_trial_runs_no_more(admin, store, scans, decision):
    trial = admin.post("/api/v1/shadow/trials", json={"enhancer": "identity"}).json()["id"]

    admin.post(f"/api/v1/shadow/trials/{trial}/decision", json={"decision": decision})

    assert store.shadow.running() is None
    assert store.jobs.list(kind=JobKind.ENHANCE) == []
