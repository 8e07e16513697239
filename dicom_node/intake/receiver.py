"""One instance from the wire to the disk and the index; success means it survives a power cut.

Order: temporary file, fsync, rename, directory fsync, committed row, and only then 0000. Whatever fails
before the row leaves no file behind, and the sender keeps its copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import structlog

from config.settings import Settings
from dicom_node.errors import Reason, RefusedInstanceError
from dicom_node.intake.admission import Admission, Identity, identify
from dicom_node.intake.associations import AssociationLedger
from dicom_node.intake.part10 import part10_header
from dicom_node.network.received import ReceivedInstance, buffered
from dicom_node.network.scp import ScpSettings, StorageScp
from dicom_node.network.services import ScpService
from dicom_node.network.status import STORED, Status, StoreResponse
from storage.errors import SpoolFullError, StorageError
from storage.records import AddResult, NewInstance
from storage.spool import Staged
from storage.store import Store
from storage.trail import TrailEvent

log = structlog.get_logger(__name__)

_EVENTS: Mapping[str, str] = {
    "stored": TrailEvent.INSTANCE_STORED,
    "duplicate": "instance.duplicate",
    "conflict": TrailEvent.INSTANCE_CONFLICT,
}


class Receiver:
    """Receives instances into a store. Used by several threads at once; holds no state of its own."""

    def __init__(self, store: Store) -> None:
        self._spool = store.spool
        self._index = store.index

    def receive(self, received: ReceivedInstance) -> StoreResponse:
        """Keep one instance and return the answer to it.

        0000: it is durable, now or since an earlier, identical request. The same UID with other content
        is kept beside the first and marked. Refusals follow the table in `network.status`.
        """
        try:
            identity = identify(received)
            outcome = self._keep(received, identity)
        except RefusedInstanceError as exc:
            return _refuse(received, exc.status, exc.reason, exc.message, exc.offending)
        except SpoolFullError as exc:
            return _refuse(received, Status.OUT_OF_RESOURCES, Reason.STORAGE_FULL, str(exc))
        except StorageError as exc:
            return _refuse(received, Status.OUT_OF_RESOURCES, Reason.STORAGE_FAILED, str(exc))
        log.info(
            _EVENTS[outcome],
            association=received.association.id,
            series_instance_uid=identity.series_instance_uid,
            sop_instance_uid=identity.sop_instance_uid,
            size=len(received.data),
        )
        return STORED

    def _keep(self, received: ReceivedInstance, identity: Identity) -> str:
        """Make the instance durable; return what it turned out to be."""
        self._spool.check_space(len(received.data))
        staged = self._spool.write(part10_header(received), [received.data])
        try:
            path = self._spool.commit(staged)
        finally:
            self._spool.discard(staged)
        result = self._add(_new_instance(received, identity, staged, path))
        if result.outcome == "duplicate":
            self._spool.remove(path)
        return result.outcome

    def _add(self, instance: NewInstance) -> AddResult:
        """Commit the row; if that fails for certain, the file goes too."""
        try:
            return self._index.add_instance(instance)
        except StorageError:
            # After an error the row may exist all the same. A file without a row is swept up later, a row
            # without its file would be a loss: the file goes only when the index can be asked and says no.
            with suppress(StorageError):
                if self._index.find_instance(instance.sop_instance, instance.digest) is None:
                    self._spool.remove(instance.path)
            raise


def build_scp(
    store: Store, settings: Settings, *, run_id: str, services: Sequence[ScpService] = ()
) -> StorageScp:
    """The SCP of the node, wired to the store and not yet started; `services` are offered beside storage.

    `run_id` names this run of the receiver; associations that an earlier run left open are closed as lost.
    """
    hard_percent = settings.storage.watermarks.hard
    ledger = AssociationLedger(
        store,
        Admission(settings.node.accept_from),
        run_id=run_id,
        has_room=lambda: store.spool.usage().used_percent < hard_percent,
    )
    return StorageScp(
        ScpSettings.of(settings.node, settings.receiving),
        buffered(Receiver(store).receive),
        ledger,
        services=services,
    )


def _new_instance(received: ReceivedInstance, identity: Identity, staged: Staged, path: Path) -> NewInstance:
    """The row of an instance whose file is in place."""
    return NewInstance(
        study_uid=identity.study_instance_uid,
        series_uid=identity.series_instance_uid,
        modality=identity.modality,
        sop_class=identity.sop_class_uid,
        sop_instance=identity.sop_instance_uid,
        transfer_syntax=received.transfer_syntax_uid,
        digest=staged.digest,
        path=path,
        size=staged.size,
        association_id=received.association.id,
        calling_ae=received.association.calling_ae,
        called_ae=received.association.called_ae,
    )


def _refuse(
    received: ReceivedInstance, status: int, reason: Reason, message: str, offending: int | None = None
) -> StoreResponse:
    """Log a refusal and make its answer; the peer reads the reason code only."""
    log.warning(
        "instance.refused",
        association=received.association.id,
        status=f"{status:04X}",
        reason=str(reason),
        message=message,
    )
    return StoreResponse(int(status), offending=offending, comment=str(reason))
