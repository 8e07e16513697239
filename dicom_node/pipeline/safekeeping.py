"""Judges what senders asked us to keep, and tells them: a thread per sender, so that one that hangs delays no other."""

from __future__ import annotations

import random

import structlog

from config.safekeeping import PeerSafekeeping
from config.sections import Peer
from config.settings import Settings
from dicom_node.errors import PeerError
from dicom_node.network.presentation import STORAGE_SOP_CLASSES
from dicom_node.network.safekeeping import report
from dicom_node.observability import events
from dicom_node.observability.logs import describe_error
from dicom_node.pipeline.lanes import Lanes
from dicom_node.pipeline.retry import RetryPolicy, backoff
from storage.errors import StorageError
from storage.link_states import KeepState
from storage.safekeeping_records import KeepRequestRecord, KeepTerms
from storage.store import Store

log = structlog.get_logger(__name__)


class Keeper:
    """Answers the senders that may ask, a thread for each. Call `sweep` about once a second."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._safekeeping = store.safekeeping
        self._settings = settings
        self._lanes = Lanes("keeper", self.attend)
        self._rng = random.Random()  # noqa: S311 - jitter
        section = settings.delivery
        self._policy = RetryPolicy(first=section.backoff_first, longest=section.backoff_longest)

    def sweep(self) -> None:
        """Start a lane for every sender that may ask and has none running."""
        for peer in self._settings.peers:
            if peer.safekeeping is not None and peer.enabled:
                self._lanes.start(peer.name)

    def attend(self, name: str) -> None:
        """Judge and report what is due for one sender, until nothing is."""
        peer = next((one for one in self._settings.peers if one.name == name), None)
        if peer is None or peer.safekeeping is None:
            return
        try:
            while not self._lanes.stopping.is_set():
                asker = peer.safekeeping.ae_title or peer.ae_title
                request = self._safekeeping.take_due(asker)
                if request is None:
                    return
                self._answer(peer, peer.safekeeping, request)
        except StorageError as exc:  # the next sweep tries again
            log.warning(events.SWEEP_FAILED, sweep="safekeeping", peer=name, **describe_error(exc))

    def stop(self, timeout_s: float) -> None:
        """Let running reports finish within `timeout_s`."""
        self._lanes.stop(timeout_s)

    def _answer(self, peer: Peer, section: PeerSafekeeping, request: KeepRequestRecord) -> None:
        """Judge a request that was not, and report one that is."""
        if request.state is KeepState.WAITING:
            terms = KeepTerms(section.wait_for, section.keep_for, frozenset(STORAGE_SOP_CLASSES))
            if not self._safekeeping.judge(request.id, terms):
                return
        judgement = self._safekeeping.judgement(request.id)
        counts = {"promised": len(judgement.promised), "failed": len(judgement.failed)}
        facts = {"peer": peer.name, "transaction_uid": request.transaction_uid, **counts}
        try:
            report(
                report_peer(peer, section, request.called_ae),
                request.transaction_uid,
                judgement.promised,
                judgement.failed,
            )
        except PeerError as exc:
            self._defer(section, request, exc, facts)
            return
        self._safekeeping.reported(request.id)
        log.info(events.SAFEKEEPING_REPORTED, **facts)

    def _defer(
        self, section: PeerSafekeeping, request: KeepRequestRecord, error: PeerError, facts: dict[str, object]
    ) -> None:
        wait = backoff(request.failures + 1, self._policy, self._rng)
        again = self._safekeeping.defer(request.id, wait, error.message, longest=section.report_within)
        name = events.SAFEKEEPING_DEFERRED if again else events.SAFEKEEPING_GIVEN_UP
        tell = log.warning if again else log.error
        tell(name, reason=str(error.reason), message=error.message, **facts)


def report_peer(peer: Peer, section: PeerSafekeeping, called_ae: str | None) -> Peer:
    """Where reports go, and under which of our AE titles: that which was asked, unless one is configured."""
    changes = {
        "ae_title": section.ae_title or peer.ae_title,
        "host": section.host or peer.host,
        "port": section.port or peer.port,
        "calling_ae_title": peer.calling_ae_title or called_ae,
    }
    return peer.model_copy(update=changes)
