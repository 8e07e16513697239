"""Every control of the line: what it does is seen in the database or at the archive."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dicom_node.desk.roles import Role
from storage.filters import EventFilter
from storage.states import DeliveryState, JobKind, JobState, SeriesState


@pytest.fixture(scope="module")
def page(_browser):
    """One page of an administrator for all tests here."""
    opened = _browser.page(Role.ADMIN, "/overview")
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _without_complaints(browser):
    return browser


def press(page, name: str, *, sure: bool = False, said: str = "") -> None:
    """Press a button, answer its question with yes, and wait until the page says what came of it."""
    page.get_by_role("button", name=name, exact=True).first.click()
    if sure:
        page.locator("#confirm").get_by_role("button", name="Yes").click()
    if said:
        page.locator("#said").get_by_text(said).first.wait_for()


def test_a_job_is_canceled_and_resubmitted(page, line, store):
    job = line.job(slices=8)
    page.goto(f"/jobs/{job}")
    press(page, "Cancel", sure=True, said="Canceled")
    assert store.jobs.get(job).state is JobState.CANCELED
    page.locator("#verdict .badge", has_text="CANCELED").wait_for()  # without reloading

    press(page, "Resubmit", said="Submitted again")
    assert store.jobs.get(job).state is JobState.PENDING
    store.jobs.cancel(job, "test")


def test_a_question_answered_with_no_changes_nothing(page, line, store):
    job = line.job(slices=8)
    page.goto(f"/jobs/{job}")
    press(page, "Cancel")
    page.keyboard.press("Escape")
    page.locator("#confirm").wait_for(state="hidden")
    assert store.jobs.get(job).state is JobState.PENDING
    store.jobs.cancel(job, "test")


def test_held_series_are_released_and_discarded(page, line, store):
    for name, said, state in (
        ("Release", "Released", SeriesState.RECEIVING),
        ("Discard", "Discarded", SeriesState.SKIPPED),
    ):
        series = line.series(slices=8)
        line.close(series, "hold", reason="SLICES_MISSING", message="Slice 3 is missing.")
        page.goto(f"/series/{series}")
        press(page, name, sure=True, said=said)
        assert store.index.get_series(series).state is state


def test_the_line_is_paused_and_resumed_and_the_overview_is_live(page, line, store):
    page.goto("/overview")
    press(page, "Pause", sure=True, said="paused")
    assert store.pauses.all()["intake"]
    press(page, "Resume", said="resumed")
    assert not store.pauses.all()["intake"]

    count = page.locator("#line li", has_text="Failed").locator("b")
    before = int(count.inner_text())
    line.failed(slices=8)
    page.wait_for_function(
        "before => Number([...document.querySelectorAll('#line li')].find(e => /Failed/.test(e.textContent))"
        ".querySelector('b').textContent) > before",
        arg=before,
    )
    press(page, "Test the alerts", said="No channel is configured")


def test_peers_are_asked_by_echo(page, archive, store):
    page.goto("/peers")
    page.locator("article", has_text="ARCHIVE").get_by_role("button", name="Echo").click()
    page.get_by_text("archive answered in").wait_for()
    page.locator("article", has_text="ABSENT").get_by_role("button", name="Echo").click()
    page.get_by_text("absent did not answer").wait_for()
    told = store.listing.events(EventFilter(name="peer.echoed"), limit=2).items
    assert [(event.data["peer"], event.data["answered"]) for event in told] == [
        ("absent", False),
        ("archive", True),
    ]


def test_a_delivery_that_waits_is_sent_now_and_arrives(page, line, store, sender, archive):
    number = line.enhanced(slices=8)
    series = store.index.derived(number)[0].series_instance_uid
    (delivery,) = [job for job in store.jobs.list(parent_id=number) if job.kind is JobKind.DELIVER]
    claimed = line.claim(JobKind.DELIVER, "archive")
    while claimed.id != delivery.id:  # what other tests left to be sent
        claimed = line.claim(JobKind.DELIVER, "archive")
    later = datetime.now(UTC) + timedelta(days=1)
    store.jobs.fail(claimed, reason="PEER_UNREACHABLE", message="The peer is not there.", retry_at=later)
    page.goto(f"/jobs/{delivery.id}")
    press(page, "Deliver now", said="due now")
    sender.drain("archive")

    assert archive.instances(series) == 8
    assert {found.state for found in store.deliveries.list(job_id=delivery.id)} == {DeliveryState.DELIVERED}
    page.locator("#instances .badge", has_text="DELIVERED").first.wait_for()


def test_stored_and_derived_series_are_sent_to_a_peer(page, line, store, sender, archive):
    number = line.enhanced(destination="absent", slices=8)
    job = store.jobs.get(number)
    received = store.index.get_series(job.series_id).series_instance_uid
    derived = store.index.derived(number)[0].series_instance_uid
    page.goto(f"/series/{job.series_id}")
    press(page, "Send there", said="Queued")
    page.goto(f"/jobs/{number}")
    press(page, "Send there", said="Queued")
    sender.drain("archive")

    assert (archive.instances(received), archive.instances(derived)) == (8, 8)


def test_waiting_deliveries_of_a_peer_are_all_made_due(page, line, store):
    number = line.enhanced(destination="absent", slices=8)
    claimed = line.claim(JobKind.DELIVER, "absent")
    later = datetime.now(UTC) + timedelta(days=1)
    store.jobs.fail(claimed, reason="PEER_UNREACHABLE", message="The peer is not there.", retry_at=later)
    page.goto("/peers")
    page.locator("article", has_text="ABSENT").get_by_role("button", name="Deliver waiting now").click()
    page.get_by_text("Deliveries are due now.").wait_for()
    assert store.jobs.get(claimed.id).not_before < later
    assert store.jobs.get(number).state is JobState.SUCCEEDED


def test_lists_are_filtered_and_paged(page, line, store):
    failed = line.failed(slices=8, calling="FILTERED")
    page.goto("/jobs?calling_ae=FILTERED")
    page.get_by_label("failed").check()
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**state=FAILED**")
    assert page.locator("#list tbody tr").count() == 1
    assert page.locator("#list").get_by_role("link", name=str(failed), exact=True).is_visible()

    page.goto("/jobs")
    page.keyboard.press("/")
    page.keyboard.type("1.2.3.not-there")
    page.keyboard.press("Enter")
    page.get_by_text("No job matches.").wait_for()

    newest = store.jobs.list(limit=1)[0].id
    page.goto(f"/jobs?after={newest}")
    assert page.locator("#list tbody tr td").first.inner_text() == str(newest - 1)
    page.get_by_role("link", name="Newest").click()
    page.wait_for_url("**/jobs?")


def test_who_is_on_the_images_is_shown_once_asked_for_and_told(page, numbers, store):
    page.goto(f"/series/{numbers['series']}")
    assert "PHANTOM^HEAD" not in page.content()
    press(page, "Show patient", sure=True)
    page.locator("#patient").get_by_text("PHANTOM^HEAD").wait_for()
    (told,) = store.listing.events(
        EventFilter(name="instances.viewed", series_id=numbers["series"]), limit=1
    ).items
    assert told.data["revealed"] is True


def test_why_not_tells_the_story_of_any_number(page, numbers, store):
    page.goto("/why")
    instance = store.index.instances(numbers["held"])[3].sop_instance_uid
    page.get_by_role("searchbox").fill(instance)
    page.get_by_role("button", name="Tell me").click()
    page.get_by_text("Held for a person: Slice 7 of 12 is missing.").wait_for()
    assert page.get_by_text("matches and takes it").is_visible()

    page.get_by_role("searchbox").fill("1.2.3.4.5")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Nothing here bears this number").wait_for()
