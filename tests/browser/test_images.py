"""The viewer by wheel, keys and pointer, and the readers' verdicts."""

from __future__ import annotations

import pytest

from dicom_node.desk.roles import Role
from storage.reviews import Verdict


@pytest.fixture
def viewer(browser, numbers):
    """The viewer of a finished job, with the addresses of the images it asked for."""
    page = browser.page(Role.OPERATOR, "/reviews")
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(f"/jobs/{numbers['job']}/view")
    at(page, 6)
    yield page
    page.close()


def at(page, place: int) -> None:
    """Wait until every pane shows this slice, counted from 0."""
    page.wait_for_selector(f"#viewer[data-ready='{place}']")


def test_slices_are_scrolled_by_wheel_keys_and_slider(viewer):
    viewer.locator(".pane").first.hover()
    viewer.mouse.wheel(0, 100)
    viewer.wait_for_function("Number(document.querySelector('#viewer').dataset.ready) > 6")
    viewer.locator("#viewer").press("Home")
    at(viewer, 0)
    for key, place in (("ArrowDown", 1), ("PageDown", 11), ("ArrowUp", 10), ("End", 11), ("PageUp", 1)):
        viewer.locator("#viewer").press(key)
        at(viewer, place)
    viewer.locator("#slice").fill("5")
    at(viewer, 5)
    assert viewer.locator("#place").inner_text() == "6 / 12"
    layers = {url.split("/")[-2] for url in viewer.asked if ".png" in url}
    assert layers == {"source", "derived", "difference"}


def asked(viewer, address: str) -> None:
    """Wait until the page has asked for an image."""
    for _ in range(200):
        if any(address in url for url in viewer.asked):
            return
        viewer.wait_for_timeout(50)
    raise AssertionError(f"{address} was not asked for")


def test_the_window_is_one_for_source_and_derived(viewer):
    viewer.locator("#viewer").press("3")
    viewer.wait_for_function("document.querySelector('#width').value === '1800'")
    viewer.get_by_role("button", name="brain").click()
    viewer.wait_for_function("document.querySelector('#width').value === '80'")
    at(viewer, 6)
    for layer in ("source", "derived"):
        asked(viewer, f"/{layer}/6.png?centre=40&width=80")
    viewer.locator("#width").fill("250")
    viewer.locator("#width").press("Enter")
    box = viewer.locator(".pane").first.bounding_box()
    viewer.mouse.move(box["x"] + 100, box["y"] + 100)
    viewer.mouse.down()
    viewer.mouse.move(box["x"] + 200, box["y"] + 100, steps=4)
    viewer.mouse.up()
    viewer.wait_for_function("Number(document.querySelector('#width').value) > 300")


def test_zoom_blink_and_layers_change_what_is_drawn(viewer):
    def drawn() -> str:
        return viewer.evaluate("document.querySelector('.pane canvas').toDataURL()")

    plain = drawn()
    viewer.get_by_role("button", name="Larger").click()
    assert drawn() != plain
    viewer.locator("#viewer").press("0")
    assert drawn() == plain
    viewer.locator("#viewer").press("b")
    viewer.wait_for_function(
        "before => document.querySelector('.pane canvas').toDataURL() !== before", arg=plain
    )
    assert viewer.locator(".pane").first.get_by_text("derived").is_visible()
    viewer.get_by_role("button", name="Blink").click()
    viewer.get_by_role("button", name="difference").click()
    assert viewer.locator(".pane").count() == 2


def test_the_figures_stand_beside_the_images(viewer):
    viewer.locator("#spectrum polyline.derived").wait_for(state="attached")
    figures = viewer.locator("#quality-figures").inner_text()
    assert "25 HU" in figures
    assert "6 HU" in figures


def test_a_verdict_is_kept_and_counted(viewer, numbers, store):
    viewer.get_by_label("Approve").check()
    viewer.get_by_label("Comment").fill("Crisp <b>edges</b>.")
    viewer.get_by_role("button", name="Keep my verdict").click()
    viewer.locator("#said").get_by_text("Your verdict is kept.").wait_for()
    (kept,) = store.reviews.of_job(numbers["job"])
    assert (kept.verdict, kept.blinded, kept.comment) == (Verdict.APPROVE, False, "Crisp <b>edges</b>.")

    viewer.goto("/overview")
    assert "100 %" in viewer.locator("#rates").inner_text()
    viewer.goto("/reviews")
    with viewer.expect_download() as started:
        viewer.get_by_role("link", name="Export as CSV").click()
    assert "Crisp <b>edges</b>." in started.value.path().read_text()


def test_a_blinded_reader_is_not_told_which_is_which(viewer, numbers, store):
    viewer.get_by_role("link", name="Judge blinded").click()
    viewer.wait_for_url("**blinded=1")
    at(viewer, 6)
    text = viewer.locator("#viewer").inner_text().lower()
    assert "left" in text
    assert "derived" not in text
    assert viewer.locator("#quality").count() == 0
    viewer.get_by_label("No difference").check()
    viewer.get_by_role("button", name="Keep my verdict").click()
    viewer.locator("#said").get_by_text("Your verdict is kept.").wait_for()
    (kept,) = store.reviews.of_job(numbers["job"])
    assert kept.blinded
    assert kept.derived_side in ("left", "right")
