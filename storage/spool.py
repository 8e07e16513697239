"""Files that survive a power cut.

A received instance becomes visible under its final name only when it is complete and synced:
temporary file in the same file system, fsync, link without replacing, fsync of the folder (in that order).
Names are random: no UID and nothing a sender chose ever reaches the file system.

    incoming/<a>/<b>/<32 hex>       committed instances, as DICOM files (PS3.10)
    staging/<32 hex>                being written
    derived/<job>/<token>/          what one attempt of one job has written
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

from storage.arriving import Arriving, Folders
from storage.errors import SpoolFullError
from storage.files import (
    durable_mkdir,
    filesystem,
    is_full,
    read_back,
    sync_directory,
    write_fully,
)
from storage.sweep import KnownPaths, SweepReport, sweep

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True)
class Staged:
    """A complete, synced temporary file. `digest`: SHA-256 over the body. `size`: bytes of the whole file."""

    path: Path
    digest: str
    size: int


@dataclass(frozen=True)
class DiskUsage:
    """The file system below the store, in bytes; `used_percent` counts what root alone may use as used."""

    total: int
    free: int
    used_percent: float


class Spool:
    """Durable files below one directory. Safe for several threads and processes."""

    def __init__(self, directory: Path, *, reserve_bytes: int = 0, hard_percent: float = 100.0) -> None:
        self.directory = directory
        self._reserve_bytes = reserve_bytes
        self._hard_percent = hard_percent
        self._incoming = directory / "incoming"
        self._staging = directory / "staging"
        self._derived = directory / "derived"
        self._ready_folders: set[Path] = set()
        self._folder_lock = threading.Lock()
        self._folders = Folders(self._incoming, self._prepare, self._doubt)
        self._in_doubt = False
        self._tell: Callable[[str], object] = lambda _cause: None
        with filesystem():
            for folder in (directory, self._incoming, self._staging, self._derived):
                durable_mkdir(folder)

    def write(self, header: Buffer, body: Iterable[Buffer]) -> Staged:
        """Write header and body to a temporary file and sync it. The digest is over the body alone.

        Errors of the iterable pass through; the temporary file is gone in every case of an error.
        Raises `SpoolFullError` or `SpoolError`. After a failed sync, which says that the disk may lie,
        nothing is taken until `probe` has passed once.
        """
        if self._in_doubt:
            self.probe()
        path = self._staging / uuid4().hex
        with filesystem():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            digest, size = _pour(descriptor, header, body)
            self._sync(descriptor)
        except BaseException:
            os.close(descriptor)
            _unlink_quietly(path)
            raise
        os.close(descriptor)
        return Staged(path, digest, size)

    def arrive(self, header: Buffer) -> Arriving:
        """Open the file of an instance that comes piece by piece. Raises as `write` does."""
        if self._in_doubt:
            self.probe()
        with filesystem():
            folder = self._folders.take()
        return Arriving(folder, self._staging, header)

    def when_in_doubt(self, tell: Callable[[str], object]) -> None:
        """Have somebody told, by the name of the error, of each write or sync that fails though there is space."""
        self._tell = tell

    def _doubt(self, exc: OSError) -> None:
        """A write or a sync failed: unless the disk is merely full, nothing is taken until `probe` has passed."""
        if not is_full(exc):
            self._in_doubt = True
            self._tell(errno.errorcode.get(exc.errno or 0, str(exc.errno)))

    def commit(self, staged: Staged) -> Path:
        """Give the file its final name for good, never over another file, and sync the folder.

        Only after this, and a committed row, may a sender hear success.
        """
        name = uuid4().hex
        folder = self._incoming / name[0] / name[1]
        final = folder / name
        with filesystem():
            self._prepare(folder)
            os.link(staged.path, final)
            staged.path.unlink()
            try:
                sync_directory(folder)
            except OSError as exc:
                self._doubt(exc)
                _unlink_quietly(final)
                raise
        return final

    def discard(self, staged: Staged) -> None:
        """Drop a temporary file that is not wanted after all."""
        _unlink_quietly(staged.path)

    def remove(self, path: Path) -> None:
        """Drop a committed file that got no row, such as a duplicate."""
        _unlink_quietly(path)

    def derived_dir(self, job_id: int, token: int) -> Path:
        """The folder for what this claim writes; created, empty unless the same claim filled it before."""
        folder = self._derived / str(job_id) / str(token)
        with filesystem():
            durable_mkdir(folder.parent)
            durable_mkdir(folder)
        return folder

    def drop_derived(self, job_id: int, token: int) -> None:
        """Drop the folder of a claim that came to nothing."""
        shutil.rmtree(self._derived / str(job_id) / str(token), ignore_errors=True)

    def usage(self) -> DiskUsage:
        """How full the file system is."""
        with filesystem():
            stats = os.statvfs(self.directory)
        total = stats.f_blocks * stats.f_frsize
        free = stats.f_bavail * stats.f_frsize
        return DiskUsage(total, free, 100.0 * (1.0 - free / total) if total else 100.0)

    def free_bytes(self) -> int:
        """Bytes this process may still write."""
        return self.usage().free

    def check_space(self, needed: int) -> None:
        """Raise `SpoolFullError` when `needed` bytes would touch the reserve or the hard watermark."""
        usage = self.usage()
        limit = usage.total * (1.0 - self._hard_percent / 100.0)
        keep = max(float(self._reserve_bytes), limit)
        if usage.free - needed < keep:
            raise SpoolFullError(
                f"{usage.free} bytes are free, {needed} are needed and {int(keep)} have to stay free",
                free=usage.free,
                needed=needed,
            )

    def probe(self) -> None:
        """Prove with a fresh file that the disk takes, syncs and returns bytes. Raises `SpoolError`."""
        path = self._staging / uuid4().hex
        expected = os.urandom(4096)
        with filesystem():
            try:
                read_back(path, expected)
            finally:
                _unlink_quietly(path)
        self._in_doubt = False

    def sweep_orphans(self, known_paths_fn: KnownPaths, older_than: timedelta) -> SweepReport:
        """Remove files that no row knows and that are older than this: nobody was told they were kept.

        `known_paths_fn` gets a batch of paths and returns those to keep. `older_than` has to be longer
        than any receive takes between file and row; an hour is plenty.
        """
        trees = (self._staging, self._incoming, self._derived)
        return sweep(trees, known_paths_fn, older_than)

    def _prepare(self, folder: Path) -> None:
        """Have the fan-out folder durably. Its siblings are made with it: one sync serves all sixteen."""
        parent = folder.parent
        if parent in self._ready_folders:
            return
        with self._folder_lock:
            durable_mkdir(parent)
            for name in "0123456789abcdef":
                (parent / name).mkdir(mode=0o700, exist_ok=True)
            sync_directory(parent)
            self._ready_folders.add(parent)

    def _sync(self, descriptor: int) -> None:
        with filesystem():
            try:
                os.fsync(descriptor)
            except OSError as exc:
                self._doubt(exc)
                raise


def _pour(descriptor: int, header: Buffer, body: Iterable[Buffer]) -> tuple[str, int]:
    """Write everything; the digest over the body and the bytes written."""
    with filesystem():
        write_fully(descriptor, header)
    size = memoryview(header).nbytes
    digest = hashlib.sha256()
    for chunk in body:
        digest.update(chunk)
        with filesystem():
            write_fully(descriptor, chunk)
        size += memoryview(chunk).nbytes
    return digest.hexdigest(), size


def _unlink_quietly(path: Path) -> None:
    """Remove a file if it can be removed; the sweeper takes what is left."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
