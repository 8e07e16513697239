"""Routes: validated, tried, applied, rolled back."""

from __future__ import annotations

import pytest

from dicom_node.desk.rules import RouteBook

DRAFT = """routes:
  - name: thin only
    when: {modality: CT, slice_count: {at_least: 12}}
    send_to: [pacs]
  - name: the rest
    when: {modality: CT}
    action: ignore
"""


def test_the_routes_in_force_are_shown_as_text_that_reads_back(operator):
    seen = operator.get("/api/v1/rules").json()

    assert seen["version"] is None
    assert operator.post("/api/v1/rules/validate", json={"text": seen["text"]}).json() == seen["routes"]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("routes:\n  - name: x\n    send_to: [nowhere]\n", 3, "no peer is named"),
        ("routes:\n  - name: x\n    sendto: [pacs]\n", 3, "send_to"),
        ("routes: [\n", 2, "YAML"),
        ("peers: []\n", 1, "peers"),
    ],
)
def test_a_draft_with_mistakes_is_refused_with_their_lines(operator, text, line, words):
    answer = operator.post("/api/v1/rules/validate", json={"text": text})

    assert answer.status_code == 422
    found = answer.json()["errors"]
    assert any(words in fault["at"] + fault["message"] for fault in found), found
    assert line in [fault["line"] for fault in found]


def test_a_dry_run_names_the_route_and_the_clause_that_fails(operator, scans):
    series = scans.series(slices=8)

    seen = operator.post("/api/v1/rules/dry-run", json={"series_id": series, "text": DRAFT}).json()

    assert (seen["taken_by"], seen["action"], seen["slice_count"]) == ("the rest", "ignore", 8)
    assert seen["checks"][0]["failed_clause"] == "slice count is 8, rule wants at least 12"


def test_a_replay_tells_what_a_draft_gains_and_loses(operator, scans):
    short, long = scans.series(slices=8), scans.series(slices=12)

    seen = operator.post("/api/v1/rules/replay", json={"text": DRAFT, "days": 7}).json()

    assert (seen["looked_at"], seen["complete"]) == (2, True)
    assert [change["series_id"] for change in seen["lost"]] == [short]
    assert [change["series_id"] for change in seen["changed"]] == [long]
    assert (seen["load_now"]["series"], seen["load_then"]["series"]) == (2, 1)
    assert seen["load_then"]["instances"] == {"pacs": 12}


def test_applied_routes_are_in_force_and_are_rolled_back(admin, store, settings):
    book = RouteBook(store, settings)

    first = admin.post("/api/v1/rules/apply", json={"text": DRAFT, "comment": "thin slices"}).json()
    assert [route.name for route in book.settings().routes] == ["thin only", "the rest"]
    assert [route["name"] for route in admin.get("/api/v1/routes").json()] == ["thin only", "the rest"]
    back = admin.post("/api/v1/rules/restore", json={"version": None, "expected": first["id"]}).json()
    assert [route.name for route in book.settings().routes] == ["everything"]

    versions = admin.get("/api/v1/rules/versions").json()
    assert [(v["id"], v["author"]) for v in versions] == [
        (back["id"], "user:admin-1"),
        (first["id"], "user:admin-1"),
    ]
    assert versions[1]["comment"] == "thin slices"


def test_a_draft_that_started_from_an_older_version_is_refused(admin):
    admin.post("/api/v1/rules/apply", json={"text": DRAFT})

    answer = admin.post("/api/v1/rules/apply", json={"text": DRAFT, "expected": None})

    assert answer.status_code == 409


def test_a_draft_with_mistakes_changes_nothing(admin, store, settings):
    answer = admin.post("/api/v1/rules/apply", json={"text": "routes: [{name: x}]"})

    assert answer.status_code == 422
    assert RouteBook(store, settings).settings() is settings
