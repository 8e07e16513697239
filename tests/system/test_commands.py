"""The commands an administrator uses, against a node that has done some work."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.demo.archive import Archive
from dicom_node.demo.bench import RunningNode
from dicom_node.imaging.phantom_series import write_ct_series
from dicom_node.operations import send_folder
from engine.phantom import head_phantom
from storage.states import SeriesState
from tests.nursery import dicom_node
from tests.sites import Site

LIMIT = timedelta(seconds=120)


def command(node: RunningNode, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return dicom_node(*arguments, "--config", node.config)


@pytest.fixture(scope="module")
def done(shared_site: Site, series: list[Path]) -> tuple[RunningNode, Archive, str]:
    """A node that has enhanced and delivered one series; its tests run in order and add to what is there."""
    node, archive = shared_site.node, shared_site.archive
    send_folder(node.peer, series[0].parent, lambda _uid, _status, _comment: True)
    uid = str(dcmread(series[0], stop_before_pixels=True).SeriesInstanceUID)
    node.await_end(uid, LIMIT)
    return node, archive, uid


def test_the_story_of_a_series_is_told(done: tuple[RunningNode, Archive, str], series: list[Path]) -> None:
    node, archive, uid = done

    told = command(node, "series", "show", uid)
    assert told.returncode == 0, told.stderr
    assert "Enhanced and delivered." in told.stdout
    assert f"archive: {len(series)} delivered" in told.stdout
    assert "series.closed" in told.stdout

    story = json.loads(command(node, "series", "show", uid, "--json").stdout)
    assert story["series"]["state"] == "STABLE"
    assert story["deliveries"] == {"archive": {"DELIVERED": len(series)}}
    assert [job["state"] for job in story["jobs"]] == ["SUCCEEDED", "SUCCEEDED"]

    jobs = json.loads(command(node, "jobs", "list", "--json").stdout)
    assert {job["kind"] for job in jobs} == {"ENHANCE", "DELIVER"}
    enhance = next(job["id"] for job in jobs if job["kind"] == "ENHANCE")
    shown = json.loads(command(node, "jobs", "show", str(enhance), "--json").stdout)
    assert {"READ", "ENHANCE", "GUARD", "DERIVE", "VERIFY"} <= set(shown["job"]["result"]["seconds"])
    assert "manifest.committed" in [event["name"] for event in shown["events"]]

    deliveries = json.loads(command(node, "deliveries", "list", "--json").stdout)
    assert [delivery["status"] for delivery in deliveries] == [0] * len(series)

    derived = archive.folder(archive.series()[0])
    verified = command(node, "verify", series[0].parent, derived)
    assert verified.returncode == 0, verified.stdout
    swapped = command(node, "verify", derived, series[0].parent)
    assert swapped.returncode == 1
    assert "FAIL" in swapped.stdout


def test_a_resubmitted_job_makes_a_second_derived_series_under_new_uids(
    done: tuple[RunningNode, Archive, str], series: list[Path]
) -> None:
    node, archive, uid = done
    jobs = json.loads(command(node, "jobs", "list", "--json").stdout)
    enhance = next(job["id"] for job in jobs if job["kind"] == "ENHANCE")
    before = set(archive.series())

    assert command(node, "jobs", "resubmit", str(enhance)).returncode == 0

    node.wait_for(lambda: len(archive.series()) > len(before), LIMIT, "a second derived series")
    story = node.await_end(uid, LIMIT)
    assert len(story.jobs) == 4
    (again,) = set(archive.series()) - before
    assert archive.instances(again) == len(series)
    assert all(len(digests) == 1 for digests in archive.contents.values())


def test_echo_and_send_talk_to_a_peer(done: tuple[RunningNode, Archive, str], series: list[Path]) -> None:
    node, archive, uid = done

    echoed = command(node, "echo", "archive")
    assert echoed.returncode == 0
    assert "0x0000" in echoed.stdout

    sent = command(node, "send", series[0].parent, "--to", "archive")
    assert sent.returncode == 0, sent.stderr
    assert f"{len(series)} of {len(series)} instances stored." in sent.stdout
    assert archive.instances(uid) == len(series)


def test_routes_test_names_the_clause_that_failed(
    start_node: Callable[..., RunningNode], series: list[Path]
) -> None:
    node = start_node(run=False)
    text = node.config.read_text().replace(
        "routes:\n",
        "routes:\n  - {name: mr-only, when: {modality: MR}, send_to: [archive]}\n",
    )
    node.config.write_text(text)

    tested = command(node, "routes", "test", series[0].parent, "--json")

    (answer,) = json.loads(tested.stdout)
    assert (answer["route"], answer["action"]) == ("all", "enhance")
    (rejected,) = answer["rejected"]
    assert rejected["route"] == "mr-only"
    assert "CT" in rejected["clause"]


def test_series_that_are_not_enhanced_say_why(
    site: Site,
    series: list[Path],
    tmp_path: Path,
) -> None:
    node = site.node
    expected = {
        _variant(series, tmp_path / "scout", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]): "LOCALIZER",
        _variant(series, tmp_path / "map", ImageType=["DERIVED", "PRIMARY", "MIP"]): "NOT_SOURCE_IMAGE",
        _variant(series, tmp_path / "text", BurnedInAnnotation="YES"): "BURNED_IN",
        _variant(series, tmp_path / "modality", Modality="PT"): "NO_ROUTE",
        _short(tmp_path / "short"): "TOO_FEW_SLICES",
    }
    for folder in ("scout", "map", "text", "modality", "short"):
        send_folder(node.peer, tmp_path / folder, lambda _uid, _status, _comment: True)

    for uid, reason in expected.items():
        story = node.await_end(uid, LIMIT)
        assert (story.series.state, story.series.reason) == (SeriesState.SKIPPED, reason)
        assert story.verdict.startswith("Not enhanced: ")
        assert story.jobs == ()
    assert site.derived() == []


def test_a_route_can_name_the_diffusion_model_and_the_derived_objects_name_it_too(
    start_node: Callable[..., RunningNode], start_archive: Callable[..., Archive], series: list[Path]
) -> None:
    archive, node = start_archive(), start_node(run=False)
    text = node.config.read_text()
    model = "action: enhance, enhancement: {enhancer: ddpm3d-ctmr-1}, send_to"
    node.config.write_text(text.replace("action: enhance, send_to", model))
    node.start()

    send_folder(node.peer, series[0].parent, lambda _uid, _status, _comment: True)

    uid = str(dcmread(series[0], stop_before_pixels=True).SeriesInstanceUID)
    story = node.await_end(uid, LIMIT)
    assert story.verdict == "Enhanced and delivered."
    (derived,) = archive.series()
    assert archive.instances(derived) == len(series)
    written = dcmread(next(archive.folder(derived).iterdir()), stop_before_pixels=True)
    assert "ddpm3d-ctmr-1" in written.DerivationDescription


def test_what_the_node_made_is_not_enhanced_again(done: tuple[RunningNode, Archive, str]) -> None:
    node, archive, uid = done
    derived = next(series_uid for series_uid in archive.series() if series_uid != uid)

    send_folder(node.peer, archive.folder(derived), lambda _uid, _status, _comment: True)

    story = node.await_end(derived, LIMIT)
    assert (story.series.state, story.series.reason) == (SeriesState.SKIPPED, "ALREADY_PROCESSED")


def _variant(series: list[Path], folder: Path, **changes: object) -> str:
    """Write the series again under other UIDs with some attributes changed; returns its Series Instance UID."""
    folder.mkdir()
    for path in series:
        ds = dcmread(path)
        for keyword, value in changes.items():
            setattr(ds, keyword, value)
        ds.SeriesInstanceUID += f".{len(folder.name)}"
        ds.SOPInstanceUID += f".{len(folder.name)}"
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.save_as(folder / path.name)
    return str(ds.SeriesInstanceUID)


def _short(folder: Path) -> str:
    """Write a series of five slices; returns its Series Instance UID."""
    paths = write_ct_series(head_phantom(shape=(5, 64, 64), spacing_mm=(3.0, 3.6, 3.6)), folder, seed=11)
    return str(dcmread(paths[0], stop_before_pixels=True).SeriesInstanceUID)
