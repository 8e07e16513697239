"""Takes the requests of senders that ask us to keep their images; judged and answered elsewhere, later."""

from __future__ import annotations

import structlog

from config.settings import Settings
from dicom_node.network.safekeeping import NOT_AUTHORIZED, RESOURCE_LIMITATION, TAKEN, Asked
from dicom_node.observability import events
from storage.safekeeping_records import NewKeepRequest
from storage.store import Store

log = structlog.get_logger(__name__)


class KeepRequests:
    """Takes requests, in whichever process they arrive."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._safekeeping = store.safekeeping
        self._settings = settings

    def hear(self, asked: Asked) -> int:
        """Keep a request for good and return the status of the answer. Raises `StorageError`.

        0124: nobody said that this AE may ask; 0213: its list is too long, or too many requests are open.
        """
        status = self._take(asked)
        facts = {"calling_ae": asked.calling_ae, "transaction_uid": asked.transaction_uid}
        if status == TAKEN:
            log.info(events.SAFEKEEPING_ASKED, instances=len(asked.instances), **facts)
        else:
            log.warning(events.SAFEKEEPING_REFUSED, status=f"{status:04X}", **facts)
        return status

    def _take(self, asked: Asked) -> int:
        peer = self._settings.asking_peer(asked.calling_ae)
        if peer is None or peer.safekeeping is None:
            return NOT_AUTHORIZED
        if len(asked.instances) > peer.safekeeping.most_instances:
            return RESOURCE_LIMITATION
        request = NewKeepRequest(asked.transaction_uid, asked.calling_ae, asked.called_ae, asked.instances)
        taken = self._safekeeping.take(request, most_open=peer.safekeeping.most_open)
        return RESOURCE_LIMITATION if taken == "too many" else TAKEN
