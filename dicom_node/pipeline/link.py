"""The link to one destination: its circuit, its pace, and what its troubles lead to."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from config.sections import DeliverySection, Peer
from dicom_node.errors import AssociationRejectedError, PeerError, Reason
from dicom_node.network.pace import Pace
from dicom_node.observability import events
from dicom_node.pipeline.retry import RetryPolicy, backoff
from dicom_node.sinks.dimse import probe
from storage.link_states import CircuitState
from storage.records import DestinationStatus
from storage.store import Store

log = structlog.get_logger(__name__)

Probe = Callable[[Peer], None]


class Links:
    """What the sender knows of its destinations and does about them; safe for several threads."""

    def __init__(self, store: Store, section: DeliverySection, rng: random.Random) -> None:
        self._destinations = store.destinations
        self._rng = rng
        self._opens_at = section.circuit_opens_at
        self._policy = RetryPolicy(
            first=section.backoff_first, longest=section.backoff_longest, give_up_after=section.give_up_after
        )

    @property
    def policy(self) -> RetryPolicy:
        """How long a destination is waited for."""
        return self._policy

    def is_usable(self, name: str, peer: Peer | None, ask: Probe = probe) -> bool:
        """Whether something may be sent now; a destination with an open circuit is asked by C-ECHO first.

        A destination that is no longer configured counts as usable: its jobs end with that reason.
        """
        status = self._destinations.status(name)
        if status.circuit is CircuitState.CLOSED:
            return True
        if peer is None:
            self._destinations.works(name)
            return True
        patience = 2 * peer.timeouts.association + peer.timeouts.dimse
        if not self._destinations.probing(name, patience):
            return False
        try:
            ask(peer)
        except PeerError as exc:
            self.failed(name, exc)
            return False
        self._destinations.works(name)
        log.info(events.DESTINATION_BACK, destination=name, failures=status.failures)
        return True

    def failed(self, name: str, error: PeerError) -> datetime:
        """Note that the destination did not do its part; when it may be asked again."""
        for_good = error.reason is Reason.NOT_AUTHORIZED or (
            isinstance(error, AssociationRejectedError) and error.permanent
        )
        status = self._destinations.failed(
            name,
            error.message,
            wait=lambda failures: self._wait(failures, for_good=for_good),
            opens_at=self._opens_at,
            for_good=for_good,
        )
        _tell(status, for_good=for_good)
        if status.not_before is None:
            raise AssertionError("a failed destination is held")
        return status.not_before

    def works(self, name: str) -> None:
        """The destination has done its part."""
        self._destinations.works(name)

    def pace(self, name: str) -> Pace:
        """How fast the destination was."""
        status = self._destinations.status(name)
        return Pace(status.bytes_per_s, status.answer_s)

    def measured(self, name: str, pace: Pace) -> None:
        """Keep how fast the destination is."""
        if pace.bytes_per_s is not None:
            self._destinations.measured(name, bytes_per_s=pace.bytes_per_s, answer_s=pace.answer_s)

    def _wait(self, failures: int, *, for_good: bool) -> timedelta:
        """A trouble that only a person can mend is not asked after every few seconds."""
        return self._policy.longest if for_good else backoff(failures, self._policy, self._rng)


def _tell(status: DestinationStatus, *, for_good: bool) -> None:
    """One line a failure: an error where a person has to act, a warning where time may help."""
    until = status.not_before.isoformat() if status.not_before else None
    facts = {"destination": status.name, "failures": status.failures, "until": until}
    if for_good:
        log.error(events.DESTINATION_PAUSED, message=status.last_error, **facts)
    else:
        log.warning(events.DESTINATION_HELD, message=status.last_error, circuit=str(status.circuit), **facts)
