"""Sends the chain to the log server, in order, until it is there."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from config.audit import AuditSection
from dicom_node.audit.syslog import AuditNotSentError, SyslogTarget
from dicom_node.observability import events
from storage.store import Store

log = structlog.get_logger(__name__)

_BATCH = 200
_FIRST_WAIT_S, _LONGEST_WAIT_S = 2.0, 60.0


class Shipper:
    """Sends what was not confirmed yet; waits longer after each failure, up to a minute."""

    def __init__(
        self, store: Store, section: AuditSection, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._audit = store.audit
        self._alarm_after = section.alarm_after
        self._monotonic = monotonic
        self._target = (
            None if section.syslog is None else SyslogTarget(section.syslog, hostname=socket.gethostname())
        )
        self._failures = 0
        self._not_before = 0.0
        self._alarmed = False

    def ship(self) -> int:
        """Send every record that waits, unless a failure was too short ago; how many were confirmed."""
        if self._target is None or self._monotonic() < self._not_before:
            return 0
        sent = 0
        while batch := self._audit.unsent(_BATCH):
            try:
                self._target.deliver(batch)
            except AuditNotSentError as exc:
                self._failed(batch[0].at, str(exc))
                return sent
            self._audit.mark_sent(batch[-1].seq)
            sent += len(batch)
        if sent and self._failures:
            log.info(events.AUDIT_SENT, records=sent, after_failures=self._failures)
        if sent:
            self._failures, self._alarmed = 0, False
        return sent

    def _failed(self, oldest: datetime, why: str) -> None:
        """Wait; say so at the first failure, and once more, louder, when records have waited too long."""
        wait_s = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2.0 ** min(self._failures, 10))
        self._not_before = self._monotonic() + wait_s
        self._failures += 1
        waiting = datetime.now(UTC) - oldest
        if waiting > self._alarm_after and not self._alarmed:
            self._alarmed = True
            log.error(events.AUDIT_NOT_SENT, cause=why, oldest_waits_s=int(waiting.total_seconds()))
        elif self._failures == 1:
            log.warning(events.AUDIT_NOT_SENT, cause=why)
