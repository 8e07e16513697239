"""The whole line with real processes: resend, outage, full disk, conflicts, patient data, a clean stop."""

from __future__ import annotations

import os
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydicom import dcmread

from dicom_node.demo.archive import Archive
from dicom_node.demo.bench import RunningNode, is_over
from dicom_node.network import scu
from dicom_node.observability import events
from storage.states import JobKind, JobState, SeriesState
from tests.disks import small_disk as small_disk_at
from tests.sites import Site

LIMIT = timedelta(seconds=120)
StartNode = Callable[..., RunningNode]
StartArchive = Callable[..., Archive]
NewSeries = Callable[[], list[Path]]


def series_uid(paths: list[Path]) -> str:
    return str(dcmread(paths[0], stop_before_pixels=True).SeriesInstanceUID)


def send(node: RunningNode, paths: list[Path]) -> list[int]:
    statuses: list[int] = []

    def on_result(_uid: str, status: int, _comment: str) -> bool:
        statuses.append(status)
        return True

    scu.send(node.peer, [scu.outgoing(path) for path in paths], on_result)
    return statuses


def test_an_identical_resend_is_answered_with_success_and_makes_no_new_work(
    site: Site, new_series: NewSeries
) -> None:
    node, series = site.node, new_series()
    assert set(send(node, series)) == {0x0000}
    first = node.await_end(series_uid(series), LIMIT)

    assert set(send(node, series)) == {0x0000}

    again = node.await_end(series_uid(series), LIMIT)
    assert [job.id for job in again.jobs] == [job.id for job in first.jobs]
    assert again.series.generation == first.series.generation
    assert again.series.instance_count == len(series)
    assert len(site.derived()) == 1


def test_the_same_uid_with_other_content_is_kept_beside_the_first_and_holds_the_series(
    site: Site, new_series: NewSeries, tmp_path: Path
) -> None:
    node, series = site.node, new_series()
    changed = dcmread(series[3])
    changed.PixelData = bytes(len(changed.PixelData))
    twin = tmp_path / "twin.dcm"
    changed.save_as(twin)

    assert set(send(node, [*series, twin])) == {0x0000}

    story = node.await_end(series_uid(series), LIMIT)
    assert (story.series.state, story.series.reason) == (SeriesState.HELD, "UID_CONFLICT")
    assert story.series.instance_count == len(series) + 1
    assert site.derived() == []


def test_a_late_instance_opens_the_next_generation(site: Site, new_series: NewSeries) -> None:
    node, series = site.node, new_series()
    send(node, series[:-1])
    node.await_end(series_uid(series), LIMIT)

    send(node, series[-1:])

    story = node.wait_for(
        lambda: _when(node, series, lambda story: len(story.jobs) == 4 and is_over(story)),
        LIMIT,
        "generation two",
    )
    assert story.series.generation == 2
    assert sorted(site.archive.instances(uid) for uid in site.derived()) == [len(series) - 1, len(series)]


def test_a_missing_slice_holds_the_series_until_it_arrives(site: Site, new_series: NewSeries) -> None:
    node, series = site.node, new_series()
    send(node, series[:7] + series[8:])
    held = node.await_end(series_uid(series), LIMIT)
    assert (held.series.state, held.series.reason) == (SeriesState.HELD, "MISSING_SLICE")

    send(node, series[7:8])

    node.wait_for(
        lambda: [site.archive.instances(uid) for uid in site.derived()] == [len(series)], LIMIT, "delivery"
    )
    story = node.await_end(series_uid(series), LIMIT)
    assert (story.series.state, story.series.generation) == (SeriesState.STABLE, 2)


def test_a_pacs_that_was_down_gets_everything_oldest_first_without_help(
    start_node: StartNode, start_archive: StartArchive, new_series: NewSeries
) -> None:
    node = start_node()
    sent = (new_series(), new_series())
    for paths in sent:
        send(node, paths)
        node.wait_for(lambda: _when(node, paths, _waiting_for_delivery), LIMIT, "the derived series")  # noqa: B023
    assert any(node.events(events.DELIVERY_DEFERRED))

    archive = start_archive()

    stories = [node.await_end(series_uid(paths), LIMIT) for paths in sent]
    deliveries = [next(job for job in story.jobs if job.kind is JobKind.DELIVER) for story in stories]
    assert [job.state for job in deliveries] == [JobState.SUCCEEDED, JobState.SUCCEEDED]
    assert deliveries[0].finished_at < deliveries[1].finished_at
    assert sorted(archive.instances(uid) for uid in archive.series()) == [len(paths) for paths in sent]


def test_deliveries_to_a_peer_that_is_switched_off_wait_until_it_is_on(
    start_node: StartNode, start_archive: StartArchive, series: list[Path]
) -> None:
    archive, node = start_archive(), start_node(run=False)
    switched_on = node.config.read_text()
    node.config.write_text(switched_on.replace("ae_title: ARCHIVE,", "ae_title: ARCHIVE, enabled: false,"))
    node.start()
    send(node, series)
    node.wait_for(lambda: _when(node, series, _waiting_for_delivery), LIMIT, "the derived series")
    time.sleep(2)
    story = node.story(series_uid(series))
    assert story is not None
    assert [job.attempts for job in story.jobs if job.kind is JobKind.DELIVER] == [0]
    assert archive.series() == []

    node.stop()
    node.config.write_text(switched_on)
    node.start()

    node.await_end(series_uid(series), LIMIT)
    assert [archive.instances(uid) for uid in archive.series()] == [len(series)]


def test_a_permanent_refusal_ends_at_once_with_the_reason(site: Site, new_series: NewSeries) -> None:
    node, series = site.node, new_series()
    site.answer = lambda _uid: 0xA900
    send(node, series)

    story = node.await_end(series_uid(series), LIMIT)

    delivery = next(job for job in story.jobs if job.kind is JobKind.DELIVER)
    assert (delivery.state, delivery.reason, delivery.attempts) == (JobState.FAILED, "REFUSED_BY_PEER", 1)
    assert "0xA900" in (delivery.message or "")


def test_a_delivery_that_waited_for_as_long_as_allowed_ends_and_says_so(
    start_node: StartNode, series: list[Path]
) -> None:
    node = start_node(run=False)
    text = node.config.read_text()
    node.config.write_text(text.replace("backoff_longest: 2 s", "backoff_longest: 2 s, give_up_after: 4 s"))
    node.start()
    send(node, series)

    story = node.await_end(series_uid(series), LIMIT)

    delivery = next(job for job in story.jobs if job.kind is JobKind.DELIVER)
    assert (delivery.state, delivery.reason) == (JobState.FAILED, "GAVE_UP")
    assert "does not accept connections" in (delivery.message or "")
    assert delivery.attempts > 1


def test_a_busy_pacs_is_asked_again_and_counts_as_delivered_only_when_every_instance_is(
    site: Site, new_series: NewSeries
) -> None:
    seen: list[str] = []

    def busy_once(uid: str) -> int:
        seen.append(uid)
        return 0xA700 if len(seen) == 5 else 0x0000

    node, series = site.node, new_series()
    site.answer = busy_once
    send(node, series)

    story = node.await_end(series_uid(series), LIMIT)

    delivery = next(job for job in story.jobs if job.kind is JobKind.DELIVER)
    assert (delivery.state, delivery.attempts) == (JobState.SUCCEEDED, 2)
    assert [site.archive.instances(uid) for uid in site.derived()] == [len(series)]
    assert len(seen) == len(series) + 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 24 MiB; skipped where mounting is not allowed."""
    with small_disk_at(tmp_path / "disk", mebibytes=24) as mounted:
        if not mounted:
            pytest.skip("no small file system can be mounted here (needs root)")
        yield tmp_path / "disk"


def test_a_full_disk_is_answered_with_a700_and_recovers_without_a_restart(
    start_node: StartNode, start_archive: StartArchive, series: list[Path], small_disk: Path
) -> None:
    archive, node = start_archive(), start_node(directory=small_disk / "node-data", reserve="0 B")
    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:
        free = shutil.disk_usage(small_disk).free
        file.write(bytes(free - 3 * series[0].stat().st_size))
    kept = _files(small_disk)

    statuses = send(node, series)

    assert statuses[0] == 0x0000
    assert set(statuses[-5:]) == {0xA700}
    assert len(_files(small_disk)) == len(kept) + statuses.count(0)

    ballast.unlink()
    assert set(send(node, series)) == {0x0000}
    story = node.await_end(series_uid(series), LIMIT)
    assert story.series.instance_count == len(series)
    assert archive.instances(archive.series()[0]) == len(series)


def test_a_disk_that_stays_full_costs_a_series_time_and_none_of_its_attempts(
    start_node: StartNode, start_archive: StartArchive, series: list[Path], small_disk: Path
) -> None:
    archive, node = start_archive(), start_node(directory=small_disk / "node-data", reserve="0 B")
    ballast, page = small_disk / "ballast", 4096
    size = -(-(series[0].stat().st_size + 1024) // page) * page
    with ballast.open("wb") as file:
        # The series fits, what is made of it does not.
        file.write(bytes(shutil.disk_usage(small_disk).free - (len(series) + 4) * size))
    assert set(send(node, series)) == {0x0000}

    def refused() -> bool:
        reasons = [event["reason"] for event in node.events(events.JOB_RETRY)]
        assert set(reasons) <= {"NO_SPACE"}
        return len(reasons) > node.settings.enhancement.attempts

    node.wait_for(refused, LIMIT, "more tries than a series has attempts")
    ballast.unlink()
    story = node.await_end(series_uid(series), LIMIT)
    assert [job.state for job in story.jobs] == [JobState.SUCCEEDED] * 2
    assert archive.instances(archive.series()[0]) == len(series)


def _files(folder: Path) -> set[Path]:
    """Every file in the spool."""
    return {path for path in folder.rglob("*") if path.is_file()}


def test_patient_data_reaches_neither_log_nor_database_nor_file_names(
    start_node: StartNode, start_archive: StartArchive, series: list[Path], tmp_path: Path
) -> None:
    folder = tmp_path / "marked"
    folder.mkdir()
    marked = []
    for number, path in enumerate(series):
        ds = dcmread(path)
        for keyword in (
            "PatientName",
            "PatientID",
            "StudyDescription",
            "SeriesDescription",
            "AccessionNumber",
        ):
            setattr(ds, keyword, "CANARY7391")
        with warnings.catch_warnings():
            # A value that readers complain about, quoting it.
            warnings.simplefilter("ignore")
            ds.PatientAge = "CANARY7391"
            ds.save_as(folder / f"{number}.dcm")
        marked.append(folder / f"{number}.dcm")
    start_archive()
    node = start_node()
    send(node, marked)

    story = node.await_end(series_uid(marked), LIMIT)

    assert story.series.state is SeriesState.STABLE
    node.stop()
    data = node.settings.storage.directory
    assert b"CANARY" not in node.log_path.read_bytes()
    assert all(b"CANARY" not in path.read_bytes() for path in tmp_path.glob("node.db*"))
    assert list(tmp_path.glob("node.db*"))
    assert not [path for path in data.rglob("*") if "CANARY" in path.name]


def test_sigterm_drains_and_a_restart_changes_nothing(
    start_node: StartNode, start_archive: StartArchive, series: list[Path]
) -> None:
    archive, node = start_archive(), start_node()
    send(node, series)
    before = node.await_end(series_uid(series), LIMIT)

    assert node.stop() == 0

    node.start()
    after = node.story(series_uid(series))
    assert after is not None
    assert [(job.id, job.state, job.attempts) for job in after.jobs] == [
        (job.id, job.state, job.attempts) for job in before.jobs
    ]
    assert len(archive.series()) == 1


def test_sigterm_in_the_middle_of_a_delivery_loses_nothing_and_repeats_nothing(
    start_node: StartNode, start_archive: StartArchive, series: list[Path]
) -> None:
    seen: list[str] = []
    fourth = threading.Event()

    def slow(uid: str) -> int:
        seen.append(uid)
        time.sleep(0.3)
        if len(seen) == 4:
            fourth.set()
        return 0x0000

    archive, node = start_archive(slow), start_node()
    send(node, series)
    assert fourth.wait(LIMIT.total_seconds())

    assert node.stop() == 0

    assert 4 <= len(seen) < len(series)
    node.start()
    story = node.await_end(series_uid(series), LIMIT)
    delivery = next(job for job in story.jobs if job.kind is JobKind.DELIVER)
    assert delivery.state is JobState.SUCCEEDED
    assert archive.instances(archive.series()[0]) == len(series)
    assert sorted(seen) == sorted(set(seen))


def test_a_canceled_delivery_stops_and_can_be_resubmitted(site: Site, new_series: NewSeries) -> None:
    seen: list[str] = []

    def slow(uid: str) -> int:
        seen.append(uid)
        time.sleep(0.5)
        return 0x0000

    node, series = site.node, new_series()
    site.answer = slow
    send(node, series)
    job = node.wait_for(lambda: _running_delivery(node, series), LIMIT, "the delivery")
    with node.operations() as operations:
        operations.cancel_job(job, actor="test")

    story = node.await_end(series_uid(series), LIMIT)
    assert next(entry.state for entry in story.jobs if entry.id == job) is JobState.CANCELED
    assert len(seen) < len(series)

    with node.operations() as operations:
        operations.resubmit_job(job, actor="test")
    (derived,) = site.derived()
    node.wait_for(lambda: site.archive.instances(derived) == len(series), LIMIT, "the rest")
    assert sorted(seen) == sorted(set(seen))


def _running_delivery(node: RunningNode, paths: list[Path]) -> int | None:
    story = node.story(series_uid(paths))
    jobs = story.jobs if story is not None else ()
    return next(
        (job.id for job in jobs if job.kind is JobKind.DELIVER and job.state is JobState.RUNNING), None
    )


def test_the_node_ends_when_its_supervisor_is_killed(
    start_node: StartNode, start_archive: StartArchive
) -> None:
    start_archive()
    node = start_node()
    pids = [int(str(event["pid"])) for event in node.events(events.PROCESS_STARTED)]
    assert len(pids) == 3
    for pid in pids:
        # Nothing of the supervisor's is held on to: neither its lock nor a pipe that ends another role.
        held = {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir() if int(entry.name) > 2}
        assert not [name for name in held if name.endswith(".node")]
        own = {str(Path(f"/proc/{other}/fd/0").readlink()) for other in pids}
        assert len(own) == 3
        assert not own & held

    assert node._process is not None
    node._process.kill()
    node._process.wait()
    node._process = None

    node.wait_for(
        lambda: not any(_alive(pid) for pid in pids), timedelta(seconds=30), "the end of every process"
    )


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]


def _when(node: RunningNode, paths: list[Path], condition: Callable[..., bool]) -> object:
    story = node.story(series_uid(paths))
    over = story is not None and all(
        job.state in (JobState.SUCCEEDED, JobState.FAILED)
        for job in story.jobs
        if job.kind is JobKind.ENHANCE
    )
    return story if story is not None and over and condition(story) else None


def _waiting_for_delivery(story: object) -> bool:
    waiting = (JobState.RETRY, JobState.PENDING)
    return any(job.kind is JobKind.DELIVER and job.state in waiting for job in story.jobs)  # type: ignore[attr-defined]
