"""The delivery loop: one lane per destination, oldest series first, every instance answered for.

A lane runs in a thread of its own, so a destination that is down or slow delays no other. Trouble with the
destination itself (no connection, rejection, silence, out of resources) holds the whole lane with growing
waits, and after a few failures in a row opens its circuit; when it is back, the lane drains from the oldest
series on. Trouble with one series makes that series wait or ends it, and lets the others pass.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime

import structlog

from config.names import RETURN_TO_SENDER
from config.sections import Peer
from config.settings import Settings
from dicom_node.errors import PeerError, Reason, ReasonedError
from dicom_node.network.stored_file import Outgoing
from dicom_node.observability import events
from dicom_node.observability.logs import describe_error
from dicom_node.pipeline.answers import AnswerBook
from dicom_node.pipeline.heartbeat import Heartbeat
from dicom_node.pipeline.lanes import Lanes
from dicom_node.pipeline.link import Links
from dicom_node.pipeline.retry import PERMANENT, decide
from dicom_node.sinks.dimse import Parcel, deliver
from dicom_node.sinks.outcome import Verdict
from storage.delivery_records import StoredObject
from storage.errors import LostClaimError, StorageError
from storage.records import DeliveryRecord, JobRecord
from storage.states import DeliveryState, JobKind
from storage.store import Store

log = structlog.get_logger(__name__)


class DeliveryHaltedError(Exception):
    """The association was released before its last instance: the node goes down, or the job was canceled."""


class DeliveryFailedError(ReasonedError):
    """The delivery attempt ended without every instance delivered."""


class DeliverySender:
    """Runs DELIVER jobs, a lane per destination."""

    def __init__(self, store: Store, settings: Settings, *, name: str, now: Callable[[], datetime]) -> None:
        self._store = store
        self._settings = settings
        self._name = name
        self._now = now
        self._lanes = Lanes("lane", self.drain)
        self._rng = random.Random()  # noqa: S311 - jitter
        self._links = Links(store, settings.delivery, self._rng)

    def dispatch(self) -> None:
        """Start a lane for every destination that has work and no lane running."""
        for destination in self._store.jobs.pending_destinations():
            if not self._paused(destination):
                self._lanes.start(destination)

    def drain(self, destination: str) -> None:
        """Deliver due jobs of one destination, oldest first, until none is due."""
        try:
            while not self._lanes.stopping.is_set():
                job = self._claim(destination)
                if job is None:
                    return
                self._hold_and_attempt(job, destination)
        except StorageError as exc:  # the lane starts again with the next dispatch
            log.warning(events.SWEEP_FAILED, sweep="deliver", destination=destination, **describe_error(exc))

    def stop(self, timeout_s: float) -> None:
        """Let running associations finish within `timeout_s`; what is not answered by then is sent again."""
        self._lanes.stop(timeout_s)

    # --- one job

    def _claim(self, destination: str) -> JobRecord | None:
        """The next job of a usable destination; of one that is down only what has waited for too long."""
        lease = self._settings.enhancement.lease
        usable = self._links.is_usable(destination, self._settings.peer(destination))
        too_old = None if usable else self._now() - self._settings.delivery.give_up_after
        return self._store.jobs.claim(
            JobKind.DELIVER, self._name, lease, destination=destination, only_before=too_old
        )

    def _hold_and_attempt(self, job: JobRecord, destination: str) -> None:
        """Run one attempt under a heartbeat."""
        bound = {"job": job.id, "series": job.series_id, "attempt": job.attempts, "destination": destination}
        canceled = threading.Event()
        heartbeat = Heartbeat(self._store, job, self._settings.enhancement.lease, on_cancel=canceled.set)
        with structlog.contextvars.bound_contextvars(**bound), heartbeat:
            self._attempt(
                job, destination, go_on=lambda: not (self._lanes.stopping.is_set() or canceled.is_set())
            )

    def _attempt(self, job: JobRecord, destination: str, *, go_on: Callable[[], bool]) -> None:
        """Run one attempt; whatever happens, the lane lives on and the job is due again or ended."""
        try:
            self._run(job, destination, go_on)
        except LostClaimError:
            log.warning(events.JOB_LOST)
        except Exception as exc:
            log.error(events.SWEEP_FAILED, sweep="deliver", **describe_error(exc))
            with suppress(StorageError):
                self._job_trouble(job, DeliveryFailedError(Reason.INTERNAL_ERROR, type(exc).__name__))

    def _run(self, job: JobRecord, destination: str, go_on: Callable[[], bool]) -> None:
        """One attempt at one series for one destination."""
        begin = time.monotonic()
        try:
            peer = self._peer(destination)
            book = AnswerBook(self._store, job, ask_to_keep=peer.commitment is not None)
            self._send(job, peer, book, go_on)
            self._settle(job, destination, book, seconds=time.monotonic() - begin)
        except DeliveryHaltedError:
            # Ends as CANCELED where an operator asked for that meanwhile.
            self._store.jobs.give_back(
                job, reason=str(Reason.NODE_STOPPING), message=Reason.NODE_STOPPING.sentence
            )
        except PeerError as exc:
            self._job_trouble(job, exc, retry_at=self._links.failed(destination, exc))
        except DeliveryFailedError as exc:
            self._job_trouble(job, exc)

    def _paused(self, destination: str) -> bool:
        """Whether the operator switched the peer off: its deliveries wait, they do not fail."""
        peer = self._settings.peer(destination)
        return peer is not None and not peer.enabled

    def _peer(self, destination: str) -> Peer:
        """The configured peer of that name."""
        peer = self._settings.peer(destination)
        if peer is not None:
            return peer
        unknown = Reason.NO_RETURN_PEER if destination == RETURN_TO_SENDER else Reason.UNKNOWN_PEER
        raise DeliveryFailedError(unknown, f"Destination {destination!r}.")

    def _send(self, job: JobRecord, peer: Peer, book: AnswerBook, go_on: Callable[[], bool]) -> None:
        """Send every pending instance; what was answered is committed, however this ends."""
        rows = self._store.deliveries.for_job(job.id, only_pending=True)
        log.info(events.DELIVERY_STARTED, instances=len(rows))
        if not rows:
            return
        try:
            pace = deliver(peer, _parcels(rows), book.add, go_on=go_on, pace=self._links.pace(peer.name))
        finally:
            book.write()
        self._links.measured(peer.name, pace)

    def _settle(self, job: JobRecord, destination: str, book: AnswerBook, *, seconds: float) -> None:
        """Decide the job from its rows: delivered only when every instance was answered with success."""
        states = Counter(delivery.state for delivery, _ in self._store.deliveries.for_job(job.id))
        if book.verdicts[Verdict.PAUSE]:
            raise PeerError(Reason.NOT_AUTHORIZED, book.worst)
        if book.verdicts[Verdict.BUSY]:
            raise PeerError(Reason.PEER_BUSY, book.worst)
        self._links.works(destination)
        if states[DeliveryState.PENDING]:
            if book.verdicts[Verdict.LATER]:
                raise DeliveryFailedError(Reason.PEER_BUSY, book.worst)
            raise DeliveryHaltedError
        if states[DeliveryState.REFUSED]:
            raise _refused(states, book)
        count = states[DeliveryState.DELIVERED]
        result = {"delivered": count, "warnings": book.warnings, "seconds": {"SEND": round(seconds, 3)}}
        self._store.jobs.succeed(job, result)
        log.info(events.DELIVERY_FINISHED, instances=count, warnings=book.warnings)

    def _job_trouble(self, job: JobRecord, error: ReasonedError, *, retry_at: datetime | None = None) -> None:
        """Record the failure and, unless it is final, when the job is due again."""
        now = self._now()
        decided = decide(
            error.reason,
            attempts=job.attempts,
            created_at=job.created_at,
            now=now,
            policy=self._links.policy,
            rng=self._rng,
        )
        due = None if decided is None else (retry_at or decided)
        reason, message = error.reason, error.message
        if due is None and error.reason not in PERMANENT:  # only age ends a delivery that could still work
            reason, message = Reason.GAVE_UP, f"{Reason.GAVE_UP.sentence} Last trouble: {error.message}"
        self._store.jobs.fail(job, reason=str(reason), message=message, retry_at=due)
        if due is None:
            log.error(events.DELIVERY_REFUSED, reason=str(reason), message=message)
        else:
            wait_s = round((due - now).total_seconds(), 1)
            log.warning(events.DELIVERY_DEFERRED, reason=str(reason), message=message, wait_s=wait_s)


def _refused(states: Counter[DeliveryState], book: AnswerBook) -> DeliveryFailedError:
    """Why a series did not arrive as a whole: in part, not at all, or for a reason on our side."""
    refused, total = states[DeliveryState.REFUSED], sum(states.values())
    detail = f"{refused} of {total} instances. {book.worst}".strip()
    if book.reasons and sum(book.reasons.values()) == refused and len(book.reasons) == 1:
        (reason,) = book.reasons
        return DeliveryFailedError(reason, detail)
    whole = refused == total
    return DeliveryFailedError(Reason.REFUSED_BY_PEER if whole else Reason.PARTLY_DELIVERED, detail)


def _parcels(rows: Sequence[tuple[DeliveryRecord, StoredObject]]) -> list[Parcel]:
    """What is to be sent, with the digests that its bytes must have to leave."""
    return [
        Parcel(
            delivery.id,
            Outgoing(
                stored.path,
                stored.sop_class_uid,
                stored.sop_instance_uid,
                stored.transfer_syntax_uid,
                digest=stored.digest,
                digest_scope=stored.digest_scope,
            ),
        )
        for delivery, stored in rows
    ]
