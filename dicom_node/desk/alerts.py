"""Watches for what is wrong (failed, held, stuck, disk, peer down) and tells people once, without patient data.

What is wrong is in the database, so a restart tells nobody twice. A message holds numbers, states and reason codes; a
channel gets one message in a while, with everything that is new in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog

from config.settings import Settings
from dicom_node.desk.channels import NotToldError, call_webhook, send_mail
from dicom_node.desk.overview import disk_figures
from dicom_node.observability import events
from storage.alerts import AlertRecord
from storage.filters import JobFilter, SeriesFilter
from storage.states import JobState, SeriesState
from storage.store import Store

log = structlog.get_logger(__name__)

_MOST = 100
_LISTED = 20
Troubles = dict[str, tuple[str, Mapping[str, Any]]]

_WORDS: Mapping[str, str] = {
    "failed": "Job {job} ({what}) failed: {reason}.",
    "held": "Series {series} is held for a person: {reason}.",
    "stuck": "Job {job} ({what}) has not moved for a long time.",
    "disk": "The file system is {used} % full (mark {mark}: {limit} %).",
    "alarm": "Alarm {code}: {subject} ({count} times).",
    "peer": "The peer {peer} does not answer; {failures} failures in a row.",
}


@dataclass(frozen=True)
class Told:
    """Whether a channel took a message; `error` says why not."""

    channel: str
    error: str | None


class AlertWatch:
    """Looks for troubles and tells of them. One per node; call `sweep` every half minute."""

    def __init__(self, store: Store, settings: Settings, *, now: Callable[[], datetime]) -> None:
        self._store = store
        self._settings = settings
        self._section = settings.alerts
        self._now = now
        self._last_told: datetime | None = None

    def sweep(self) -> list[AlertRecord]:
        """Look, remember, and tell of what is new or due to be repeated; returns what was told of."""
        lasting = self._store.alerts.observe(self._look())
        due = [alert for alert in lasting if self._is_due(alert)]
        if not due or not self._channels() or self._too_soon():
            return []
        self._last_told = self._now()
        told = self._tell(subject_of(due), body_of(due), facts_of(due))
        if any(found.error is None for found in told):
            self._store.alerts.sent([alert.key for alert in due])
            return due
        return []

    def test(self) -> list[Told]:
        """Send a test message through every channel, at once."""
        words = "This is a test. Nothing is wrong."
        return self._tell("[dicom-node] test message", words, {"event": "test", "alerts": []})

    # --- private

    def _look(self) -> Troubles:
        found: Troubles = {}
        failed = self._store.listing.jobs(JobFilter(states=(JobState.FAILED,)), limit=_MOST)
        for job in failed.items:
            facts = {"job": job.id, "what": job.kind.value.lower(), "reason": job.reason or "unknown"}
            found[f"failed:{job.id}:{job.token}"] = ("failed", facts)
        held = self._store.listing.series(SeriesFilter(states=(SeriesState.HELD,)), limit=_MOST)
        for series in held.items:
            facts = {"series": series.id, "reason": series.reason or "unknown"}
            found[f"held:{series.id}:{series.generation}"] = ("held", facts)
        for number, kind in self._store.statistics.stuck_jobs(self._now() - self._section.stuck_after):
            found[f"stuck:{number}"] = ("stuck", {"job": number, "what": kind.lower()})
        for status in self._store.destinations.list():
            if status.failures >= self._section.peer_failures:
                facts = {"peer": status.name, "failures": status.failures}
                found[f"peer:{status.name}"[:255]] = ("peer", facts)
        for alarm in self._store.alarms.active():
            facts = {"code": alarm.code, "subject": alarm.subject, "count": alarm.count}
            found[f"alarm:{alarm.code}:{alarm.subject}"[:255]] = ("alarm", facts)
        return found | self._disk()

    def _disk(self) -> Troubles:
        figures = disk_figures(self._settings)
        for mark in ("hard", "soft"):
            if figures["used_percent"] >= figures[f"{mark}_percent"]:
                facts = {
                    "used": round(figures["used_percent"]),
                    "mark": mark,
                    "limit": figures[f"{mark}_percent"],
                }
                return {f"disk:{mark}": ("disk", facts)}
        return {}

    def _is_due(self, alert: AlertRecord) -> bool:
        sent = alert.last_sent_at
        return sent is None or self._now() - sent >= self._section.repeat_after

    def _too_soon(self) -> bool:
        last = self._last_told
        return last is not None and self._now() - last < self._section.at_most_every

    def _channels(self) -> bool:
        return self._section.mail is not None or bool(self._section.webhooks)

    def _tell(self, subject: str, body: str, facts: Mapping[str, Any]) -> list[Told]:
        told = []
        if (mail := self._section.mail) is not None:
            told.append(self._attempt("mail", lambda: send_mail(mail, subject, body)))
        allowed = [network for network in self._section.allow_private if network is not None]
        for number, hook in enumerate(self._section.webhooks, 1):
            told.append(
                self._attempt(
                    f"webhook {number}",
                    lambda hook=hook: call_webhook(hook, facts, allowed=allowed),  # type: ignore[misc]
                )
            )
        return told

    def _attempt(self, channel: str, tell: Callable[[], None]) -> Told:
        try:
            tell()
        except NotToldError as exc:
            log.error(events.ALERT_NOT_SENT, channel=channel, cause=str(exc))
            return Told(channel, str(exc))
        log.info(events.ALERT_SENT, channel=channel)
        return Told(channel, None)


def sentence(alert: AlertRecord) -> str:
    """One trouble in words: numbers, states and codes, never patient data."""
    return _WORDS[alert.kind].format(**alert.detail)


def subject_of(alerts: Sequence[AlertRecord]) -> str:
    """The subject of a message."""
    kinds = ", ".join(sorted({alert.kind for alert in alerts}))
    return f"[dicom-node] {len(alerts)} to look at: {kinds}"


def body_of(alerts: Sequence[AlertRecord]) -> str:
    """The body of a mail; the page shows more to those who may see it."""
    lines = [sentence(alert) for alert in alerts[:_LISTED]]
    if len(alerts) > _LISTED:
        lines.append(f"and {len(alerts) - _LISTED} more.")
    return "\n".join([*lines, "", "Details are on the node's page."])


def facts_of(alerts: Sequence[AlertRecord]) -> dict[str, Any]:
    """The body of a webhook."""
    listed = [
        {"key": alert.key, "kind": alert.kind, "since": alert.since.isoformat(), "text": sentence(alert)}
        for alert in alerts[:_LISTED]
    ]
    return {"event": "alerts", "count": len(alerts), "alerts": listed}
