"""Files that lose their digest, and disks that fill up, in truth and by numbers."""

from __future__ import annotations

import os
import subprocess
from datetime import timedelta

import pytest

from storage.alarms import AlarmCode
from storage.errors import SpoolFullError, StorageError
from storage.space import Level, Marks, Room, Space, judge
from storage.states import JobKind, JobState, SeriesState
from storage.store import open_store

WEEK = timedelta(days=7)


def _flip(path) -> None:
    """Turn one bit near the end of a file."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.fixture
def stored(scene):
    """A received file as the receiver writes it, and one derived of it."""
    added = scene.add("1.2.3.1.1", series="1.2.3.1")
    scene.close(added.series.id)
    job = scene.claim()
    scene.store.jobs.commit_manifest(job, scene.derive(job, 1), [])
    return added.instance, scene.store.index.derived(job.id)[0]


def test_whole_files_are_read_once_in_a_round(scene, stored):
    scene.clock.move(days=8)

    first = scene.store.scrubber.scrub(every=WEEK)
    second = scene.store.scrubber.scrub(every=WEEK)

    assert (first.files, first.damaged, second.files) == (2, 0, 0)
    scene.clock.move(days=8)
    assert scene.store.scrubber.scrub(every=WEEK).files == 2


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("harm", [_flip, lambda path: path.unlink()])
def test_a_file_that_lost_a_bit_is_put_aside_with_an_alarm(scene, stored, which, harm):
    scene.clock.move(days=8)
    harm(stored[which].path)

    found = scene.store.scrubber.scrub(every=WEEK)

    assert found.damaged == 1
    (alarm,) = scene.store.alarms.active(AlarmCode.DAMAGED_FILE)
    assert alarm.data["sop_instance_uid"] == stored[which].sop_instance_uid
    marked = scene.store.index.instances(1)[0] if which == 0 else scene.store.index.derived(1)[0]
    assert marked.damaged
    assert "instance.damaged" in scene.names(series=1)
    scene.clock.move(days=8)
    assert scene.store.scrubber.scrub(every=WEEK).damaged == 0


def test_a_round_is_bounded_in_bytes_and_goes_on_where_it_stopped(scene):
    for number in range(4):
        scene.add(f"1.1.{number}", series="1.1")
    scene.clock.move(days=8)

    found = [scene.store.scrubber.scrub(every=WEEK, most_bytes=1).files for _ in range(5)]

    assert found == [1, 1, 1, 1, 0]


MARKS = Marks(soft_percent=80.0, hard_percent=90.0, reserve_bytes=100)


@pytest.mark.parametrize(
    ("free", "inodes", "read_only", "level"),
    [
        (5000, 50.0, False, Level.ROOMY),
        (2000, 50.0, False, Level.SOFT),
        (1000, 50.0, False, Level.HARD),
        (299, 50.0, False, Level.CRITICAL),
        (5000, 1.0, False, Level.HARD),
        (5000, 0.0, False, Level.CRITICAL),
        (5000, 50.0, True, Level.CRITICAL),
        (0, 50.0, False, Level.CRITICAL),
    ],
)
def test_the_level_of_a_disk(free, inodes, read_only, level):
    assert judge(Room(10_000, free, inodes, read_only), MARKS) is level


def test_a_large_reserve_refuses_associations_on_a_roomy_disk():
    assert judge(Room(10_000, 5000, 50.0, read_only=False), Marks(reserve_bytes=6000)) is Level.HARD


def test_a_disk_that_cannot_be_asked_has_no_room(tmp_path):
    assert Space(tmp_path / "nowhere", MARKS).level() is Level.CRITICAL


def test_a_filling_disk_raises_its_alarm_gives_the_reserve_up_and_recovers(small_disk, sqlite_url):
    marks = Marks(soft_percent=60.0, hard_percent=80.0, reserve_file_bytes=256 * 1024)
    with open_store(sqlite_url, small_disk / "data", marks=marks) as store:
        assert store.space.watch(store.alarms) is Level.ROOMY
        assert (small_disk / "data" / "reserve").stat().st_size == 256 * 1024
        ballast = small_disk / "ballast"

        ballast.write_bytes(bytes(1100 * 1024))
        assert store.space.watch(store.alarms) is Level.SOFT
        ballast.write_bytes(bytes(1500 * 1024))
        assert store.space.watch(store.alarms) is Level.HARD
        free = os.statvfs(small_disk).f_bavail * 4096
        with (small_disk / "more").open("wb") as more:
            more.write(bytes(free - 8192))
        assert store.space.watch(store.alarms) is Level.CRITICAL
        assert not (small_disk / "data" / "reserve").exists()
        (alarm,) = store.alarms.active(AlarmCode.DISK)
        assert alarm.data["level"] == "CRITICAL"

        ballast.unlink()
        (small_disk / "more").unlink()
        assert store.space.watch(store.alarms) is Level.ROOMY
        assert (small_disk / "data" / "reserve").exists()
        assert store.alarms.active() == []


@pytest.fixture
def few_inodes(tmp_path):
    """An ext4 file system with room for bytes and for hardly any file."""
    image, disk = tmp_path / "image", tmp_path / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(8 << 20)
    made = subprocess.run(["mkfs.ext4", "-q", "-N", "64", str(image)], capture_output=True, check=False)
    mounted = subprocess.run(["mount", "-o", "loop", str(image), str(disk)], capture_output=True, check=False)
    if made.returncode or mounted.returncode:
        pytest.skip("a loop device cannot be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_disk_without_inodes_refuses_by_name_and_recovers(few_inodes, sqlite_url):
    with open_store(sqlite_url, few_inodes / "data") as store:
        ballast = []

        def fill() -> None:
            while True:
                ballast.append(store.spool.write(b"h", [b"x"]))

        with pytest.raises(SpoolFullError):
            fill()

        assert store.space.watch(store.alarms) is Level.CRITICAL
        subjects = [alarm.subject for alarm in store.alarms.active(AlarmCode.DISK)]
        assert "storage directory has no inodes" in subjects
        for staged in ballast:
            store.spool.discard(staged)
        assert store.space.watch(store.alarms) is Level.ROOMY
        store.spool.discard(store.spool.write(b"h", [b"x"]))
        assert store.alarms.active() == []


def test_a_disk_that_became_read_only_refuses_by_name_and_recovers(small_disk, sqlite_url):
    with open_store(sqlite_url, small_disk / "data") as store:
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        try:
            with pytest.raises(StorageError, match="EROFS"):
                store.spool.write(b"h", [b"x"])
            assert store.space.watch(store.alarms) is Level.CRITICAL
        finally:
            subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)

        assert [alarm.subject for alarm in store.alarms.active()][-1] == "storage directory is read-only"
        store.spool.commit(store.spool.write(b"h", [b"x"]))
        assert store.space.watch(store.alarms) is Level.ROOMY
        assert store.alarms.active() == []


def test_the_work_goes_on_beside_a_damaged_series(scene, stored):
    scene.clock.move(days=8)
    _flip(stored[0].path)
    scene.store.scrubber.scrub(every=WEEK)

    other = scene.enqueue(2)

    assert scene.store.jobs.claim(JobKind.ENHANCE, "worker", scene.lease).id == other.id


@pytest.mark.parametrize("harm", [_flip, lambda path: path.unlink()])
def test_a_damaged_file_sent_again_is_whole_again(scene, stored, harm):
    scene.clock.move(days=8)
    harm(stored[0].path)
    scene.store.scrubber.scrub(every=WEEK)

    again = scene.add("1.2.3.1.1", series="1.2.3.1", association=scene.associate())

    assert again.outcome == "repaired"
    (now,) = scene.store.index.instances(again.series.id)
    assert (now.id, now.damaged, now.digest) == (stored[0].id, False, stored[0].digest)
    assert now.path == stored[0].path
    assert now.path.read_bytes().endswith(b"a1.2.3.1.1")
    assert scene.store.alarms.active(AlarmCode.DAMAGED_FILE) == []
    assert "instance.repaired" in scene.names(series=again.series.id)
    scene.clock.move(days=8)
    assert scene.store.scrubber.scrub(every=WEEK).damaged == 0
    assert scene.add("1.2.3.1.1", series="1.2.3.1").outcome == "duplicate"


def test_other_content_under_its_uid_does_not_repair_a_damaged_file(scene, stored):
    scene.clock.move(days=8)
    _flip(stored[0].path)
    scene.store.scrubber.scrub(every=WEEK)

    added = scene.add("1.2.3.1.1", series="1.2.3.1", content="b")

    assert added.outcome == "conflict"
    assert [row.damaged for row in scene.store.index.instances(added.series.id)] == [True, False]


def _damage(scene, instance) -> None:
    _flip(instance.path)
    assert scene.store.scrubber.check_received(1) == 1


def test_a_series_held_for_its_damage_opens_again_when_all_is_whole(scene):
    first, second = (scene.add(uid).instance for uid in ("1.2.3.1", "1.2.3.2"))
    for instance in (first, second):
        _flip(instance.path)
    assert scene.store.scrubber.check_received(1) == 2
    assert scene.close(1, event="hold", reason="SOURCE_CHANGED", message="2 files.")

    scene.add("1.2.3.1")
    still = scene.store.index.get_series(1)
    scene.add("1.2.3.2")
    opened = scene.store.index.get_series(1)

    assert (still.state, still.generation) == (SeriesState.HELD, 1)
    assert (opened.state, opened.generation, opened.instance_count) == (SeriesState.RECEIVING, 1, 2)
    assert "series.reopened" in scene.names(series=1)
    assert scene.close(1)


@pytest.mark.parametrize(
    ("reason", "state"), [("SOURCE_CHANGED", JobState.PENDING), ("OUT_OF_RANGE", JobState.FAILED)]
)
def test_a_job_starts_over_only_if_it_failed_of_the_damage(scene, reason, state):
    added = scene.add("1.2.3.1")
    scene.close(added.series.id)
    job = scene.claim()
    _damage(scene, added.instance)
    scene.store.jobs.fail(job, reason=reason, message="A reason.", retry_at=None)

    assert scene.add("1.2.3.1").outcome == "repaired"

    assert scene.store.index.get_series(1).state is SeriesState.STABLE
    again = scene.store.jobs.get(job.id)
    assert again.state is state
    assert again.attempts == (0 if state is JobState.PENDING else 1)


def test_a_series_that_was_enhanced_before_the_damage_stays_as_it_is(scene, stored):
    _damage(scene, stored[0])

    assert scene.add("1.2.3.1.1", series="1.2.3.1").outcome == "repaired"

    kept = scene.store.index.get_series(1)
    assert (kept.state, kept.generation) == (SeriesState.STABLE, 1)
