"""What the API shows: lists by page and filter, details, the overview."""

from __future__ import annotations

import threading


def test_the_overview_counts_what_the_store_holds(viewer, line):
    line.series()
    line.derived()
    held = line.series(modality="MR")
    line.close(held, "hold", reason="MISSING_SLICE", message="At least one slice is missing.")

    seen = viewer.get("/api/v1/overview").json()

    assert seen["series"] == {"RECEIVING": 1, "STABLE": 1, "HELD": 1}
    assert seen["series_by_modality"]["MR"] == {"HELD": 1}
    assert seen["jobs"] == {"ENHANCE": {"SUCCEEDED": 1}, "DELIVER": {"PENDING": 1}}
    assert seen["peers"]["pacs"]["instances"] == {"PENDING": 2}
    assert seen["queue_age_s"]["DELIVER"] >= 0
    assert seen["disk"]["total"] > seen["disk"]["free"] > 0
    assert seen["paused"] == {"intake": False, "processing": False, "sending": False}


def test_a_list_is_read_page_by_page_newest_first(viewer, line):
    numbers = [line.job() for _ in range(5)]

    first = viewer.get("/api/v1/jobs", params={"limit": 2}).json()
    second = viewer.get("/api/v1/jobs", params={"limit": 2, "after": first["next"]}).json()
    third = viewer.get("/api/v1/jobs", params={"limit": 2, "after": second["next"]}).json()

    seen = [job["id"] for page in (first, second, third) for job in page["items"]]
    assert seen == sorted(numbers, reverse=True)
    assert third["next"] is None


def test_lists_are_filtered(viewer, line):
    line.job(modality="CT")
    line.job(modality="MR", calling="MR_1")
    line.derived(modality="PT")

    def found(path: str, **params: str) -> int:
        return len(viewer.get(f"/api/v1/{path}", params=params).json()["items"])

    assert found("jobs", modality="MR") == 1
    assert found("jobs", calling_ae="MR_1") == 1
    assert found("jobs", state="SUCCEEDED", kind="ENHANCE") == 1
    assert found("series", modality="CT", state="STABLE") == 1
    assert found("series", text="1.2.3.2") == 1
    assert found("deliveries", destination="pacs", state="PENDING") == 2
    assert found("events", name="job.") >= 3


def test_a_job_shows_its_series_its_events_and_its_deliveries(viewer, line):
    enhance, delivery = line.derived()

    seen = viewer.get(f"/api/v1/jobs/{enhance}").json()

    assert seen["job"]["enhancer"] == "classical"
    assert [child["id"] for child in seen["children"]] == [delivery]
    assert seen["deliveries"] == {"pacs": {"PENDING": 2}}
    assert "manifest.committed" in [event["name"] for event in seen["events"]]
    assert "spec" not in seen["job"]


def test_a_series_tells_its_story(viewer, line):
    series = line.series()
    line.close(series, "skip", reason="LOCALIZER", message="A localizer is never enhanced.")

    seen = viewer.get(f"/api/v1/series/{series}").json()

    assert "localizer" in seen["verdict"]
    assert seen["series"]["reason"] == "LOCALIZER"
    assert len(viewer.get(f"/api/v1/series/{series}/instances").json()["items"]) == 1


def test_peers_and_routes_are_shown_in_plain_words(viewer, line):
    line.derived()

    (peer,) = viewer.get("/api/v1/peers").json()
    (route,) = viewer.get("/api/v1/routes").json()

    assert (peer["name"], peer["jobs"], peer["instances"]) == ("pacs", {"PENDING": 1}, {"PENDING": 2})
    assert viewer.get("/api/v1/peers/pacs").json() == peer
    assert (route["name"], route["when"], route["send_to"]) == ("everything", "any series", ["pacs"])
    assert viewer.get("/api/v1/routes/1").json() == route


def test_what_is_not_there_is_a_problem_of_its_own_type(viewer):
    for path in ("series/99", "jobs/99", "peers/nobody", "routes/9", "nothing"):
        answer = viewer.get(f"/api/v1/{path}")
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"] == "urn:dicom-node:problem:not-found"


def test_a_request_that_does_not_fit_is_refused_without_repeating_it(viewer):
    for path in ("jobs?state=DOE^JOHN", "jobs?limit=0", "jobs/0", f"jobs/{2**70}", "series?received_from=x"):
        answer = viewer.get(f"/api/v1/{path}")
        assert answer.status_code == 422, path
        assert "DOE" not in answer.text


def test_whoever_comes_while_figures_are_computed_gets_the_last_ones(desk, monkeypatch):
    last = desk.figures.overview()
    monkeypatch.setattr("dicom_node.desk.overview._KEPT_S", 0.0)
    begun, go_on, compute = threading.Event(), threading.Event(), desk.figures._compute

    def slowly():
        begun.set()
        assert go_on.wait(30)
        return compute()

    monkeypatch.setattr(desk.figures, "_compute", slowly)
    other = threading.Thread(target=desk.figures.overview)
    other.start()
    assert begun.wait(30)

    assert desk.figures.overview() is last
    go_on.set()
    other.join()
    assert desk.figures.overview() is not last
