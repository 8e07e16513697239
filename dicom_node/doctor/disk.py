"""The disk: room above the reserve, writable, durable, one file system, private, no memory or network disk."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from config.quantities import format_size
from config.sections import StorageSection
from dicom_node.doctor.findings import Area, Finding
from storage.errors import StorageError
from storage.probe import sqlite_file
from storage.spool import Spool

_MEMORY = frozenset({"tmpfs", "ramfs"})
_NETWORK = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "afs", "glusterfs", "ceph"})
_TREES = ("incoming", "staging", "derived")
_SLOW_S = 0.25
_FEW_INODES_PERCENT = 5.0


def check_disk(section: StorageSection) -> list[Finding]:
    """Examine the storage directory; leaves nothing behind but the folders that `serve` would make."""
    area = Area("disk", str(section.directory))
    parent = _nearest(section.directory)
    if not section.directory.exists() and not os.access(parent, os.W_OK | os.X_OK):
        return [_unwritable(area, f"It does not exist, and {parent} does not let us make it.")]
    unsafe = [*check_disk_kind(section), *check_privacy(section), *check_shared_sqlite(section)]
    return [*unsafe, *_space(area, section, parent), *_writing(area, section)]


def check_disk_kind(section: StorageSection) -> list[Finding]:
    """Report a file system that forgets: memory, or a network share."""
    area, kind = Area("disk", str(section.directory)), filesystem_kind(_nearest(section.directory))
    if kind in _MEMORY:
        found = area.warning(
            f"The file system is {kind}, which lives in memory.",
            meaning="Every acknowledged image is lost when the machine stops.",
            fix="Set storage.directory to a folder on a disk.",
        )
    elif kind in _NETWORK:
        found = area.warning(
            f"The file system is {kind}, a network share.",
            meaning="A sync may return before the bytes are on a disk, and every image crosses the network.",
            fix="Set storage.directory to a folder on a local disk.",
        )
    else:
        return []
    return [found]


def check_privacy(section: StorageSection) -> list[Finding]:
    """Report a storage directory that other users of the machine can enter: it holds patients' images."""
    area = Area("disk", str(section.directory))
    try:
        mode = stat.S_IMODE(section.directory.stat().st_mode)
    except OSError:
        return []
    if not mode & stat.S_IRWXO:
        return []
    meaning = "Every user of this machine can see the store, and perhaps patients' images."
    fix = f"chmod 700 {section.directory}"
    if mode & stat.S_IWOTH:
        return [area.problem(f"Every user may write here (mode {mode:04o}).", meaning=meaning, fix=fix)]
    return [area.warning(f"Every user may look in here (mode {mode:04o}).", meaning=meaning, fix=fix)]


def check_shared_sqlite(section: StorageSection) -> list[Finding]:
    """Report an SQLite file on a network file system: its locks do not hold there."""
    file = sqlite_file(section.resolved_database_url)
    kind = filesystem_kind(_nearest(file)) if file is not None else ""
    if kind not in _NETWORK:
        return []
    return [
        Area("database", "SQLite").problem(
            f"The database file lies on a network file system ({kind}).",
            meaning="Locks do not hold there, so rows can be lost without an error.",
            fix="Put storage.directory on a local disk, or set storage.database_url to PostgreSQL.",
        )
    ]


def filesystem_kind(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """The type of the file system that holds `path`; empty where the system does not say."""
    resolved, found, longest = path.resolve(), "", -1
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        _, point, kind = line.split(" ")[:3]
        point = point.replace("\\040", " ")
        if resolved.is_relative_to(point) and len(point) >= longest:
            found, longest = kind, len(point)
    return found


def _nearest(path: Path) -> Path:
    """The path itself, or the nearest folder above it that exists."""
    path = path.absolute()
    return next(folder for folder in (path, *path.parents) if folder.exists())


def _space(area: Area, section: StorageSection, place: Path) -> Iterator[Finding]:
    stats, marks = os.statvfs(place), section.watermarks
    total, free = stats.f_blocks * stats.f_frsize, stats.f_bavail * stats.f_frsize
    used = 100.0 * (1.0 - free / total) if total else 100.0
    seen = f"{_rounded(free)} of {_rounded(total)} are free ({used:.0f} % used)."
    fix = "Free space, enlarge the disk, or set storage.directory to another one."
    if used >= marks.hard or free <= marks.reserve:
        reserve = f"{marks.hard:g} % and the reserve of {format_size(marks.reserve)}"
        yield area.problem(
            seen, meaning=f"Above {reserve} the node takes no images: senders get A700.", fix=fix
        )
    elif used >= marks.soft:
        yield area.warning(seen, meaning=f"It is fuller than the soft mark of {marks.soft:g} %.", fix=fix)
    else:
        yield area.ok(seen)
    if stats.f_files and 100.0 * stats.f_favail / stats.f_files < _FEW_INODES_PERCENT:
        yield area.problem(
            f"Only {stats.f_favail} of {stats.f_files} inodes are free.",
            meaning="Each image takes one; without any the disk counts as full.",
            fix="Remove small files, or make the file system with more inodes.",
        )


def _writing(area: Area, section: StorageSection) -> Iterator[Finding]:
    """Write, sync and read back through the very code that receives; then look where the folders lie."""
    directory = section.directory.absolute()
    began = time.monotonic()
    try:
        spool = Spool(directory)
        spool.probe()
    except StorageError as exc:
        yield _unwritable(area, f"A test file could not be written, synced and read back: {exc}.")
        return
    taken = time.monotonic() - began
    seen = f"A file was written, synced and read back in {taken * 1000:.0f} ms."
    if taken > _SLOW_S:
        yield area.warning(
            seen,
            meaning="Every image waits for such a sync before its sender hears success.",
            fix="Use a faster disk, or one with a protected write cache.",
        )
    else:
        yield area.ok(seen)
    devices = {(directory / tree).stat().st_dev for tree in _TREES}
    if len(devices) == 1:
        yield area.ok("Temporary and final files are on one file system.")
    else:
        yield area.problem(
            "incoming, staging and derived are on different file systems.",
            meaning="A file cannot be given its final name in one step, so every image is refused.",
            fix=f"Mount one file system at {directory} and nothing below it.",
        )


def _unwritable(area: Area, seen: str) -> Finding:
    return area.problem(
        seen,
        meaning="No image can be kept: senders get A700.",
        fix="Give the node's user a writable folder on a healthy disk, and look at the system log for disk errors.",
    )


def _rounded(size: int) -> str:
    """Bytes for a person."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
