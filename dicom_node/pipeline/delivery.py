"""The delivery loop: one lane per destination, oldest series first, every instance answered for.

A lane runs in a thread of its own, so a destination that is down delays no other. Trouble with the
destination itself (no connection, rejection, silence) holds the whole lane with growing waits; when it
is back, the lane drains from the oldest series on. Trouble with one series ends that series.
"""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from config.names import RETURN_TO_SENDER
from config.sections import Peer
from config.settings import Settings
from dicom_node.errors import AssociationRejectedError, PeerError, Reason, ReasonedError
from dicom_node.observability import events
from dicom_node.observability.logs import describe_error
from dicom_node.pipeline.enhance import Heartbeat
from dicom_node.pipeline.retry import PERMANENT, RetryPolicy, backoff, decide
from dicom_node.sinks.dimse import Answer, Parcel, deliver
from dicom_node.sinks.outcome import Verdict
from storage.errors import LostClaimError, StorageError
from storage.records import DeliveryRecord, DerivedRecord, JobRecord
from storage.states import DeliveryState, JobKind
from storage.store import Store

log = structlog.get_logger(__name__)


class DeliveryHaltedError(Exception):
    """The association was released before its last instance: the node goes down, or the job was canceled."""


class DeliveryFailedError(ReasonedError):
    """The delivery attempt ended without every instance delivered."""


@dataclass
class Tally:
    """The answers of one association."""

    verdicts: Counter[Verdict] = field(default_factory=Counter)
    worst: tuple[int, str] | None = None

    def add(self, answer: Answer) -> None:
        """Count one answer and remember the last one that was not success."""
        self.verdicts[answer.verdict] += 1
        if answer.verdict is not Verdict.DELIVERED:
            self.worst = (answer.status, answer.comment)


class DeliverySender:
    """Runs DELIVER jobs, a lane per destination."""

    def __init__(self, store: Store, settings: Settings, *, name: str, now: Callable[[], datetime]) -> None:
        self._store = store
        self._settings = settings
        self._name = name
        self._now = now
        self._lanes: dict[str, threading.Thread] = {}
        self._stopping = threading.Event()
        self._rng = random.Random()  # noqa: S311 - jitter
        section = settings.delivery
        self._retry = RetryPolicy(
            first=section.backoff_first, longest=section.backoff_longest, give_up_after=section.give_up_after
        )

    def dispatch(self) -> None:
        """Start a lane for every destination that has due work and no lane running."""
        for destination in self._store.jobs.pending_destinations():
            lane = self._lanes.get(destination)
            if self._stopping.is_set() or self._paused(destination) or (lane is not None and lane.is_alive()):
                continue
            lane = threading.Thread(
                target=self.drain, args=(destination,), name=f"lane-{destination}", daemon=True
            )
            self._lanes[destination] = lane
            lane.start()

    def drain(self, destination: str) -> None:
        """Deliver due jobs of one destination, oldest first, until none is due."""
        lease = self._settings.enhancement.lease
        while not self._stopping.is_set():
            job = self._store.jobs.claim(JobKind.DELIVER, self._name, lease, destination=destination)
            if job is None:
                return
            bound = {
                "job": job.id,
                "series": job.series_id,
                "attempt": job.attempts,
                "destination": destination,
            }
            canceled = threading.Event()
            heartbeat = Heartbeat(self._store, job, lease, on_cancel=canceled.set)
            with structlog.contextvars.bound_contextvars(**bound), heartbeat:
                self._attempt(job, destination, go_on=lambda: not self._halted(canceled))  # noqa: B023

    def stop(self, timeout_s: float) -> None:
        """Let running associations finish within `timeout_s`; what is not answered by then is sent again."""
        self._stopping.set()
        for lane in self._lanes.values():
            lane.join(timeout_s)

    def _halted(self, canceled: threading.Event) -> bool:
        """Whether to release the association before the next instance."""
        return self._stopping.is_set() or canceled.is_set()

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
        try:
            peer = self._peer(destination)
            rows = self._store.deliveries.for_job(job.id, only_pending=True)
            begin = time.monotonic()
            tally = self._send(job, peer, rows, go_on)
            self._settle(job, tally, seconds=time.monotonic() - begin)
        except DeliveryHaltedError:
            # Ends as CANCELED where an operator asked for that meanwhile.
            self._store.jobs.give_back(
                job, reason=str(Reason.NODE_STOPPING), message=Reason.NODE_STOPPING.sentence
            )
        except PeerError as exc:
            self._peer_trouble(job, destination, exc)
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

    def _send(
        self,
        job: JobRecord,
        peer: Peer,
        rows: Sequence[tuple[DeliveryRecord, DerivedRecord]],
        go_on: Callable[[], bool],
    ) -> Tally:
        """Send every pending instance; each answer is committed as it arrives."""
        log.info(events.DELIVERY_STARTED, instances=len(rows))
        tally = Tally()

        def heard(answer: Answer) -> None:
            tally.add(answer)
            state = {
                Verdict.DELIVERED: DeliveryState.DELIVERED,
                Verdict.REFUSED: DeliveryState.REFUSED,
                Verdict.LATER: DeliveryState.PENDING,
            }[answer.verdict]
            self._store.deliveries.record(
                job, answer.delivery_id, state=state, status=answer.status, comment=answer.comment
            )

        parcels = [_parcel(delivery, derived) for delivery, derived in rows]
        deliver(peer, parcels, heard, go_on=go_on)
        self._store.jobs.clear_destination(peer.name)
        return tally

    def _settle(self, job: JobRecord, tally: Tally, *, seconds: float) -> None:
        """Decide the job from its rows: delivered only when every instance was answered with success."""
        states = Counter(delivery.state for delivery, _ in self._store.deliveries.for_job(job.id))
        status = f"Last status 0x{tally.worst[0]:04X}." if tally.worst else ""
        if states[DeliveryState.PENDING] and tally.worst is None:
            raise DeliveryHaltedError
        if states[DeliveryState.PENDING]:
            raise DeliveryFailedError(Reason.PEER_BUSY, status)
        if states[DeliveryState.REFUSED]:
            refused = f"{states[DeliveryState.REFUSED]} of {sum(states.values())} instances."
            raise DeliveryFailedError(Reason.REFUSED_BY_PEER, f"{refused} {status}".strip())
        count = states[DeliveryState.DELIVERED]
        self._store.jobs.succeed(job, {"delivered": count, "seconds": {"SEND": round(seconds, 3)}})
        log.info(events.DELIVERY_FINISHED, instances=count)

    def _peer_trouble(self, job: JobRecord, destination: str, error: PeerError) -> None:
        """The destination itself is in trouble: hold its lane, keep the job."""
        if isinstance(error, AssociationRejectedError) and error.reason is Reason.NO_CONTEXT:
            self._job_trouble(job, error)
            return
        failures = self._store.jobs.destination_status(destination).failures + 1
        until = self._now() + backoff(failures, self._retry, self._rng)
        self._store.jobs.hold_destination(destination, until, error.message)
        self._job_trouble(job, error, retry_at=until)

    def _job_trouble(self, job: JobRecord, error: ReasonedError, *, retry_at: datetime | None = None) -> None:
        """Record the failure and, unless it is final, when the job is due again."""
        now = self._now()
        decided = decide(
            error.reason,
            attempts=job.attempts,
            created_at=job.created_at,
            now=now,
            policy=self._retry,
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


def _parcel(delivery: DeliveryRecord, derived: DerivedRecord) -> Parcel:
    """Prove the stored bytes before they leave: one SOP Instance UID never carries two contents."""
    digest = hashlib.sha256()
    try:
        with derived.path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as exc:
        raise DeliveryFailedError(
            Reason.SOURCE_CHANGED, f"Derived instance {derived.sop_instance_uid}."
        ) from exc
    if digest.hexdigest() != derived.digest:
        raise DeliveryFailedError(Reason.SOURCE_CHANGED, f"Derived instance {derived.sop_instance_uid}.")
    return Parcel(
        delivery_id=delivery.id,
        path=derived.path,
        sop_class_uid=derived.sop_class_uid,
        sop_instance_uid=derived.sop_instance_uid,
        transfer_syntax_uid=derived.transfer_syntax_uid,
    )
