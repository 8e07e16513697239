"""Every route against every role: what a route lets in is written here once more, and tried."""

from __future__ import annotations

import re

import pytest

from dicom_node.api.app import PREFIX, OpenRouteError, refuse_open_routes, served_routes
from dicom_node.desk.roles import Role
from dicom_node.web.site import build_site

ANYONE, VIEWER, OPERATOR, ADMIN = None, Role.VIEWER, Role.OPERATOR, Role.ADMIN
METRICS = VIEWER  # or a key with that scope, see the tests of the metrics

TABLE: dict[tuple[str, str], Role | None] = {
    ("POST", "/api/v1/session"): ANYONE,
    ("GET", "/api/v1/session"): VIEWER,
    ("DELETE", "/api/v1/session"): VIEWER,
    ("GET", "/api/v1/session/first-run"): ANYONE,
    ("POST", "/api/v1/session/first-run"): ANYONE,
    ("GET", "/api/v1/overview"): VIEWER,
    ("GET", "/api/v1/series"): VIEWER,
    ("GET", "/api/v1/series/{series_id}"): VIEWER,
    ("GET", "/api/v1/series/{series_id}/instances"): VIEWER,
    ("GET", "/api/v1/jobs"): VIEWER,
    ("GET", "/api/v1/jobs/{job_id}"): VIEWER,
    ("GET", "/api/v1/deliveries"): VIEWER,
    ("GET", "/api/v1/events"): VIEWER,
    ("GET", "/api/v1/peers"): VIEWER,
    ("GET", "/api/v1/peers/{name}"): VIEWER,
    ("GET", "/api/v1/routes"): VIEWER,
    ("GET", "/api/v1/routes/{position}"): VIEWER,
    ("POST", "/api/v1/jobs/{job_id}/cancel"): OPERATOR,
    ("POST", "/api/v1/jobs/{job_id}/resubmit"): OPERATOR,
    ("POST", "/api/v1/deliveries/retry"): OPERATOR,
    ("POST", "/api/v1/series/{series_id}/release"): OPERATOR,
    ("POST", "/api/v1/series/{series_id}/discard"): OPERATOR,
    ("POST", "/api/v1/series/{series_id}/send"): OPERATOR,
    ("POST", "/api/v1/jobs/{job_id}/send"): OPERATOR,
    ("GET", "/api/v1/pauses"): OPERATOR,
    ("PUT", "/api/v1/pauses/{part}"): ADMIN,
    ("POST", "/api/v1/peers/{name}/echo"): OPERATOR,
    ("GET", "/api/v1/rules"): VIEWER,
    ("POST", "/api/v1/rules/validate"): OPERATOR,
    ("POST", "/api/v1/rules/dry-run"): OPERATOR,
    ("POST", "/api/v1/rules/replay"): OPERATOR,
    ("POST", "/api/v1/rules/apply"): ADMIN,
    ("POST", "/api/v1/rules/restore"): ADMIN,
    ("GET", "/api/v1/rules/versions"): VIEWER,
    ("GET", "/api/v1/series/{series_id}/images"): VIEWER,
    ("GET", "/api/v1/series/{series_id}/images/{place}.png"): VIEWER,
    ("GET", "/api/v1/jobs/{job_id}/images"): VIEWER,
    ("GET", "/api/v1/jobs/{job_id}/images/{layer}/{place}.png"): VIEWER,
    ("GET", "/api/v1/jobs/{job_id}/quality"): VIEWER,
    ("GET", "/api/v1/reviews"): VIEWER,
    ("GET", "/api/v1/reviews/rates"): VIEWER,
    ("GET", "/api/v1/reviews.csv"): OPERATOR,
    ("GET", "/api/v1/jobs/{job_id}/reviews"): VIEWER,
    ("GET", "/api/v1/jobs/{job_id}/reviews/side"): OPERATOR,
    ("PUT", "/api/v1/jobs/{job_id}/reviews/mine"): OPERATOR,
    ("GET", "/api/v1/users"): ADMIN,
    ("POST", "/api/v1/users"): ADMIN,
    ("PATCH", "/api/v1/users/{name}"): ADMIN,
    ("DELETE", "/api/v1/users/{name}"): ADMIN,
    ("POST", "/api/v1/session/password"): VIEWER,
    ("GET", "/api/v1/tokens"): VIEWER,
    ("POST", "/api/v1/tokens"): VIEWER,
    ("DELETE", "/api/v1/tokens/{token_id}"): VIEWER,
    ("GET", "/api/v1/health/live"): ANYONE,
    ("GET", "/api/v1/health/ready"): ANYONE,
    ("GET", "/api/v1/statistics"): VIEWER,
    ("GET", "/api/v1/why"): VIEWER,
    ("POST", "/api/v1/series/{series_id}/reveal"): OPERATOR,
    ("POST", "/api/v1/uploads"): OPERATOR,
    ("POST", "/api/v1/uploads/{upload_id}/files"): OPERATOR,
    ("POST", "/api/v1/uploads/{upload_id}/finish"): OPERATOR,
    ("DELETE", "/api/v1/uploads/{upload_id}"): OPERATOR,
    ("GET", "/api/v1/metrics"): METRICS,
    ("GET", "/api/v1/alerts"): VIEWER,
    ("POST", "/api/v1/alerts/test"): ADMIN,
    ("GET", "/api/v1/shadow/trials"): VIEWER,
    ("POST", "/api/v1/shadow/trials"): ADMIN,
    ("GET", "/api/v1/shadow/trials/{trial_id}"): VIEWER,
    ("POST", "/api/v1/shadow/trials/{trial_id}/decision"): ADMIN,
    ("GET", "/api/v1/shadow/enhancers"): VIEWER,
}

PAGES: dict[str, Role | None] = {
    "/": ANYONE,
    "/login": ANYONE,
    "/first-run": ANYONE,
    "/overview": VIEWER,
    "/series": VIEWER,
    "/series/{series_id}": VIEWER,
    "/series/{series_id}/view": VIEWER,
    "/jobs": VIEWER,
    "/jobs/{job_id}": VIEWER,
    "/jobs/{job_id}/view": VIEWER,
    "/reviews": VIEWER,
    "/routes": VIEWER,
    "/peers": VIEWER,
    "/models": VIEWER,
    "/why": VIEWER,
    "/upload": OPERATOR,
    "/people": ADMIN,
    "/account": VIEWER,
}


def served(app) -> set[tuple[str, str]]:
    return {(method, route.path) for route in served_routes(app) for method in route.methods}


def test_the_tables_name_every_route_that_is_served(people):
    assert served(people.app) == {*TABLE, *(("GET", path) for path in PAGES)}


def test_nothing_is_served_beside_the_routes_but_the_description_and_the_static_files(people):
    """What is no route of ours has no role either, so there must be no more of it."""
    ours = {route.path for route in served_routes(people.app)}
    others = {route.path for route in people.app.routes if getattr(route, "path", None) not in {*ours, None}}

    assert others == {f"{PREFIX}/openapi.json", "/static"}


@pytest.mark.parametrize("caller", [None, *Role])
def test_a_page_lets_in_whom_the_table_says(people, caller):
    client = people.nobody() if caller is None else people.sign_in(caller)
    for path, needed in PAGES.items():
        answer = client.get(re.sub(r"\{[^}]*\}", "987654", path), follow_redirects=False)
        to_login = answer.headers.get("location", "").startswith("/login")
        if needed is None:
            assert answer.status_code in (200, 303), path
        elif caller is None:
            assert (answer.status_code, to_login) == (303, True), path
        elif caller.rank < needed.rank:
            assert answer.status_code == 403, path
        else:
            assert answer.status_code == (404 if "{" in path else 200), path


@pytest.mark.parametrize("caller", [None, *Role])
def test_a_route_lets_in_whom_the_table_says(people, caller):
    client = people.nobody() if caller is None else people.sign_in(caller)
    token = client.headers.get("X-CSRF-Token")
    for (method, path), needed in TABLE.items():
        if (method, path) == ("DELETE", "/api/v1/session"):
            continue
        target = re.sub(r"\{[^}]*\}", "987654", path)
        answer = client.request(method, target, headers={"X-CSRF-Token": token} if token else {})
        if needed is None:
            assert answer.status_code not in (401, 403) or method == "POST", (method, path)
        elif (method, path) == ("DELETE", "/api/v1/tokens/{token_id}") and caller is not None:
            assert answer.status_code == (404 if caller is ADMIN else 403)  # only one's own
        elif caller is None:
            assert answer.status_code == 401, (method, path)
        elif caller.rank < needed.rank:
            assert answer.status_code == 403, (method, path)
        else:
            assert answer.status_code not in (401, 403), (method, path)
        assert answer.status_code < 500 or path.endswith("/ready"), (method, path, answer.text)


def test_an_application_with_a_route_that_declares_no_role_is_not_served(desk):
    app = build_site(desk)
    app.get("/forgotten")(lambda: None)

    with pytest.raises(OpenRouteError, match="/forgotten"):
        refuse_open_routes(app)
