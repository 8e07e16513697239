"""Every page opens in light and in dark without a complaint of the browser, and is photographed if wished."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dicom_node.desk.roles import Role

SHOTS = os.environ.get("DICOM_NODE_SCREENSHOTS")


@pytest.fixture(scope="module")
def numbers(line, archive, store):
    """A line in which something is in every state; the numbers of a job and a series to look at."""
    done = line.enhanced()
    line.enhanced(destination="absent")
    line.failed()
    held = line.series(calling="MR_TWO")
    line.close(held, "hold", reason="SLICES_MISSING", message="Slice 7 of 12 is missing.")
    left = line.series(calling="CT_ONE", slices=8)
    line.close(left, "skip", reason="NO_ROUTE", message="No route matches this series.")
    line.job(calling="CT_ONE", slices=8)
    line.series(calling="CT_ONE", slices=8)
    return {"job": done, "series": store.jobs.get(done).series_id, "held": held}


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
    "people": "/people",
    "account": "/account",
}


def photograph(page, name: str) -> None:
    if SHOTS:
        folder = Path(SHOTS)
        folder.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=folder / f"{name}.png", full_page=True)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_opens_without_a_complaint(browser, numbers, scheme):
    page = browser.page(Role.ADMIN, "/overview", scheme=scheme)
    for name, path in PAGES.items():
        page.goto(path.format(**numbers))
        page.wait_for_load_state("networkidle")
        if "viewer" in name:
            page.wait_for_selector("#viewer:not([data-ready=''])[data-ready]")
        assert "Research use only" in page.inner_text("footer")
        photograph(page, f"{name}-{scheme}")
    page.close()
