"""Every page opens in light and in dark without a complaint of the browser, and is photographed if wished."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dicom_node.desk.roles import Role

SHOTS = os.environ.get("DICOM_NODE_SCREENSHOTS")


PAGES = {
    "overview": "/overview",
    "series": "/series",
    "one-series": "/series/{held}",
    "jobs": "/jobs",
    "one-job": "/jobs/{job}",
    "viewer": "/jobs/{job}/view",
    "viewer-blinded": "/jobs/{job}/view?blinded=1",
    "viewer-of-series": "/series/{series}/view",
    "reviews": "/reviews",
    "routes": "/routes",
    "peers": "/peers",
    "models": "/models",
    "why": "/why?text=A-1",
    "why-nothing": "/why?text=1.2.3",
    "upload": "/upload",
    "people": "/people",
    "account": "/account",
}


def photograph(page, name: str) -> None:
    if SHOTS:
        folder = Path(SHOTS)
        folder.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=folder / f"{name}.png", full_page=True)


def settle(page) -> None:
    """Wait until everything is shown that the page fetches by itself; what its markup names is there already."""
    if page.locator("#viewer").count():
        page.wait_for_selector("#viewer:not([data-ready=''])[data-ready]")
    if page.locator("#quality").count():
        page.locator("#spectrum polyline.derived").wait_for(state="attached")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_opens_without_a_complaint(browser, numbers, scheme):
    page = browser.page(Role.ADMIN, "/overview", scheme=scheme)
    for name, path in PAGES.items():
        page.goto(path.format(**numbers))
        settle(page)
        assert "Research use only" in page.inner_text("footer")
        photograph(page, f"{name}-{scheme}")
    page.close()


def test_pages_fit_a_phone(browser, numbers):
    page = browser.page(Role.ADMIN, "/overview", width=390, height=844)
    for name in ("overview", "jobs", "one-job", "viewer", "routes"):
        page.goto(PAGES[name].format(**numbers))
        settle(page)
        wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, name
        photograph(page, f"{name}-phone")
    page.close()


def test_who_is_not_signed_in_is_led_to_the_login_and_back(browser, store):
    page = browser.page(None, "/jobs?state=FAILED")
    assert "/login" in page.url
    photograph(page, "login-light")

    page.get_by_label("Name").fill("nobody")
    page.get_by_label("Password").fill("a wrong password")
    with browser.expecting_complaints("401"):
        page.get_by_role("button", name="Sign in").click()
        page.get_by_text("name or password is wrong").wait_for()

    page.get_by_label("Name").fill(browser.person(Role.VIEWER))
    page.get_by_label("Password").fill(browser.password)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/jobs?state=FAILED")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/login")
    page.goto("/overview")
    assert "/login" in page.url
    page.context.close()


def test_the_first_run_makes_the_first_administrator(first_administrator, store):
    assert first_administrator.endswith("/login")
    user = store.access.find_user("admin-1")
    assert user is not None
    assert user.role == Role.ADMIN


def test_a_viewer_sees_no_control_that_would_be_refused(browser, numbers):
    page = browser.page(Role.VIEWER, f"/jobs/{numbers['job']}")
    assert page.locator("[data-call]:not([data-call*=session])").count() == 0
    with browser.expecting_complaints("403"):
        page.goto("/people")
    assert page.get_by_role("heading", name="You may not see this").is_visible()
    with browser.expecting_complaints("404"):
        page.goto("/jobs/987654")
    assert page.get_by_role("heading", name="There is nothing here").is_visible()
    page.close()
