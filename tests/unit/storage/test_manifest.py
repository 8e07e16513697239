"""The manifest commit: everything or nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from storage.errors import StorageError
from storage.records import NewDeliveryJob
from storage.states import DeliveryState, JobKind, JobState


def test_a_manifest_makes_derived_rows_delivery_jobs_and_their_rows(scene):
    scene.enqueue()
    job = scene.claim()
    derived = scene.derive(job, 3)

    jobs = scene.store.jobs.commit_manifest(
        job, derived, [NewDeliveryJob("pacs", {"peer": 1}), NewDeliveryJob("archive")], {"bias_hu": 0.1}
    )

    done = scene.store.jobs.get(job.id)
    assert (done.state, done.result) == (JobState.SUCCEEDED, {"bias_hu": 0.1})
    assert [(j.kind, j.destination, j.parent_id) for j in jobs] == [
        (JobKind.DELIVER, "pacs", job.id),
        (JobKind.DELIVER, "archive", job.id),
    ]
    assert jobs[0].spec == {"peer": 1}
    records = scene.store.index.derived(job.id)
    assert [(r.path, r.digest, r.position) for r in records] == [
        (d.path, d.digest, d.position) for d in derived
    ]
    for delivery_job in jobs:
        rows = scene.store.deliveries.for_job(delivery_job.id)
        assert [(stored.path, stored.digest, stored.position) for _, stored in rows] == [
            (r.path, r.digest, r.position) for r in records
        ]
        assert {row.state for row, _ in rows} == {DeliveryState.PENDING}
    assert scene.names(job=job.id)[-2:] == ["manifest.committed", "job.succeeded"]


def test_a_destination_named_twice_gets_one_job(scene):
    scene.enqueue()
    job = scene.claim()

    jobs = scene.store.jobs.commit_manifest(
        job, scene.derive(job), [NewDeliveryJob(name) for name in ("pacs", "archive", "pacs")]
    )

    assert sorted(j.destination for j in jobs) == ["archive", "pacs"]


def test_a_manifest_that_fails_half_way_leaves_nothing(scene):
    scene.enqueue()
    job = scene.claim()
    first, second = scene.derive(job)
    clash = replace(second, sop_instance_uid=first.sop_instance_uid)
    before = scene.store.jobs.get(job.id), scene.store.trail.list()

    with pytest.raises(StorageError, match="holds this key"):
        scene.store.jobs.commit_manifest(job, [first, clash], [NewDeliveryJob("pacs")])

    assert (scene.store.jobs.get(job.id), scene.store.trail.list()) == before
    assert scene.store.index.derived(job.id) == []
    assert scene.store.jobs.list(kind=JobKind.DELIVER) == []
    scene.store.jobs.commit_manifest(job, [first, second], [NewDeliveryJob("pacs")])
    assert len(scene.store.index.derived(job.id)) == 2


def test_one_uid_never_names_two_contents(scene):
    scene.commit(1)
    scene.enqueue(2)
    job = scene.claim()
    taken = scene.store.deliveries.list()[0].sop_instance_uid
    (derived,) = scene.derive(job, 1)

    with pytest.raises(StorageError, match="holds this key"):
        scene.store.jobs.commit_manifest(job, [replace(derived, sop_instance_uid=taken)], [])


def test_a_file_outside_the_storage_directory_is_refused(scene, tmp_path):
    scene.enqueue()
    job = scene.claim()
    (derived,) = scene.derive(job, 1)

    with pytest.raises(StorageError, match="outside"):
        scene.store.jobs.commit_manifest(job, [replace(derived, path=tmp_path / "x")], [])


def test_the_store_knows_its_own_output_when_it_comes_back(scene):
    (delivery,) = scene.commit()

    assert scene.store.index.derived_series_known(f"2.25.{delivery.parent_id}")
    assert not scene.store.index.derived_series_known("1.2.3.1")
