"""Why-not, patient data on demand, uploads."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import pytest

from dicom_node.imaging.phantom_series import PhantomStyle, write_ct_series


@pytest.mark.parametrize("what", ["series", "study", "instance", "derived series", "derived instance"])
def test_any_uid_leads_to_the_story_of_its_series(viewer, scans, store, what):
    job = store.jobs.get(scans.enhanced())
    series = store.index.get_series(job.series_id)
    derived = store.index.derived(job.id)[0]
    uid = {
        "series": series.series_instance_uid,
        "study": series.study_instance_uid,
        "instance": store.index.instances(series.id)[0].sop_instance_uid,
        "derived series": derived.series_instance_uid,
        "derived instance": derived.sop_instance_uid,
    }[what]

    (answer,) = viewer.get("/api/v1/why", params={"text": f" {uid} "}).json()["answers"]

    assert (answer["found_by"], answer["series"]["id"]) == (what, series.id)
    assert (answer["taken_by"], answer["jobs"][-1]["id"]) == ("everything", job.id)
    assert answer["deliveries"] == {"pacs": {"PENDING": 8}}


def test_an_accession_number_finds_its_series_and_is_kept_nowhere(viewer, scans, settings):
    style = PhantomStyle(attributes={"AccessionNumber": "ACC-4711"}, study_key="other")
    wanted, _ = scans.series(style=style), scans.series()

    (answer,) = viewer.get("/api/v1/why", params={"text": "ACC-4711"}).json()["answers"]

    assert (answer["found_by"], answer["series"]["id"]) == ("accession number", wanted)
    database = b"".join(path.read_bytes() for path in settings.storage.directory.glob("node.db*"))
    assert b"ACC-4711" not in database


def test_what_never_came_is_answered_with_who_was_turned_away(viewer, store):
    store.trail.append("association.rejected", data={"calling_ae": "STRANGER", "rejection": "CALLING_AE"})

    seen = viewer.get("/api/v1/why", params={"text": "1.2.3.999"}).json()

    assert seen["answers"] == []
    assert seen["rejected"][0]["data"]["calling_ae"] == "STRANGER"


def test_patient_data_is_for_those_who_may_see_it_and_each_look_is_told(operator, viewer, scans, store):
    series = scans.series()

    seen = operator.post(f"/api/v1/series/{series}/reveal").json()

    assert (seen["patient_name"], seen["patient_id"]) == ("PHANTOM^HEAD", "PHANTOM-1")
    looks = [e.data for e in store.trail.for_series(series) if e.name == "instances.viewed"]
    assert [(look["actor"], look["revealed"]) for look in looks] == [("user:operator-1", True)]
    assert viewer.post(f"/api/v1/series/{series}/reveal").status_code == 403
    denied = [event for event in store.trail.list() if event.name == "access.denied"]
    assert denied[0].data["actor"] == "user:viewer-1"
    shown = viewer.get(f"/api/v1/series/{series}").text + viewer.get("/api/v1/events").text
    assert "PHANTOM" not in shown


@pytest.fixture
def files(scans, tmp_path) -> list[Path]:
    return write_ct_series(scans.volume(slices=4), tmp_path / "cd")


def zipped(files, **more: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            archive.write(path, f"../../etc/{path.name}")
        for name, content in more.items():
            archive.writestr(name, content)
    return out.getvalue()


def test_an_uploaded_zip_goes_through_the_door_like_an_association(operator, files, store, tmp_path):
    upload = operator.post("/api/v1/uploads").json()["id"]
    body = zipped(files, **{"README.txt": b"no image", "DICOMDIR": b"x" * 200})

    seen = operator.post(f"/api/v1/uploads/{upload}/files", content=body).json()
    assert (seen["received"], seen["skipped"], seen["refused"]) == (4, 2, {})
    assert store.index.closable_series() == []  # it is still open
    (series,) = operator.post(f"/api/v1/uploads/{upload}/finish").json()["series"]

    record = store.index.get_series(series)
    assert (record.instance_count, record.calling_ae, record.interrupted) == (4, "UPLOAD", False)
    assert [found.id for found in store.index.closable_series()] == [series]
    assert not (tmp_path / "etc").exists()
    assert operator.post(f"/api/v1/uploads/{upload}/finish").status_code == 404


def test_single_files_are_taken_one_by_one_and_a_repeat_is_no_second_instance(operator, files, store):
    upload = operator.post("/api/v1/uploads").json()["id"]

    for path in [*files, files[0]]:
        seen = operator.post(f"/api/v1/uploads/{upload}/files", content=path.read_bytes()).json()
    (series,) = operator.post(f"/api/v1/uploads/{upload}/finish").json()["series"]

    assert seen["received"] == 5
    assert len(store.index.instances(series)) == 4


def test_an_upload_that_breaks_off_marks_its_series_as_interrupted(operator, files, store):
    upload = operator.post("/api/v1/uploads").json()["id"]
    operator.post(f"/api/v1/uploads/{upload}/files", content=zipped(files))

    assert operator.delete(f"/api/v1/uploads/{upload}").status_code == 204

    (series,) = store.index.list_series()
    assert series.interrupted


def test_a_zip_bomb_is_refused_in_bounded_space(operator, files, store):
    bomb = files[0].read_bytes() + bytes(90 * 1024**2)  # an image that goes on for ever
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("IM1", bomb)
    upload = operator.post("/api/v1/uploads").json()["id"]

    answer = operator.post(f"/api/v1/uploads/{upload}/files", content=out.getvalue())

    assert answer.status_code == 422
    assert "unfolds" in answer.json()["detail"]
    assert store.index.list_series() == []


@pytest.mark.parametrize("body", [b"", b"PK\x03\x04 broken", b"no DICOM at all" * 20, b"\0" * 128 + b"DICM"])
def test_what_is_no_dicom_leaves_nothing(operator, store, body):
    upload = operator.post("/api/v1/uploads").json()["id"]

    answer = operator.post(f"/api/v1/uploads/{upload}/files", content=body)

    assert answer.status_code in (200, 422)
    assert answer.status_code == 422 or answer.json()["skipped"] == 1
    assert store.index.list_series() == []


def test_an_upload_belongs_to_who_began_it(operator, admin):
    upload = operator.post("/api/v1/uploads").json()["id"]

    assert admin.post(f"/api/v1/uploads/{upload}/finish").status_code == 404
