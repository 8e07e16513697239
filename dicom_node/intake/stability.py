"""Decides when a series is complete: quiet for long enough, with no association open that carried it.

Time is monotonic and lives in memory: what counts is how long this process has seen a revision of the
series unchanged. A restart therefore restarts the quiet period and never shortens it, and a jump of the
wall clock changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

import structlog

from config.names import RETURN_TO_SENDER
from config.rules import quiet_period_for
from config.sections import Peer
from config.settings import Settings
from dicom_node.errors import Reason
from dicom_node.intake.closing import Assessment, Closing, SourceCount, assess, conclude
from dicom_node.intake.content import content_digests
from dicom_node.intake.inquiries import Inquiries
from dicom_node.intake.own_output import is_own_output
from dicom_node.network.count import count_instances
from dicom_node.observability import events
from dicom_node.observability.logs import describe_error
from storage.errors import StorageError
from storage.records import SeriesRecord
from storage.safekeeping_records import SentList
from storage.states import SeriesEvent, SeriesState
from storage.store import Store
from storage.trail import TrailEvent

log = structlog.get_logger(__name__)

_ALL = 1_000_000
_ASK_AGAIN_S = 30.0
_LOOK_AGAIN_S = 5.0
_EVENTS: Mapping[SeriesEvent, str] = {
    SeriesEvent.CLOSE: TrailEvent.SERIES_CLOSED,
    SeriesEvent.SKIP: TrailEvent.SERIES_SKIPPED,
    SeriesEvent.HOLD: TrailEvent.SERIES_HELD,
}


@dataclass
class _Watch:
    """What this process has seen of one open series; times are monotonic seconds."""

    generation: int
    revision: int
    open_since: float
    quiet_since: float | None = None
    assessment: Assessment | None = None
    source: SourceCount | None = None
    source_first: float | None = None
    source_next: float = 0.0
    sent: SentList | None = None
    sent_first: float | None = None
    sent_next: float = 0.0


@dataclass(frozen=True)
class SweepReport:
    """What one sweep did: how many series are open, and how many were closed, whatever the outcome."""

    open: int
    closed: int


class StabilitySweeper:
    """Closes series that are complete. One per deployment process; call `sweep` about once a second.

    `current` gives the settings of the moment: routes may be changed while the node runs.
    """

    def __init__(
        self,
        store: Store,
        settings: Settings,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        current: Callable[[], Settings] | None = None,
        inquiries: Inquiries | None = None,
    ) -> None:
        self._index = store.index
        self._safekeeping = store.safekeeping
        self._settings = settings
        self._current = current or (lambda: settings)
        self._monotonic = monotonic
        self._inquiries = inquiries or Inquiries()
        self._watches: dict[int, _Watch] = {}
        self._held_next = 0.0

    def sweep(self) -> SweepReport:
        """Look at every open series once and close those that are complete.

        A series that cannot be handled is held with a reason; the others are not affected. Raises
        `StorageError` only when the database cannot be asked at all.
        """
        self._refresh()
        self._look_at_held()
        receiving = self._receiving()
        self._watches = {id_: watch for id_, watch in self._watches.items() if id_ in receiving}
        closable = {series.id for series in self._index.closable_series()}
        closed = 0
        for series in receiving.values():
            with structlog.contextvars.bound_contextvars(series=series.id):
                closed += self._attend(series, closable=series.id in closable)
        return SweepReport(open=len(receiving) - closed, closed=closed)

    def _refresh(self) -> None:
        """Take over the routes in force; what was assessed by others is assessed again."""
        current = self._current()
        if current is not self._settings:
            self._settings = current
            for watch in self._watches.values():
                watch.assessment = None

    def _look_at_held(self) -> None:
        """Now and then, open series that were held for want of proof and that a list of their sender proves."""
        now = self._monotonic()
        if self._settings.promises and now >= self._held_next:
            self._held_next = now + _ASK_AGAIN_S
            self._safekeeping.look_again()

    def _receiving(self) -> dict[int, SeriesRecord]:
        """Every open series by id, the oldest first."""
        found = self._index.list_series(state=SeriesState.RECEIVING, limit=_ALL)
        return {series.id: series for series in reversed(found)}

    def _attend(self, series: SeriesRecord, *, closable: bool) -> bool:
        """Look at one series; True if it was closed. Nothing that is wrong with it leaves this function."""
        try:
            closing = self._decide(series, closable=closable)
            return closing is not None and self._close(series, closing)
        except StorageError as exc:
            log.warning(events.SWEEP_FAILED, **describe_error(exc))
        except Exception as exc:  # edge: hostile input must not stop the sweep of the others
            log.error(events.SWEEP_FAILED, **describe_error(exc))
            return self._hold_after_error(series, exc)
        return False

    def _decide(self, series: SeriesRecord, *, closable: bool) -> Closing | None:
        """What is to become of the series now, or None to wait."""
        now = self._monotonic()
        watch = self._watch(series, now)
        if now - watch.open_since >= self._settings.completion.longest_open.total_seconds():
            return Closing(SeriesEvent.HOLD, Reason.OPEN_TOO_LONG, Reason.OPEN_TOO_LONG.sentence)
        if not closable:
            watch.quiet_since = None
            return None
        if watch.quiet_since is None:
            watch.quiet_since = now
        quiet_s = now - watch.quiet_since
        if quiet_s < self._shortest_quiet_s(series):
            return None
        assessment = watch.assessment = watch.assessment or self._assess(series)
        if assessment is None or quiet_s < self._quiet_s(series, assessment):
            return None
        known = self._source_known(series, assessment, watch, now)
        if not self._list_known(series, assessment, watch, now) or not known:
            return None
        return conclude(series, assessment, self._settings, watch.source, watch.sent)

    def _assess(self, series: SeriesRecord) -> Assessment | None:
        """Look at the instances; None while it is being found out whether contents in conflict mean the same."""
        instances = self._index.instances(series.id)
        asked = [copy for copy in instances if copy.conflict and copy.semantic_digest is None]
        if asked and not series.released:
            answer = self._inquiries.ask(
                ("content", series.id), lambda: content_digests([copy.path for copy in asked])
            )
            if answer is None:
                return None
            digests = answer.value or [None] * len(asked)
            # What cannot be read means nothing but itself: it is asked once, and stays in conflict.
            told = {
                copy.id: digest or f"?{copy.digest[1:]}" for copy, digest in zip(asked, digests, strict=False)
            }
            if self._index.note_content(series.id, told).revision != series.revision:
                return None
            instances = self._index.instances(series.id)
        root = self._settings.derivation.uid_root
        own = is_own_output(self._index, series, instances, uid_root=root)
        return assess(series, instances, self._settings, is_own_output=own)

    def _source_known(self, series: SeriesRecord, assessment: Assessment, watch: _Watch, now: float) -> bool:
        """Ask the route's source for its count; False while it is asked, and while it may still catch up."""
        peer = self._source_peer(series, assessment)
        if peer is None:
            return True
        if watch.source_first is None:
            watch.source_first = now
        if now < watch.source_next:
            return False
        uids = series.study_instance_uid, series.series_instance_uid
        answer = self._inquiries.ask(("count", series.id), lambda: count_instances(peer, *uids))
        if answer is None:
            return False
        watch.source_next = now + _ASK_AGAIN_S
        problem = None if answer.error is None else type(answer.error).__name__
        watch.source = SourceCount(
            answer.value, problem or (None if answer.value else "unknown to the source")
        )
        agreed = answer.value is not None and answer.value <= len(assessment.instances)
        patience = self._settings.completion.count_patience.total_seconds()
        return agreed or now - watch.source_first >= patience

    def _source_peer(self, series: SeriesRecord, assessment: Assessment) -> Peer | None:
        """The peer that the route asks for the count; none for a series that nothing is made of anyway."""
        route = assessment.choice.route
        if assessment.problem is not None or route is None or route.count_from is None:
            return None
        if route.count_from == RETURN_TO_SENDER:
            found = self._settings.return_peer(series.calling_ae)
            return None if found is None else self._settings.peer(found.name)
        return self._settings.peer(route.count_from)

    def _list_known(self, series: SeriesRecord, assessment: Assessment, watch: _Watch, now: float) -> bool:
        """Read what senders listed; False while the list, or the rest of what is on it, may still come."""
        route = assessment.choice.route
        if assessment.problem is not None or route is None or route.action == "ignore":
            return True
        if not self._settings.promises or series.released:
            return True
        if watch.sent_first is None:
            watch.sent_first = now
        over = now - watch.sent_first >= self._settings.completion.count_patience.total_seconds()
        if now < watch.sent_next and not over:
            return False
        watch.sent_next = now + _LOOK_AGAIN_S
        watch.sent = self._safekeeping.sent_list(series.id)
        if over or route.completeness == "commitment":
            return over or (watch.sent is not None and watch.sent.proves)
        return watch.sent is None or not (watch.sent.missing or watch.sent.unplaced)

    def _watch(self, series: SeriesRecord, now: float) -> _Watch:
        """The memory of this series, started anew with a generation and refreshed with a revision."""
        watch = self._watches.get(series.id)
        if watch is None or watch.generation != series.generation:
            watch = _Watch(series.generation, series.revision, open_since=now)
            self._watches[series.id] = watch
        elif watch.revision != series.revision:
            watch.revision, watch.quiet_since, watch.assessment = series.revision, None, None
            watch.source, watch.source_first, watch.source_next = None, None, 0.0
            watch.sent, watch.sent_first, watch.sent_next = None, None, 0.0
        return watch

    def _shortest_quiet_s(self, series: SeriesRecord) -> float:
        """The shortest period that any route could ask for: before it, no header is read."""
        general = quiet_period_for(self._settings, None, series.modality, series.calling_ae)
        periods = [route.quiet_period for route in self._settings.routes if route.quiet_period is not None]
        return self._stretched(series, min([general, *periods]))

    def _quiet_s(self, series: SeriesRecord, assessment: Assessment) -> float:
        """The period that applies on the chosen route."""
        route = assessment.choice.route
        return self._stretched(
            series, quiet_period_for(self._settings, route, series.modality, series.calling_ae)
        )

    def _stretched(self, series: SeriesRecord, period: timedelta) -> float:
        """Seconds; longer after an association that did not end by release."""
        factor = self._settings.completion.interrupted_factor if series.interrupted else 1.0
        return period.total_seconds() * factor

    def _close(self, series: SeriesRecord, closing: Closing) -> bool:
        """Close the series as decided, unless it changed meanwhile."""
        done = self._index.close_series(
            series.id,
            series.revision,
            event=closing.event,
            reason=str(closing.reason) if closing.reason else None,
            message=closing.message,
            route=closing.route,
            evidence={**closing.evidence, "interrupted": series.interrupted},
            job=closing.job,
            completeness=closing.completeness,
            late_policy=closing.late_policy,
        )
        if done:
            self._watches.pop(series.id, None)
            log.info(
                _EVENTS[SeriesEvent(closing.event)],
                series_instance_uid=series.series_instance_uid,
                generation=series.generation,
                instances=series.instance_count,
                route=closing.route,
                reason=str(closing.reason) if closing.reason else None,
            )
            if closing.job is not None:
                log.info(TrailEvent.JOB_ENQUEUED, key=closing.job.key, priority=closing.job.priority)
        return done

    def _hold_after_error(self, series: SeriesRecord, error: Exception) -> bool:
        """Put a series aside that made the node stumble: retrying would stumble again."""
        reason = Reason.INTERNAL_ERROR
        closing = Closing(SeriesEvent.HOLD, reason, f"{reason.sentence} {type(error).__name__}")
        try:
            return self._close(series, closing)
        except StorageError as exc:
            log.warning(events.SWEEP_FAILED, **describe_error(exc))
            return False
