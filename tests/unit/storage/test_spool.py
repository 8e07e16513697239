"""Files: complete, synced, private and under random names, or not there at all."""

from __future__ import annotations

import errno
import hashlib
import os
import resource
import stat
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from storage.errors import SpoolError, SpoolFullError
from storage.spool import Spool

HOUR = timedelta(hours=1)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "data")


def _files(spool: Spool) -> list[Path]:
    return [path for path in spool.directory.rglob("*") if path.is_file()]


def _age(path: Path, seconds: float) -> None:
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def test_a_file_holds_header_and_body_and_its_digest_is_of_the_body(spool):
    staged = spool.write(b"preamble", iter([b"pixel", memoryview(b"data")]))

    path = spool.commit(staged)

    assert path.read_bytes() == b"preamblepixeldata"
    assert staged.digest == hashlib.sha256(b"pixeldata").hexdigest()
    assert staged.size == path.stat().st_size
    assert _files(spool) == [path]


def test_files_and_folders_are_private_to_their_owner(spool):
    path = spool.commit(spool.write(b"", [b"x"]))

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    folders = [spool.directory, *(p for p in spool.directory.rglob("*") if p.is_dir())]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}


def test_a_name_says_nothing_and_fans_out(spool):
    first, second = (spool.commit(spool.write(b"", [b"same"])) for _ in range(2))

    assert first != second
    name = first.name
    assert first == spool.directory / "incoming" / name[0] / name[1] / name
    int(name, 16)


def test_a_body_that_breaks_off_leaves_no_file_and_its_own_error(spool):
    def body():
        yield b"half"
        raise ConnectionResetError("the sender went away")

    with pytest.raises(ConnectionResetError):
        spool.write(b"header", body())

    assert _files(spool) == []


def test_a_discarded_or_removed_file_is_gone(spool):
    staged = spool.write(b"", [b"x"])
    spool.discard(staged)
    spool.discard(staged)
    committed = spool.commit(spool.write(b"", [b"y"]))
    spool.remove(committed)

    assert _files(spool) == []


def test_a_commit_never_replaces_a_file(spool, monkeypatch):
    class _SameName:
        hex = "ab" * 16

    staged = [spool.write(b"", [content]) for content in (b"first", b"second")]
    monkeypatch.setattr("storage.spool.uuid4", _SameName)
    path = spool.commit(staged[0])

    with pytest.raises(SpoolError, match="EEXIST"):
        spool.commit(staged[1])

    assert path.read_bytes() == b"first"


def test_a_staged_file_that_vanished_cannot_be_committed(spool):
    staged = spool.write(b"", [b"x"])
    spool.discard(staged)

    with pytest.raises(SpoolError, match="ENOENT"):
        spool.commit(staged)


def test_sync_comes_before_the_name_and_the_folder_is_synced_after_it(spool, monkeypatch):
    calls: list[str] = []
    for name in ("fsync", "link"):
        real = getattr(os, name)

        def spy(*args, _name=name, _real=real):
            on_folder = _name == "fsync" and stat.S_ISDIR(os.fstat(args[0]).st_mode)
            calls.append(_name + (" folder" if on_folder else ""))
            return _real(*args)

        monkeypatch.setattr(os, name, spy)
    spool.commit(spool.write(b"", [b"warm"]))
    same_folder = next(iter(_files(spool))).parent
    calls.clear()

    while (path := spool.commit(spool.write(b"", [b"x"]))).parent.parent != same_folder.parent:
        calls.clear()

    assert path.exists()
    assert calls == ["fsync", "link", "fsync folder"]


def test_after_a_failed_sync_nothing_is_taken_until_a_probe_passes(spool, monkeypatch):
    real, broken = os.fsync, True

    def fsync(descriptor: int) -> None:
        if broken:
            raise OSError(errno.EIO, "lying disk")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(SpoolError, match="EIO"):
        spool.write(b"", [b"x"])

    def body():
        pytest.fail("the body was read although the disk is not trusted")
        yield b""

    with pytest.raises(SpoolError, match="EIO"):
        spool.write(b"", body())
    broken = False

    assert spool.commit(spool.write(b"", [b"y"])).read_bytes() == b"y"
    assert len(_files(spool)) == 1


def test_a_probe_that_reads_other_bytes_fails(spool, monkeypatch):
    monkeypatch.setattr(os, "pread", lambda *_: b"other")

    with pytest.raises(SpoolError, match="EIO"):
        spool.probe()
    assert _files(spool) == []


FILE_SIZE_LIMIT = """
import resource, signal, sys
from pathlib import Path
from storage.errors import SpoolFullError
from storage.spool import Spool

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
spool = Spool(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, resource.RLIM_INFINITY))
try:
    spool.write(b"header", [bytes(40000), bytes(40000)])
except SpoolFullError:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    spool.commit(spool.write(b"header", [bytes(40000), bytes(40000)]))
    print("full, then recovered")
"""


def _run(script: str, *arguments: object) -> str:
    """Run a script in a process of its own, with this checkout importable."""
    root = str(Path(__file__).parents[3])
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.strip()


def test_a_file_that_cannot_grow_is_a_full_store_and_leaves_nothing_half_written(tmp_path):
    said = _run(FILE_SIZE_LIMIT, tmp_path / "data")

    assert said == "full, then recovered"
    (kept,) = _files(Spool(tmp_path / "data"))
    assert kept.stat().st_size == 80006
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_full_disk_is_said_to_be_full_and_recovers_without_a_restart(small_disk):
    spool = Spool(small_disk / "data")
    ballast = spool.commit(spool.write(b"", [bytes(1_700_000)]))

    with pytest.raises(SpoolFullError, match="ENOSPC"):
        spool.write(b"", [bytes(200_000), bytes(200_000)])

    assert _files(spool) == [ballast]
    spool.remove(ballast)
    assert spool.commit(spool.write(b"", [bytes(400_000)])).stat().st_size == 400_000


def test_the_reserve_is_never_given_away(tmp_path):
    free = Spool(tmp_path / "data").free_bytes()
    roomy = Spool(tmp_path / "data", reserve_bytes=1024)
    tight = Spool(tmp_path / "data", reserve_bytes=free * 2)

    roomy.check_space(1024)
    with pytest.raises(SpoolFullError) as full:
        tight.check_space(1)

    assert full.value.needed == 1
    assert full.value.free is not None


def test_the_hard_watermark_closes_the_store(tmp_path):
    used = Spool(tmp_path / "data").usage()
    assert 0 < used.used_percent < 100

    with pytest.raises(SpoolFullError):
        Spool(tmp_path / "data", hard_percent=used.used_percent / 2).check_space(0)


def test_a_storage_directory_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "data").write_text("a file, not a folder")

    with pytest.raises(SpoolError):
        Spool(tmp_path / "data")


def test_the_sweeper_removes_what_no_row_knows(scene):
    spool = scene.store.spool
    known = scene.add("1.2.3.1").instance.path
    orphan = spool.commit(spool.write(b"", [b"orphan"]))
    part = spool.write(b"", [b"part"]).path
    young = spool.commit(spool.write(b"", [b"young"]))
    for path in (known, orphan, part):
        _age(path, 7200)

    report = scene.store.sweep_orphans(HOUR)

    assert (report.files, report.bytes) == (2, len(b"orphan") + len(b"part"))
    assert sorted(_files(spool)) == sorted([known, young])


def test_the_sweeper_spares_manifests_and_running_attempts_only(scene):
    spool = scene.store.spool
    scene.commit(1)
    scene.enqueue(2)
    died = scene.claim()
    dead = scene.derive(died)
    scene.clock.move(seconds=61)
    scene.store.jobs.requeue_expired(3)
    running = scene.claim()
    live = scene.derive(running)
    for path in _files(spool):
        _age(path, 7200)

    scene.store.sweep_orphans(HOUR)

    assert not any(item.path.exists() for item in dead)
    assert all(item.path.exists() for item in live)
    first = scene.store.jobs.list(series_id=1)[-1]
    assert all(item.path.exists() for item in scene.store.index.derived(first.id))


def test_the_folder_of_a_claim_is_its_own_and_can_be_dropped(spool):
    first, second = spool.derived_dir(7, 1), spool.derived_dir(7, 2)
    (first / "x").write_bytes(b"x")

    spool.drop_derived(7, 1)

    assert not first.exists()
    assert second.is_dir()
    assert spool.derived_dir(7, 2) == second
