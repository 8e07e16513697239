"""Upkeep of the store, woken now and then: old series deleted, files read again, the disk watched."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from config.settings import Settings
from dicom_node.observability import events
from storage.retention import Ages
from storage.space import Level
from storage.store import Store

log = structlog.get_logger(__name__)

_ROUND_BYTES = 512 * 2**20


class Upkeep:
    """What nobody waits for. `wall` is the local wall clock: quiet hours are hours of people."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        stopping: Callable[[], bool] = lambda: False,
        wall: Callable[[], datetime] = lambda: datetime.now().astimezone(),
    ) -> None:
        self._store = store
        self._section = settings.retention
        self._stopping = stopping
        self._wall = wall

    def watch_disk(self) -> Level:
        """Look at the disk, bring its alarms in line with what is seen, and delete early above the soft mark."""
        level = self._store.space.watch(self._store.alarms)
        if not self._store.health.examine():
            log.error(events.STORE_UNHEALTHY)
        if level >= Level.SOFT:
            self._delete(self._section.under_pressure, "space", lambda: self._level() < Level.SOFT)
        return level

    def delete_old(self) -> int:
        """Delete what is old enough, within the hours for it; how many series."""
        if not self._section.may_run_at(self._wall().time()):
            # What a crash left half done is finished at any time.
            self._store.retention.finish()
            return 0
        return self._delete(self._section.delivered, "age", lambda: False)

    def read_again(self) -> int:
        """Read some of the stored files again; how many were damaged."""
        found = self._store.scrubber.scrub(
            every=self._section.read_again, most_bytes=_ROUND_BYTES, go_on=lambda: not self._stopping()
        )
        if found.damaged:
            log.error(events.FILES_DAMAGED, damaged=found.damaged, files=found.files)
        return found.damaged

    def _delete(self, age: timedelta, why: str, enough: Callable[[], bool]) -> int:
        if not self._section.enabled:
            return 0
        ages = Ages(delivered=min(age, self._section.delivered), skipped=self._section.skipped)
        done = self._store.retention.run(
            ages,
            why="space" if why == "space" else "age",
            enough=enough,
            go_on=lambda: not self._stopping(),
        )
        if done:
            log.info(events.SERIES_DELETED, series=len(done), bytes=sum(one.size for one in done), why=why)
        return len(done)

    def _level(self) -> Level:
        return self._store.space.level()
