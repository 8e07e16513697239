"""The disk fails below a receiver at work: the sender hears a failure, nothing half-done is seen, the node says so."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.network import scu
from dicom_node.node import Role
from storage.alarms import AlarmCode
from storage.index import Index
from tests.disks import small_disk as small_disk_at
from tests.drill.tracing import Tracer
from tests.drill.world import Sent, World

Answer = tuple[int, str]
FAILED: Answer = (0xA700, "STORAGE_FAILED")
FULL: Answer = (0xA700, "STORAGE_FULL")


def answers(world: World, sent: Sent, after: dict[int, object] | None = None) -> list[Answer]:
    """Send every slice over one association; each answer. `after` has what to do after so many."""
    heard: list[Answer] = []

    def on_result(_uid: str, status: int, comment: str) -> bool:
        heard.append((status, comment))
        act = (after or {}).get(len(heard))
        if callable(act):
            act()
        return True

    scu.send(world.peer, [scu.outgoing(path) for path in sent.paths], on_result)
    return heard


def kept(index: Index, sent: Sent) -> list[Path]:
    """The files of a series that the index knows."""
    return [row.path for row in index.instances(index.get_series(sent.uid).id)]


def unknown_files(world: World) -> set[Path]:
    """Files in the storage directory that no row knows."""
    with world.store() as store:
        known = {path for sent in world.series for path in kept(store.index, sent)}
        folders = [store.spool.directory / name for name in ("incoming", "staging")]
    return {path for folder in folders for path in folder.rglob("*") if path.is_file()} - known


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A receiver that has its folders already."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed (apt-get install strace)")
    with World(tmp_path_factory.mktemp("faults"), slices=3) as made:
        made.start(Role.RECEIVER)
        assert made.send(made.new_series())
        yield made


# strace counts for each thread, and an association has its own: its row is the first sync of the database.
@pytest.mark.parametrize(
    ("call", "number", "subject"),
    [
        pytest.param("writev", 1, "storage directory", id="data"),
        pytest.param("fsync", 1, "storage directory", id="file"),
        pytest.param("fsync", 2, "storage directory", id="name"),
        pytest.param("fdatasync", 2, "database", id="log"),
    ],
)
def test_a_failing_disk_is_no_success_leaves_nothing_and_raises_an_alarm(
    world: World, call: str, number: int, subject: str
) -> None:
    sent = world.new_series()
    with world.store() as store:
        before = sum(alarm.count for alarm in store.alarms.active(AlarmCode.STORE_UNHEALTHY))
    options = ("-e", f"trace={call}", "-e", f"inject={call}:error=EIO:when={number}")
    tracer = Tracer(world.roles[Role.RECEIVER].pid, *options, output=world.folder / f"{call}.trace")
    heard = answers(world, sent)
    tracer.stop()

    assert heard == [FAILED, (0, ""), (0, "")]
    with world.store() as store:
        assert len(kept(store.index, sent)) == 2
        alarms = store.alarms.active(AlarmCode.STORE_UNHEALTHY)
    assert subject in {alarm.subject for alarm in alarms}
    assert sum(alarm.count for alarm in alarms) == before + 1
    assert unknown_files(world) == set()
    assert answers(world, sent) == [(0, "")] * 3
    with world.store() as store:
        assert len(kept(store.index, sent)) == 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, which can be filled without harm."""
    with small_disk_at(tmp_path / "disk", mebibytes=16) as mounted:
        if not mounted:
            pytest.skip("no small file system can be mounted here (needs root)")
        yield tmp_path / "disk"


def test_a_disk_that_fills_under_an_open_association_refuses_each_instance_until_there_is_room(
    small_disk: Path, tmp_path: Path
) -> None:
    ballast = small_disk / "ballast"

    def fill() -> None:
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        ballast.write_bytes(bytes(free - 64 * 1024))

    with World(tmp_path / "world", slices=4, storage=small_disk / "data") as world:
        world.start(Role.RECEIVER)
        sent = world.new_series()
        heard = answers(world, sent, {1: fill, 3: ballast.unlink})

        assert heard == [(0, ""), FULL, FULL, (0, "")]
        with world.store() as store:
            assert len(kept(store.index, sent)) == 2
        assert unknown_files(world) == set()
        assert answers(world, sent) == [(0, "")] * 4
