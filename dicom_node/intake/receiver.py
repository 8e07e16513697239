"""Instances from the wire to the disk and the index; success means they survive a power cut.

Order: the file under its final, opaque name, its sync, the sync of its folder, the committed row, and only
then 0000. The row is the only thing that makes a file known. Whatever fails before it leaves no file behind,
and the sender keeps its copy; what a dying process leaves is swept up as an orphan.
"""

from __future__ import annotations

from collections.abc import Sequence

from config.receiving import ReceivingSection
from config.settings import Settings
from dicom_node.intake.admission import Admission
from dicom_node.intake.associations import AssociationLedger
from dicom_node.intake.reception import Reception
from dicom_node.network.gate import Gate
from dicom_node.network.received import ReceivedInstance, StoreRequest
from dicom_node.network.scp import ScpSettings, StorageScp
from dicom_node.network.services import ScpService
from dicom_node.network.status import StoreResponse
from storage.group_commit import GroupCommit
from storage.pauses import Part
from storage.space import Level
from storage.store import Store

_LARGEST = ReceivingSection().largest_object


class Receiver:
    """Receives instances into a store. Used by several threads at once, which share their commits."""

    def __init__(self, store: Store, *, largest: int = _LARGEST) -> None:
        """`largest`: bytes of the largest object that is taken."""
        self._store = store
        self._largest = largest
        self._commits = GroupCommit(store.index, store.health)

    def begin(self, request: StoreRequest) -> Reception:
        """Take one instance piece by piece."""
        return Reception(
            request,
            spool=self._store.spool,
            index=self._store.index,
            commits=self._commits,
            largest=self._largest,
        )

    def receive(self, received: ReceivedInstance) -> StoreResponse:
        """Keep one instance that is in memory as a whole, and return the answer to it."""
        reception = self.begin(
            StoreRequest(
                received.sop_class_uid,
                received.sop_instance_uid,
                received.transfer_syntax_uid,
                received.association,
            )
        )
        try:
            reception.write([received.data])
            return reception.finish()
        finally:
            reception.discard()


def build_scp(
    store: Store,
    settings: Settings,
    *,
    run_id: str,
    services: Sequence[ScpService] = (),
    gate: Gate | None = None,
) -> StorageScp:
    """The SCP of the node, wired to the store and not yet started; `services` are offered beside storage.

    `run_id` names this run of the receiver; associations that an earlier run left open are closed as lost,
    unless a `gate` says that other processes are at work.
    """
    ledger = AssociationLedger(
        store,
        Admission(settings.node.accept_from),
        run_id=run_id,
        has_room=lambda: store.space.level() < Level.HARD and not store.pauses.paused(Part.INTAKE),
        alone=gate is None,
    )
    return StorageScp(
        ScpSettings.of(settings.node, settings.receiving),
        Receiver(store, largest=settings.receiving.largest_object).begin,
        ledger,
        services=services,
        gate=gate,
    )
