"""Keeps a claim alive while a job is worked on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import structlog

from storage.records import JobRecord
from storage.store import Store

log = structlog.get_logger(__name__)


class Heartbeat:
    """Extends a job's lease from a thread of its own while a block runs, and hears of cancellations."""

    def __init__(
        self, store: Store, job: JobRecord, lease: timedelta, *, on_cancel: Callable[[], None] | None = None
    ) -> None:
        self._store = store
        self._job = job
        self._lease = lease
        self._on_cancel = on_cancel or (lambda: None)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._done.set()
        self._thread.join()

    def _beat(self) -> None:
        """Beat four times per lease, so that one slow database answer does not cost the claim."""
        period = min(self._lease.total_seconds() / 4, 2.0)
        while not self._done.wait(period):
            try:
                pulse = self._store.jobs.heartbeat(self._job, self._lease)
            except Exception as exc:
                log.warning("job.heartbeat_failed", error=type(exc).__name__)
                continue
            if not pulse.alive or pulse.cancel_requested:
                self._on_cancel()
