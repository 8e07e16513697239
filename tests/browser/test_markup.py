"""Markup in any text that came from outside is shown as text, on every page that shows it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dicom_node.desk.roles import Role
from storage.reviews import NewReview, Verdict
from storage.states import JobKind

EVIL = '<img src=x onerror="window.hit=1"><script>window.hit=1</script>\'"{{7*7}}'
SHORT = "<b onclick=1>'\""


def test_stored_markup_is_inert(browser, line, store):
    series = line.series(calling=SHORT, modality=SHORT, slices=4)
    evidence = {EVIL: EVIL, "list": [EVIL]}
    line.close(series, "hold", reason=EVIL[:32], message=EVIL, evidence=evidence)
    number = line.enhanced(destination=SHORT, slices=4)
    delivery = line.claim(JobKind.DELIVER, SHORT)
    later = datetime.now(UTC) + timedelta(days=1)
    store.jobs.fail(delivery, reason=EVIL[:32], message=EVIL, retry_at=later)
    store.trail.append(
        EVIL[:60], series_id=series, job_id=number, data={EVIL: EVIL, "nested": {"deep": [EVIL]}}
    )
    store.trail.append("association.rejected", data={"calling_ae": EVIL})
    store.alarms.raise_(EVIL[:30], EVIL[:60], {EVIL: EVIL})
    store.destinations.failed("absent", EVIL, wait=lambda _: timedelta(days=1), opens_at=1)
    store.reviews.keep(
        NewReview(number, series, EVIL[:60], Verdict.REJECT, False, None, EVIL, EVIL[:60], SHORT, SHORT)
    )
    page = browser.page(Role.ADMIN, "/overview")
    paths = ("/overview", "/series", f"/series/{series}", "/jobs", f"/jobs/{number}", f"/jobs/{delivery.id}",
             f"/jobs/{number}/view", f"/series/{series}/view", "/reviews", "/peers", "/why?text=9.9.9",
             f"/why?text={store.index.get_series(series).series_instance_uid}",
             "/jobs?text=%3Cimg%20src%3Dx%20onerror%3Dhit%3E",
             "/login?next=javascript:alert(1)")  # fmt: skip
    shown = 0
    for path in paths:
        page.goto(path)
        if path.endswith("/view"):  # it goes on by itself once its markup is there
            page.wait_for_selector("#viewer:not([data-ready=''])[data-ready]")
        assert page.evaluate("window.hit") is None, path
        assert page.locator("img[onerror], [onclick], script:not([src])").count() == 0, path
        assert "49" not in page.locator("body").inner_text() or "{{7*7}}" in page.locator("body").inner_text()
        shown += EVIL in page.locator("body").inner_text() or SHORT in page.locator("body").inner_text()
    assert shown >= 10
    page.close()
