"""Whether the disk can be trusted: an alarm from the first failed write or sync until it has proved itself.

A failed sync says that the disk may have lost what it took before, and the next one may succeed all the same. So
the alarm ends only when nothing has failed for a while, and a fresh file was written, synced and read back.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

from storage.alarms import AlarmCode, Alarms
from storage.clock import Clock
from storage.errors import StorageError
from storage.spool import Spool

FILES = "storage directory"
DATABASE = "database"
CALM = timedelta(minutes=1)


class Health:
    """Raises the alarm, and ends it. Safe for several threads and processes."""

    def __init__(self, spool: Spool, alarms: Alarms, now: Clock) -> None:
        self._spool = spool
        self._alarms = alarms
        self._now = now
        spool.when_in_doubt(lambda cause: self.doubt(FILES, cause))

    def doubt(self, subject: str, cause: str) -> None:
        """The disk failed below the files or below the database; `cause` has no path and no patient data."""
        # A database that fails as well must not take the place of the answer that is due.
        with suppress(StorageError):
            self._alarms.raise_(AlarmCode.STORE_UNHEALTHY, subject, {"cause": cause})

    def examine(self) -> bool:
        """End what has been calm for a while and is proved; whether the disk is trusted."""
        lasting = self._alarms.active(AlarmCode.STORE_UNHEALTHY)
        if not lasting:
            return True
        if any(alarm.seen_at > self._now() - CALM for alarm in lasting):
            return False
        try:
            self._spool.probe()
        except StorageError:
            return False
        for alarm in lasting:
            # The commit that ends the alarm is the proof for the database.
            self._alarms.clear(alarm.code, alarm.subject)
        return True
