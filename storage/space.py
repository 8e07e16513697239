"""How much room there is, as four levels, and what belongs to each.

    ROOMY     below every mark
    SOFT      above the soft mark: an alarm, and early retention of what is delivered
    HARD      above the hard mark, within the reserve, or short of inodes: no new associations
    CRITICAL  nearly nothing left: instances are answered 0xA700, and the reserve file gives its bytes to the database

The reserve file lies beside the database. It is given up so that an operator can still delete, and made again when
there is room.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path

from storage.alarms import AlarmCode, Alarms
from storage.files import sync_directory

CRITICAL_PERCENT = 3.0
FEW_INODES_PERCENT = 2.0
_SUBJECT = "storage directory"
_READ_ONLY = "storage directory is read-only"
_INODES = "storage directory has no inodes"


class Level(IntEnum):
    """How full the disk is; a higher level includes what the lower ones mean."""

    ROOMY = 0
    SOFT = 1
    HARD = 2
    CRITICAL = 3


@dataclass(frozen=True)
class Marks:
    """Percent of the file system that is used, and bytes that have to stay free."""

    soft_percent: float = 80.0
    hard_percent: float = 90.0
    reserve_bytes: int = 0
    reserve_file_bytes: int = 0


@dataclass(frozen=True)
class Room:
    """What the file system says, for this process: bytes, percent of inodes left, and whether it takes writes."""

    total: int
    free: int
    free_inodes_percent: float
    read_only: bool

    @property
    def used_percent(self) -> float:
        """Percent of the bytes that are not free for us."""
        return 100.0 * (1.0 - self.free / self.total) if self.total else 100.0


def judge(room: Room, marks: Marks) -> Level:
    """The level of a disk; pure."""
    free_percent = 100.0 - room.used_percent
    # A disk kept fuller than 97 % on purpose is critical where the operator's own hard mark is.
    critical = min(CRITICAL_PERCENT, 100.0 - marks.hard_percent)
    if room.read_only or free_percent < critical or room.free_inodes_percent <= 0.0:
        return Level.CRITICAL
    if (
        room.used_percent >= marks.hard_percent
        or room.free < marks.reserve_bytes
        or room.free_inodes_percent < FEW_INODES_PERCENT
    ):
        return Level.HARD
    return Level.SOFT if room.used_percent >= marks.soft_percent else Level.ROOMY


class Space:
    """The file system below the storage directory."""

    def __init__(self, directory: Path, marks: Marks) -> None:
        self._directory = directory
        self._marks = marks
        self._reserve = directory / "reserve"

    def room(self) -> Room:
        """Ask the file system. One that cannot be asked has no room."""
        try:
            stats = os.statvfs(self._directory)
        except OSError:
            return Room(0, 0, 0.0, read_only=True)
        inodes = 100.0 * stats.f_favail / stats.f_files if stats.f_files else 100.0
        total, free = stats.f_blocks * stats.f_frsize, stats.f_bavail * stats.f_frsize
        return Room(total, free, inodes, read_only=bool(stats.f_flag & os.ST_RDONLY))

    def level(self) -> Level:
        """How full the disk is now."""
        return judge(self.room(), self._marks)

    def watch(self, alarms: Alarms) -> Level:
        """Bring reserve file and alarms in line with the disk; the level. The database may be full as well."""
        room = self.room()
        level = judge(room, self._marks)
        if level is Level.CRITICAL:
            self.release_reserve()
        elif judge(replace(room, free=room.free - self._marks.reserve_file_bytes), self._marks) < Level.HARD:
            self.make_reserve()
        facts = {
            "level": level.name,
            "used_percent": round(room.used_percent, 1),
            "free_bytes": room.free,
            "free_inodes_percent": round(room.free_inodes_percent, 1),
        }
        _align(alarms, _SUBJECT, level >= Level.SOFT, facts)
        _align(alarms, _INODES, room.free_inodes_percent < FEW_INODES_PERCENT, facts)
        _align(alarms, _READ_ONLY, room.read_only, facts)
        return level

    def make_reserve(self) -> bool:
        """Have the reserve file; whether it is there."""
        size = self._marks.reserve_file_bytes
        if size <= 0 or self._has_reserve(size):
            return self._has_reserve(size)
        try:
            descriptor = os.open(self._reserve, os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, size)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            sync_directory(self._directory)
        except OSError as exc:
            if exc.errno in (errno.ENOSPC, errno.EDQUOT):
                self.release_reserve()
            return False
        return True

    def release_reserve(self) -> None:
        """Give the bytes of the reserve file to whoever needs them most."""
        with suppress(OSError):
            self._reserve.unlink(missing_ok=True)

    def _has_reserve(self, size: int) -> bool:
        try:
            return self._reserve.stat().st_size >= size > 0
        except OSError:
            return False


def _align(alarms: Alarms, subject: str, lasts: bool, facts: dict[str, object]) -> None:
    """Raise the alarm while it lasts, end it when it is over."""
    if lasts:
        alarms.raise_(AlarmCode.DISK, subject, facts)
    else:
        alarms.clear(AlarmCode.DISK, subject)
