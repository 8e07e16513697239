"""An instance that comes piece by piece: nameless until complete, never seen half, gone when it fails."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from storage import writeback
from storage.arriving import Folders, sync_folders
from storage.errors import SpoolError, SpoolFullError
from storage.spool import Spool


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "data")


@pytest.fixture(params=["nameless", "staged"])
def any_spool(request, spool, monkeypatch) -> Spool:
    """Also on a file system that has no nameless files."""
    if request.param == "staged":
        opened = os.open

        def refuse(path, flags, *rest, **more):
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, "Operation not supported")
            return opened(path, flags, *rest, **more)

        monkeypatch.setattr(os, "open", refuse)
    return spool


def files(spool: Spool) -> list[Path]:
    return [path for path in spool.directory.rglob("*") if path.is_file()]


def test_pieces_come_together_behind_the_header_and_the_digest_is_of_the_body(any_spool):
    arriving = any_spool.arrive(b"header")
    arriving.write([b"one", memoryview(b"two")])
    arriving.write([bytearray(b"three")])
    with arriving.body() as body:
        assert bytes(body) == b"onetwothree"

    path = arriving.place()
    arriving.discard()
    sync_folders([arriving.folder])

    assert path.read_bytes() == b"headeronetwothree"
    assert (arriving.digest, arriving.size) == (hashlib.sha256(b"onetwothree").hexdigest(), 17)
    assert files(any_spool) == [path]
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.parent.parent == any_spool.directory / "incoming"


def test_what_is_discarded_before_it_has_a_name_is_gone(any_spool):
    arriving = any_spool.arrive(b"header")
    arriving.write([b"half"])

    arriving.discard()
    arriving.discard()

    assert files(any_spool) == []


def test_unfinished_file_has_no_name_at_all(spool):
    arriving = spool.arrive(b"header")
    arriving.write([b"half"])

    assert files(spool) == []
    arriving.discard()


def test_an_empty_body_is_a_body(spool):
    arriving = spool.arrive(b"header")
    with arriving.body() as body:
        assert bytes(body) == b""

    path = arriving.place()
    arriving.discard()

    assert path.read_bytes() == b"header"


def test_writes_that_are_cut_short_are_completed(spool, monkeypatch):
    writev = os.writev

    def short(descriptor, pieces):
        return writev(descriptor, [memoryview(pieces[0])[:4], *pieces[1:1]])

    arriving = spool.arrive(b"header")
    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", short)
        arriving.write([b"piece", b"another"])
    path = arriving.place()
    arriving.discard()

    assert path.read_bytes() == b"headerpieceanother"


def test_thousands_of_pieces_are_one_body(spool):
    pieces = [bytes([number % 256]) for number in range(3000)]
    arriving = spool.arrive(b"")
    arriving.write(pieces)
    path = arriving.place()
    arriving.discard()

    assert path.read_bytes() == b"".join(pieces)


def test_a_full_disk_is_told_apart(spool, monkeypatch):
    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    arriving = spool.arrive(b"header")
    monkeypatch.setattr(os, "writev", full)

    with pytest.raises(SpoolFullError):
        arriving.write([b"x"])
    arriving.discard()


@pytest.mark.parametrize("step", ["file", "folder"])
def test_after_a_failed_sync_nothing_is_taken_until_a_probe_passes(spool, monkeypatch, step):
    def fail(_descriptor):
        raise OSError(errno.EIO, "Input/output error")

    arriving = spool.arrive(b"header")
    if step == "folder":
        arriving.place()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(SpoolError):
            arriving.place() if step == "file" else sync_folders([arriving.folder])
        arriving.remove()
        with pytest.raises(SpoolError):
            spool.arrive(b"header")
    arriving.discard()

    assert files(spool) == []
    spool.arrive(b"header").discard()


def test_folder_changes_after_so_many_files_and_is_closed(tmp_path):
    made = []

    def prepare(path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        made.append(path)

    folders = Folders(tmp_path, prepare, lambda _exc: None, files=3)
    handles = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(30):
        folders.take()

    assert len(made) == 10
    assert len(list(Path("/proc/self/fd").iterdir())) <= handles + 1


def test_digest_of_a_large_object_is_known_before_it_has_a_name(spool):
    pieces = [bytes([number]) * (1 << 20) for number in range(6)]
    arriving = spool.arrive(b"header")
    for piece in pieces:
        arriving.write([piece])

    assert arriving.digest == hashlib.sha256(b"".join(pieces)).hexdigest()
    arriving.discard()


def test_where_the_system_cannot_write_ahead_the_sync_still_comes(spool, monkeypatch):
    monkeypatch.setattr(writeback, "_sync_file_range", None)
    arriving = spool.arrive(b"header")
    arriving.write([b"body"])
    synced, fsync = [], os.fsync
    monkeypatch.setattr(os, "fsync", lambda descriptor: (synced.append(descriptor), fsync(descriptor)))
    path = arriving.place()

    assert synced == [arriving._descriptor]
    assert path.read_bytes() == b"headerbody"
    arriving.discard()
