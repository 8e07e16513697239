"""A series goes from a real PACS or scanner through the node and comes back; everything is compared."""

from __future__ import annotations

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from dicom_node.demo.bench import RunningNode
from dicom_node.imaging.derivation import DerivationPolicy
from dicom_node.imaging.verify import verify_series
from dicom_node.operations import SeriesStory
from storage.states import DeliveryState, JobKind, JobState
from storage.store import open_store

LIMIT = timedelta(minutes=8)


def series_uid(paths: list[Path]) -> str:
    return str(dcmread(paths[0], stop_before_pixels=True).SeriesInstanceUID)


@pytest.fixture(autouse=True)
def clean_pacs(orthanc: Any) -> None:
    """Start each test with no trace of the test series in the PACS."""
    if orthanc.url.startswith("http://127.0.0.1"):
        for study in orthanc.get("/studies"):
            orthanc.raw("DELETE", f"/studies/{study}")


@pytest.mark.timeout(900)
def test_orthanc_pushes_a_series_and_gets_the_derived_one_back(
    orthanc: Any, node: RunningNode, source: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    orthanc.upload(source)
    (series,) = orthanc.find("Series", SeriesInstanceUID=series_uid(source))

    orthanc.post("/modalities/enhance/store", {"Resources": [series], "Synchronous": True, "Timeout": 120})

    story = node.await_end(series_uid(source), LIMIT)
    assert_delivered(story, len(source))
    with capsys.disabled():
        print(timing("Orthanc", story, len(source)))
    assert_the_pacs_shows_both_series_in_one_study(orthanc, node, source, story, tmp_path)


@pytest.mark.timeout(900)
def test_storescu_is_the_scanner_and_orthanc_the_destination(
    orthanc: Any, node: RunningNode, source: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = shutil.which("storescu")
    if program is None:
        pytest.skip("DCMTK is not installed (apt-get install dcmtk)")
    orthanc.upload(source)

    sent = subprocess.run(
        [
            program,
            "-aet",
            "SCANNER",
            "-aec",
            "ENHANCE",
            "+sd",
            node.peer.host,
            str(node.peer.port),
            source[0].parent,
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert sent.returncode == 0, sent.stderr[-500:]
    story = node.await_end(series_uid(source), LIMIT)
    assert_delivered(story, len(source))
    with capsys.disabled():
        print(timing("storescu", story, len(source)))
    assert_the_pacs_shows_both_series_in_one_study(orthanc, node, source, story, tmp_path)


def assert_delivered(story: SeriesStory, slices: int) -> None:
    assert [(job.kind, job.state) for job in sorted(story.jobs, key=lambda job: job.id)] == [
        (JobKind.ENHANCE, JobState.SUCCEEDED),
        (JobKind.DELIVER, JobState.SUCCEEDED),
    ], story.verdict
    assert [delivery.state for delivery in story.deliveries] == [DeliveryState.DELIVERED] * slices


def assert_the_pacs_shows_both_series_in_one_study(
    orthanc: Any, node: RunningNode, source: list[Path], story: SeriesStory, tmp_path: Path
) -> None:
    (study,) = orthanc.find("Study", StudyInstanceUID=story.series.study_instance_uid)
    assert len(orthanc.get(f"/studies/{study}")["Series"]) == 2
    (before,) = orthanc.find("Series", SeriesInstanceUID=series_uid(source))
    (after,) = [series for series in orthanc.get(f"/studies/{study}")["Series"] if series != before]
    assert len(orthanc.get(f"/series/{after}")["Instances"]) == len(source)
    assert slice_order(orthanc, after) == slice_order(orthanc, before)

    derived = orthanc.download_series(after, tmp_path / "derived")
    assert_stored_byte_for_byte(node, story, derived)
    report = verify_series(
        source, derived, policy=DerivationPolicy(**node.settings.derivation.model_dump(mode="json"))
    )
    assert report.passed, [check for check in report.checks if not check.passed]
    assert_no_new_validator_message(source, derived)


def slice_order(orthanc: Any, series: str) -> list[int]:
    """Instance numbers in the order in which Orthanc stacks the slices."""
    ordered = orthanc.get(f"/series/{series}/ordered-slices")
    assert ordered["Type"] == "Volume"
    numbers = []
    for path in ordered["Dicom"]:
        instance = path.split("/")[2]
        numbers.append(int(orthanc.get(f"/instances/{instance}/simplified-tags")["InstanceNumber"]))
    return numbers


def assert_stored_byte_for_byte(node: RunningNode, story: SeriesStory, received: list[Path]) -> None:
    """Tags and pixels at the PACS equal what the node committed."""
    storage = node.settings.storage
    store = open_store(storage.resolved_database_url, storage.directory)
    try:
        job = next(job for job in story.jobs if job.kind is JobKind.DELIVER)
        committed = {
            derived.sop_instance_uid: derived.path for _, derived in store.deliveries.for_job(job.id)
        }
    finally:
        store.close()
    at_pacs = {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID): path for path in received}
    assert set(at_pacs) == set(committed)
    for uid, path in at_pacs.items():
        assert dcmread(path) == dcmread(committed[uid])


def assert_no_new_validator_message(source: list[Path], derived: list[Path]) -> None:
    """dciodvfy says nothing about any derived slice that it does not say about the slice it came from."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy is not installed (apt-get install dicom3tools)")
    with ThreadPoolExecutor(2) as pool:
        known = dict(zip(map(uid_of, source), pool.map(messages, source), strict=True))
        said = list(pool.map(messages, derived))
    for path, lines in zip(derived, said, strict=True):
        origin = str(dcmread(path, stop_before_pixels=True).SourceImageSequence[0].ReferencedSOPInstanceUID)
        assert lines - known[origin] == set()


def uid_of(path: Path) -> str:
    return str(dcmread(path, stop_before_pixels=True).SOPInstanceUID)


def messages(path: Path) -> set[str]:
    """dciodvfy's messages without values and item numbers, so that only their kind counts."""
    done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, check=False)
    lines = done.stderr.decode(errors="replace").splitlines()
    return {
        re.sub(r"<[^>]*>|\[\d+\]|=.*", "", line) for line in lines if line.startswith(("Error", "Warning"))
    }


def timing(scanner: str, story: SeriesStory, slices: int) -> str:
    """Wall time from the last C-STORE to the last delivered instance, by stage."""
    received = story.series.last_received_at
    enhance, deliver = sorted(story.jobs, key=lambda job: job.id)
    assert story.series.closed_at is not None
    assert enhance.finished_at is not None
    last = max(delivery.updated_at for delivery in story.deliveries)
    stages = {"quiet": (story.series.closed_at - received).total_seconds()}
    seconds = dict(enhance.result["seconds"])
    busy = sum(seconds.values())
    stages["queue"] = max(0.0, (enhance.finished_at - story.series.closed_at).total_seconds() - busy)
    stages |= {name.lower(): value for name, value in seconds.items()}
    stages["hand over"] = max(
        0.0, (last - enhance.finished_at).total_seconds() - deliver.result["seconds"]["SEND"]
    )
    stages["send"] = deliver.result["seconds"]["SEND"]
    words = ", ".join(f"{name} {value:.1f}" for name, value in stages.items())
    total = (last - received).total_seconds()
    head = f"{scanner}, {story.series.modality} {slices} slices"
    return f"\n{head}: {total:.1f} s from last C-STORE to last delivery ({words})"
