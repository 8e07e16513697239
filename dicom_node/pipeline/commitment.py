"""Storage commitment of what was delivered: asked for after the delivery, kept when the report comes.

Requests go out from a thread per destination, so that one that hangs delays no other; they never touch the
circuit of the deliveries, because the service that is asked may be another machine. Which instances are
sent again is decided by the table below.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime
from typing import Final

import structlog

from config.commitment import PeerCommitment
from config.sections import Peer
from config.settings import Settings
from dicom_node.errors import PeerError
from dicom_node.network.commitment import KeepReport, ask_to_keep
from dicom_node.observability import events
from dicom_node.observability.logs import describe_error
from dicom_node.pipeline.lanes import Lanes
from dicom_node.pipeline.retry import RetryPolicy, backoff
from storage.commitments import Patience
from storage.delivery_records import CommitmentReport, CommitmentRequest
from storage.errors import StorageError
from storage.store import Store

log = structlog.get_logger(__name__)

SENT_AGAIN: Final = frozenset(
    {
        0x0110,  # processing failure
        0x0112,  # no such object instance
        0x0131,  # duplicate transaction UID
        0x0213,  # resource limitation
    }
)
"""Failure Reasons (0008,1197) after which the same bytes may find a place; 0119 and 0122 are final."""


class CommitmentReports:
    """Takes reports, in whichever process they arrive."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings

    def heard(self, report: KeepReport) -> bool:
        """Keep a report for good; False for a transaction that is not ours. Raises `StorageError`."""
        outcome = self._store.commitments.report(
            CommitmentReport(report.transaction_uid, report.committed, dict(report.failed)),
            resend=SENT_AGAIN,
            resends=self._resends,
        )
        if outcome is None:
            log.warning(events.COMMITMENT_UNKNOWN, transaction_uid=report.transaction_uid)
            return False
        facts = {"destination": outcome.record.destination, "job": outcome.record.job_id}
        counts = {
            "committed": outcome.committed,
            "sent_again": outcome.sent_again,
            "given_up": outcome.given_up,
        }
        tell = log.error if outcome.given_up else log.info
        tell(events.COMMITMENT_ANSWERED, transaction_uid=report.transaction_uid, **facts, **counts)
        return True

    def _resends(self, destination: str) -> int:
        """How often instances are sent again to a destination; never to one that is no longer asked."""
        peer = self._settings.peer(destination)
        return peer.commitment.resends if peer is not None and peer.commitment is not None else 0


class CommitmentRequester:
    """Asks the destinations that are configured for it, a thread for each. Call `sweep` about once a second."""

    def __init__(self, store: Store, settings: Settings, *, now: Callable[[], datetime]) -> None:
        self._store = store
        self._settings = settings
        self._now = now
        self._reports = CommitmentReports(store, settings)
        self._lanes = Lanes("commitment", self.attend)
        self._failures: dict[str, int] = {}
        self._rng = random.Random()  # noqa: S311 - jitter
        section = settings.delivery
        self._policy = RetryPolicy(first=section.backoff_first, longest=section.backoff_longest)

    def sweep(self) -> None:
        """Start a lane for every destination that wants one and has none running."""
        for peer in self._settings.peers:
            if peer.commitment is not None and peer.enabled:
                self._lanes.start(peer.name)

    def attend(self, name: str) -> None:
        """Draw up what is to be asked of one destination and ask it, until nothing is due."""
        peer = self._settings.peer(name)
        if peer is None or peer.commitment is None:
            return
        patience = self._patience(peer.commitment)
        try:
            _, given_up = self._store.commitments.prepare(name, patience)
            if given_up:
                log.error(events.COMMITMENT_GIVEN_UP, destination=name, deliveries=given_up)
            while not self._lanes.stopping.is_set():
                request = self._store.commitments.take(name, patience)
                if request is None or not self._ask(peer, peer.commitment, request):
                    return
        except StorageError as exc:  # the next sweep tries again
            log.warning(events.SWEEP_FAILED, sweep="commitment", destination=name, **describe_error(exc))

    def stop(self, timeout_s: float) -> None:
        """Let running requests finish within `timeout_s`."""
        self._lanes.stop(timeout_s)

    def _patience(self, section: PeerCommitment) -> Patience:
        longest = self._settings.delivery.give_up_after
        return Patience(section.asks, section.answer_within, longest)

    def _ask(self, peer: Peer, section: PeerCommitment, request: CommitmentRequest) -> bool:
        """Send one request; False when the destination could not be asked and has to be left alone."""
        record, name = request.record, peer.name
        log.info(
            events.COMMITMENT_ASKED,
            destination=name,
            job=record.job_id,
            transaction_uid=record.transaction_uid,
            instances=len(request.instances),
            ask=record.ask,
        )
        try:
            ask_to_keep(
                commitment_peer(peer, section),
                record.transaction_uid,
                request.instances,
                self._reports.heard,
                linger_s=section.linger.total_seconds(),
            )
        except PeerError as exc:
            self._failures[name] = self._failures.get(name, 0) + 1
            until = self._now() + backoff(self._failures[name], self._policy, self._rng)
            self._store.commitments.defer(record, until, exc.message)
            log.warning(
                events.COMMITMENT_DEFERRED,
                destination=name,
                reason=str(exc.reason),
                message=exc.message,
                until=until.isoformat(),
            )
            return False
        self._failures.pop(name, None)
        return True


def commitment_peer(peer: Peer, section: PeerCommitment) -> Peer:
    """Whom to ask: the peer itself, or the AE that its configuration names for it."""
    changes = {
        "ae_title": section.ae_title or peer.ae_title,
        "host": section.host or peer.host,
        "port": section.port or peer.port,
    }
    return peer.model_copy(update=changes)
