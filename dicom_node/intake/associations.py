"""Keeps one row for each association, from acceptance to its end."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from dicom_node.intake.admission import Admission
from dicom_node.intake.alerts import AlertGate
from dicom_node.network.received import AssociationInfo, AssociationRequest, IntakeClosedError
from dicom_node.network.status import Ending, Rejection
from dicom_node.observability import events
from dicom_node.observability.logs import describe_error
from storage.errors import StorageError
from storage.store import Store
from storage.trail import TrailEvent

log = structlog.get_logger(__name__)


class AssociationLedger:
    """The listener of the SCP: admits callers, opens and closes rows, says so in the log.

    `run_id` names this run of the receiver; rows that an earlier run left open are closed as lost when
    the ledger is made, which marks their series as interrupted. While `has_room` says no, new
    associations are turned away for the time being; open ones go on.
    """

    def __init__(
        self,
        store: Store,
        admission: Admission,
        *,
        run_id: str,
        has_room: Callable[[], bool] = lambda: True,
        alone: bool = True,
    ) -> None:
        """`alone` False: other runs are at work, and whoever started them closes what they lose."""
        self._index = store.index
        self._trail = store.trail
        self._alerts = AlertGate()
        self._admission = admission
        self._run_id = run_id
        self._has_room = has_room
        if alone:
            self._index.close_lost_associations(run_id)

    def admits(self, request: AssociationRequest) -> bool:
        """Say whether this calling AE may open an association from this address."""
        return self._admission.admits(request)

    def opened(self, request: AssociationRequest) -> int:
        """Record an accepted association and return its id; any exception rejects it for now."""
        if not self._has_room():
            raise IntakeClosedError
        number = self._index.open_association(
            request.calling_ae, request.called_ae, request.peer_host, self._run_id
        )
        log.info(
            TrailEvent.ASSOCIATION_OPENED,
            association=number,
            calling_ae=request.calling_ae,
            called_ae=request.called_ae,
        )
        return number

    def rejected(self, request: AssociationRequest, rejection: Rejection) -> None:
        """Say in the log who was turned away and why, and, unless there are too many, in the trail."""
        facts = {
            "calling_ae": request.calling_ae,
            "called_ae": request.called_ae,
            "peer_host": request.peer_host,
            "rejection": rejection.name,
        }
        log.warning(events.ASSOCIATION_REJECTED, **facts)
        unreported = self._alerts.passes(tuple(facts.values()))
        if unreported is None:
            return
        try:
            self._trail.append(events.ASSOCIATION_REJECTED, data={**facts, "unreported": unreported})
        except StorageError as exc:  # the peer has its answer and the log its line
            log.warning(events.ASSOCIATION_REJECTED, **describe_error(exc))

    def closed(self, association: AssociationInfo, ending: Ending) -> None:
        """Close the row; a series it carried counts as interrupted unless the peer released."""
        self._index.close_association(association.id, ending.value)
        log.info(TrailEvent.ASSOCIATION_CLOSED, association=association.id, ending=ending.value)
