"""SIGKILL at the points that matter, then restart: what was acknowledged is there, and one series comes back."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from pydicom import dcmread

from dicom_node.demo.archive import Archive
from dicom_node.demo.bench import RunningNode
from dicom_node.errors import PeerError
from dicom_node.network import scu
from dicom_node.node import Role
from dicom_node.operations import SeriesStory
from dicom_node.pipeline.stages import data_set_digest
from storage.states import JobKind, JobState
from storage.store import open_store

LIMIT = timedelta(seconds=150)
StartNode = Callable[..., RunningNode]
StartArchive = Callable[..., Archive]


def series_uid(paths: list[Path]) -> str:
    return str(dcmread(paths[0], stop_before_pixels=True).SeriesInstanceUID)


def send(
    node: RunningNode, paths: list[Path], after: Callable[[int], None] = lambda _count: None
) -> list[str]:
    """Send a series; returns the SOP Instance UIDs that were acknowledged, even when the association broke."""
    acknowledged: list[str] = []

    def on_result(uid: str, status: int, _comment: str) -> bool:
        if status == 0:
            acknowledged.append(uid)
            after(len(acknowledged))
        return True

    with suppress(PeerError):
        scu.send(node.peer, [scu.outgoing(path) for path in paths], on_result)
    return acknowledged


def assert_every_acknowledged_instance_is_intact(
    node: RunningNode, uid: str, acknowledged: list[str]
) -> None:
    storage = node.settings.storage
    store = open_store(storage.resolved_database_url, storage.directory)
    try:
        instances = store.index.instances(store.index.get_series(uid).id)
    finally:
        store.close()
    stored = {instance.sop_instance_uid for instance in instances}
    assert set(acknowledged) <= stored
    assert len(stored) == len(instances)
    for instance in instances:
        assert data_set_digest(instance.path) == instance.digest


def assert_one_derived_series(archive: Archive, story: SeriesStory, slices: int) -> None:
    assert [job.state for job in story.jobs if job.kind is JobKind.ENHANCE] == [JobState.SUCCEEDED]
    assert [job.state for job in story.jobs if job.kind is JobKind.DELIVER] == [JobState.SUCCEEDED]
    assert len(archive.series()) == 1
    assert archive.instances(archive.series()[0]) == slices
    assert all(len(digests) == 1 for digests in archive.contents.values())


def restart(node: RunningNode) -> None:
    node.kill()
    node.start()


class Tap:
    """A TCP relay that runs `at_limit` once, after `limit` bytes from the sender, and passes nothing on after it."""

    def __init__(self, port: int, limit: int, at_limit: Callable[[], object]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._target, self._limit, self._at_limit = port, limit, at_limit
        threading.Thread(target=self._relay, daemon=True).start()

    def _relay(self) -> None:
        sender, _ = self._listener.accept()
        with self._listener, sender, socket.create_connection(("127.0.0.1", self._target)) as receiver:
            threading.Thread(target=self._back, args=(receiver, sender), daemon=True).start()
            passed = 0
            while passed < self._limit and (chunk := sender.recv(4096)):
                receiver.sendall(chunk)
                passed += len(chunk)
            self._at_limit()

    @staticmethod
    def _back(receiver: socket.socket, sender: socket.socket) -> None:
        with suppress(OSError):
            while chunk := receiver.recv(65536):
                sender.sendall(chunk)


def test_receiver_killed_in_the_middle_of_an_object(
    start_node: StartNode, start_archive: StartArchive, series: list[Path]
) -> None:
    archive, node = start_archive(), start_node()
    size = series[0].stat().st_size
    tap = Tap(node.peer.port, 5 * size + size // 2, lambda: node.kill_role(Role.RECEIVER))
    through_tap = node.peer.model_copy(update={"port": tap.port})
    acknowledged: list[str] = []
    with suppress(PeerError):
        scu.send(
            through_tap,
            [scu.outgoing(path) for path in series],
            lambda uid, status, _comment: status == 0 and not acknowledged.append(uid),
        )
    assert 0 < len(acknowledged) < len(series)

    node.wait_for(node.answers, timedelta(seconds=30), "the receiver's return")
    acknowledged += send(node, series)

    story = node.await_end(series_uid(series), LIMIT)
    assert_every_acknowledged_instance_is_intact(node, series_uid(series), acknowledged)
    assert_one_derived_series(archive, story, len(series))


def test_receiver_killed_right_after_a_response(
    start_node: StartNode, start_archive: StartArchive, series: list[Path]
) -> None:
    archive, node = start_archive(), start_node()
    acknowledged = send(
        node, series, after=lambda count: node.kill_role(Role.RECEIVER) if count == 7 else None
    )
    assert len(acknowledged) >= 7

    node.wait_for(node.answers, timedelta(seconds=30), "the receiver's return")
    assert_every_acknowledged_instance_is_intact(node, series_uid(series), acknowledged)
    acknowledged += send(node, series)

    story = node.await_end(series_uid(series), LIMIT)
    assert_every_acknowledged_instance_is_intact(node, series_uid(series), acknowledged)
    assert_one_derived_series(archive, story, len(series))


def test_everything_killed_while_the_enhancement_runs(
    start_node: StartNode, start_archive: StartArchive, long_series: list[Path]
) -> None:
    archive, node = start_archive(), start_node()
    acknowledged = send(node, long_series)
    uid = series_uid(long_series)
    node.wait_for(lambda: _stage(node, uid) == "ENHANCE", LIMIT, "the enhancement")

    restart(node)

    story = node.await_end(uid, LIMIT)
    assert_every_acknowledged_instance_is_intact(node, uid, acknowledged)
    assert_one_derived_series(archive, story, len(long_series))
    assert next(job for job in story.jobs if job.kind is JobKind.ENHANCE).attempts == 2


def test_a_crashed_enhancement_process_costs_one_attempt_and_no_more(
    start_node: StartNode, start_archive: StartArchive, long_series: list[Path]
) -> None:
    archive, node = start_archive(), start_node()
    send(node, long_series)
    uid = series_uid(long_series)
    node.wait_for(lambda: _stage(node, uid) == "ENHANCE", LIMIT, "the enhancement")
    worker = node.pid_of(Role.WORKER)

    for child in psutil.Process(worker).children(recursive=True):
        child.kill()

    story = node.await_end(uid, LIMIT)
    assert_one_derived_series(archive, story, len(long_series))
    assert node.pid_of(Role.WORKER) == worker
    assert next(job for job in story.jobs if job.kind is JobKind.ENHANCE).attempts == 2


def test_a_series_that_kills_its_process_three_times_fails_and_the_next_one_goes_on(
    start_node: StartNode, start_archive: StartArchive, series: list[Path], long_series: list[Path]
) -> None:
    archive, node = start_archive(), start_node()
    send(node, long_series)
    poison = series_uid(long_series)
    worker = node.pid_of(Role.WORKER)
    assert worker is not None

    def kill_while_enhancing() -> bool:
        if _stage(node, poison) == "ENHANCE":
            for child in psutil.Process(worker).children(recursive=True):
                child.kill()
        story = node.story(poison)
        return story is not None and any(job.state is JobState.FAILED for job in story.jobs)

    node.wait_for(kill_while_enhancing, LIMIT, "the third failure")
    send(node, series)

    story = node.await_end(series_uid(series), LIMIT)
    assert_one_derived_series(archive, story, len(series))
    failed = node.story(poison)
    assert failed is not None
    assert [(job.state, job.attempts, job.reason) for job in failed.jobs] == [
        (JobState.FAILED, 3, "WORKER_DIED")
    ]


@pytest.mark.parametrize("everything", [False, True], ids=["sender", "everything"])
def test_killed_in_the_middle_of_a_delivery(
    start_node: StartNode, start_archive: StartArchive, series: list[Path], everything: bool
) -> None:
    reached = threading.Event()
    arrived: list[str] = []

    def slow(uid: str) -> int:
        arrived.append(uid)
        if len(arrived) == 6:
            reached.set()
            time.sleep(1.5)
        return 0x0000

    archive, node = start_archive(slow), start_node()
    acknowledged = send(node, series)
    assert reached.wait(LIMIT.total_seconds())

    if everything:
        restart(node)
    else:
        node.kill_role(Role.SENDER)

    story = node.await_end(series_uid(series), LIMIT)
    assert_every_acknowledged_instance_is_intact(node, series_uid(series), acknowledged)
    assert_one_derived_series(archive, story, len(series))


def test_a_bit_that_flipped_on_the_disk_stops_the_series_until_it_is_sent_again(
    start_node: StartNode, start_archive: StartArchive, series: list[Path]
) -> None:
    archive, node = start_archive(), start_node()
    uid = series_uid(series)
    acknowledged = send(node, series)
    node.stop()  # before the series counts as complete, and with the end of its association written down
    _flip_a_stored_bit(node, uid)
    node.start()

    def failed() -> bool:
        story = node.story(uid)
        return story is not None and any(job.reason == "SOURCE_CHANGED" for job in story.jobs)

    node.wait_for(failed, LIMIT, "the failure")
    assert archive.series() == []

    acknowledged += send(node, series)
    node.wait_for(lambda: _succeeded(node, uid), LIMIT, "the delivery")

    assert_every_acknowledged_instance_is_intact(node, uid, acknowledged)
    assert len(archive.series()) == 1
    assert archive.instances(archive.series()[0]) == len(series)


def _flip_a_stored_bit(node: RunningNode, uid: str) -> None:
    storage = node.settings.storage
    store = open_store(storage.resolved_database_url, storage.directory)
    try:
        (first, *_) = store.index.instances(store.index.get_series(uid).id)
    finally:
        store.close()
    content = bytearray(first.path.read_bytes())
    content[-1] ^= 1
    first.path.write_bytes(content)


def _succeeded(node: RunningNode, uid: str) -> bool:
    story = node.story(uid)
    kinds = [job.kind for job in story.jobs if job.state is JobState.SUCCEEDED] if story else []
    return JobKind.DELIVER in kinds


def _stage(node: RunningNode, uid: str) -> str | None:
    story = node.story(uid)
    running = [job for job in story.jobs if job.state is JobState.RUNNING] if story else []
    return str(running[0].stage) if running else None
