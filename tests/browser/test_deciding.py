"""Routes, people, keys and uploads: what is decided on a page is in force in the database."""

from __future__ import annotations

import re
import zipfile

import pytest
from pydicom import dcmread

from dicom_node.desk.roles import Role
from dicom_node.imaging.phantom_series import PhantomStyle, write_ct_series
from engine.phantom import head_phantom
from storage.filters import EventFilter
from storage.states import SeriesState

DRAFT = """\
routes:
  - name: thick-only
    when: {modality: CT, slice_count: {at_least: 500}}
    send_to: [archive]
"""


@pytest.fixture
def page(browser):
    opened = browser.page(Role.ADMIN, "/routes")
    yield opened
    opened.close()


def say_yes(page) -> None:
    page.locator("#confirm").get_by_role("button", name="Yes").click()


def test_a_draft_is_checked_tried_replayed_applied_and_taken_back(browser, page, numbers, store):
    text = page.get_by_label("Routes as text")
    text.fill(DRAFT.replace("archive", "nowhere"))
    with browser.expecting_complaints("422"):
        page.get_by_role("button", name="Check").click()
        page.locator("#draft-alert").get_by_text("nowhere").wait_for()
    text.fill(DRAFT)
    page.get_by_role("button", name="Check").click()
    page.get_by_text("The draft is sound.").wait_for()

    page.get_by_label("Series").fill(str(numbers["series"]))
    page.get_by_role("button", name="Dry run").click()
    page.get_by_text("would be taken by no route").wait_for()
    page.get_by_role("button", name="Replay").click()
    page.locator("#draft-result").get_by_text("lost").first.wait_for()
    assert page.locator("#draft-result").get_by_role("link", name=f"Series {numbers['series']}").is_visible()

    page.get_by_label("What changes, and why").fill("only <i>thick</i> series")
    page.get_by_role("button", name="Apply").click()
    say_yes(page)
    page.get_by_text("is in force.").wait_for()
    version = store.route_versions.latest()
    assert (version.author, version.comment) == ("user:admin-1", "only <i>thick</i> series")
    assert page.locator("#in-force").get_by_text("thick-only").is_visible()

    page.get_by_role("button", name="Back to the configuration file").click()
    say_yes(page)
    page.get_by_text("The configuration file counts again.").wait_for()
    assert store.route_versions.latest().text is None
    page.get_by_role("button", name="Roll back").click()
    say_yes(page)
    page.get_by_text(f"Rolled back to version {version.id}.").wait_for()
    assert store.route_versions.latest().restored_from == version.id
    page.get_by_role("button", name="Back to the configuration file").click()
    say_yes(page)
    page.get_by_text("The configuration file counts again.").wait_for()


def test_a_model_is_tried_compared_and_promoted_or_dropped(browser, page, numbers, store):
    def begin(name: str) -> None:
        page.goto("/models")
        page.get_by_label("Model").select_option(name)
        page.get_by_role("button", name="Begin").click()
        page.locator("#in-use").get_by_text(f"{name}, since").wait_for()

    begin("identity")
    trial = store.shadow.running()
    assert (trial.enhancer, trial.started_by) == ("identity", "user:admin-1")
    primary = {"noise_before": 25.0, "noise_after": 6.0, "bias": 0.12, "seconds": 13.0}
    store.shadow.record(trial, numbers["job"], primary, {**primary, "noise_after": 3.0, "seconds": 26.0})
    page.reload()
    row = page.locator("#comparison tr", has_text="Noise after").first
    assert row.locator("td").all_inner_texts() == ["Noise after", "6", "3", "-50 %"]
    assert page.locator("#comparison").get_by_role("link", name=f"Job {numbers['job']}").is_visible()

    page.get_by_role("button", name="Promote").click()
    say_yes(page)
    page.locator("#comparison").get_by_text("PROMOTED").wait_for()
    assert store.shadow.promoted() == "identity"
    page.get_by_role("button", name="Withdraw").click()
    say_yes(page)
    page.locator("#comparison").get_by_text("WITHDRAWN").wait_for()
    assert store.shadow.promoted() is None

    begin("classical")
    page.get_by_role("button", name="Drop").click()
    say_yes(page)
    page.locator("#comparison").get_by_text("DROPPED").wait_for()
    assert store.shadow.running() is None
    told = store.listing.events(EventFilter(name="shadow."), limit=5).items
    assert [event.name for event in told] == [
        "shadow.dropped", "shadow.started", "shadow.withdrawn", "shadow.promoted", "shadow.started"
    ]  # fmt: skip
    assert {event.data["actor"] for event in told} == {"user:admin-1"}


def test_users_are_added_changed_locked_out_and_removed(browser, page, store):
    page.goto("/people")
    new = page.locator("section", has=page.get_by_role("heading", name="New user"))
    new.get_by_label("Name").fill("reader")
    new.get_by_label("Password").fill("short")
    new.get_by_role("button", name="Add").click()
    assert store.access.find_user("reader") is None  # the browser itself says that it is too short
    new.get_by_label("Password").fill("a password of some length")
    new.get_by_role("button", name="Add").click()
    row = page.locator("#users tr", has_text="reader")
    row.wait_for()
    assert store.access.find_user("reader").role == Role.VIEWER

    row.get_by_label("Role of reader").select_option("operator")
    row.get_by_role("button", name="Set").click()
    page.get_by_text("The role is changed.").wait_for()
    assert store.access.find_user("reader").role == Role.OPERATOR
    before = store.access.find_user("reader").password_hash
    other = page.locator("section", has=page.get_by_role("heading", name="New password for a user"))
    page.reload()
    other.get_by_label("User").select_option("reader")
    other.get_by_label("Password").fill("another password of length")
    other.get_by_role("button", name="Set it").click()
    page.get_by_text("The password is set").wait_for()
    assert store.access.find_user("reader").password_hash != before

    row.get_by_role("button", name="Lock out").click()
    row.get_by_text("LOCKED OUT").wait_for()
    assert store.access.find_user("reader").disabled
    row.get_by_role("button", name="Let in").click()
    row.get_by_role("button", name="Lock out").wait_for()
    row.get_by_role("button", name="Remove").click()
    say_yes(page)
    row.wait_for(state="detached")
    assert store.access.find_user("reader") is None


def test_a_key_is_made_shown_once_and_revoked(browser, page, store):
    page.goto("/account")
    form = page.locator("form", has=page.get_by_role("button", name="Make the key"))
    form.get_by_label("Name").fill("dashboard")
    form.get_by_label("metrics").check()
    form.get_by_role("button", name="Make the key").click()
    page.get_by_text("Copy the key now").wait_for()
    assert form.locator("output").inner_text().startswith("dn_")
    (token,) = store.access.tokens("admin-1")
    assert set(token.scopes) == {"read", "metrics"}

    page.reload()
    assert "dn_" not in page.content()
    page.locator("#keys").get_by_role("button", name="Revoke").click()
    say_yes(page)
    page.locator("#keys").get_by_text("REVOKED").wait_for()
    assert store.access.tokens("admin-1")[0].revoked_at is not None


def test_a_password_is_changed_and_the_old_one_opens_nothing(browser, store):
    person = browser.person(Role.OPERATOR)
    page = browser.page(None, "/login")
    page.get_by_label("Name").fill(person)
    page.get_by_label("Password").fill(browser.password)
    page.keyboard.press("Enter")
    page.wait_for_url("**/overview")
    for old, new in (
        (browser.password, "quite another password"),
        ("quite another password", browser.password),
    ):
        page.goto("/account")
        page.get_by_label("Old password").fill(old)
        page.get_by_label("New password").fill(new)
        page.get_by_role("button", name="Change it").click()
        page.wait_for_url("**/login")
        page.get_by_label("Name").fill(person)
        page.get_by_label("Password").fill(new)
        page.keyboard.press("Enter")
        page.wait_for_url("**/overview")
    page.context.close()
    browser.forget(Role.OPERATOR)


def test_an_upload_comes_in_like_a_series_that_was_sent(browser, page, store, tmp_path):
    volume = head_phantom(shape=(4, 32, 32), spacing_mm=(3.0, 6.0, 6.0))
    plain = write_ct_series(volume, tmp_path / "plain", style=PhantomStyle(study_key="upload-1"))
    zipped = write_ct_series(volume, tmp_path / "zipped", style=PhantomStyle(study_key="upload-2"))
    archive, note = tmp_path / "series.zip", tmp_path / "note.txt"
    note.write_text("no DICOM at all")
    with zipfile.ZipFile(archive, "w") as packed:
        for path in zipped:
            packed.write(path, path.name)
    page.goto("/upload")
    page.locator("#files").set_input_files([*plain, note, archive])
    page.get_by_role("heading", name="Brought, and on its way through the line").wait_for()

    assert "8 images stored, 1 skipped" in page.locator("#told").inner_text()
    links = page.locator("#upload-result a")
    assert links.count() == 2
    for index in range(2):
        series = store.index.get_series(int(links.nth(index).inner_text().split()[1]))
        assert (series.calling_ae, series.instance_count) == ("UPLOAD", 4)


def dropped(page, target, *paths) -> None:
    """Drop files and folders from outside the browser, as a hand with a mouse does."""
    box = target.bounding_box()
    at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    browser = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        browser.send("Input.dispatchDragEvent", {"type": kind, **at, "data": data})
    browser.detach()


def test_an_upload_that_is_stopped_keeps_what_came_and_counts_as_interrupted(browser, page, store, tmp_path):
    volume = head_phantom(shape=(150, 32, 32), spacing_mm=(1.0, 6.0, 6.0))
    paths = write_ct_series(volume, tmp_path / "exam", style=PhantomStyle(study_key="stopped"))
    uid = str(dcmread(paths[0], stop_before_pixels=True).SeriesInstanceUID)
    page.goto("/upload")
    slow = {"offline": False, "latency": 100, "downloadThroughput": -1, "uploadThroughput": -1}
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", slow)

    page.locator("#files").set_input_files(paths)
    page.locator("#told").filter(has_text=re.compile(r"^[1-9]\d* of 150 files")).wait_for()
    page.locator("#stop").click()
    page.get_by_text("Stopped. What was stored stays").wait_for()

    found = next((s for s in store.index.list_series() if s.series_instance_uid == uid), None)
    assert found is not None
    assert 0 < found.instance_count < len(paths)
    assert found.state is SeriesState.RECEIVING
    for _ in range(50):  # the page tells the node after it has told the person
        if store.index.get_series(found.id).interrupted:
            break
        page.wait_for_timeout(100)
    assert store.index.get_series(found.id).interrupted


@pytest.mark.parametrize("way", ["chosen", "dropped"])
def test_a_folder_is_brought_with_all_that_lies_in_it(browser, page, store, tmp_path, way):
    volume = head_phantom(shape=(4, 32, 32), spacing_mm=(3.0, 6.0, 6.0))
    folder = tmp_path / "exam"
    write_ct_series(volume, folder / "a", style=PhantomStyle(study_key=f"{way}-1"))
    write_ct_series(volume, folder / "b" / "deep", style=PhantomStyle(study_key=f"{way}-2"))
    (folder / "README.TXT").write_text("no DICOM at all")
    page.goto("/upload")
    if way == "chosen":
        page.locator("#folder").set_input_files(folder)
    else:
        dropped(page, page.locator("#drop"), folder)
    page.get_by_role("heading", name="Brought, and on its way through the line").wait_for()

    assert "8 images stored, 1 skipped" in page.locator("#told").inner_text()
    links = page.locator("#upload-result a").all_inner_texts()
    found = [store.index.get_series(int(link.split()[1])) for link in links]
    assert [(series.calling_ae, series.instance_count) for series in found] == [("UPLOAD", 4)] * 2


def test_the_colour_scheme_is_chosen_and_kept(browser, page):
    button = page.locator("#theme")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for name, scheme in (("Light", "light"), ("Dark", "dark")):
        button.click()
        assert button.inner_text() == name
        page.reload()
        assert page.evaluate("document.documentElement.dataset.theme") == scheme
    button.click()
    assert button.inner_text() == "Auto"
