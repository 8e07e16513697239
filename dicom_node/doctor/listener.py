"""A listener on the node's own port for the time of a check: admits as the node would, keeps nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from config.settings import Settings
from dicom_node.errors import CannotListenError
from dicom_node.intake.admission import Admission
from dicom_node.network.received import AssociationInfo, AssociationRequest, ReceivedInstance, buffered
from dicom_node.network.scp import ScpSettings, StorageScp
from dicom_node.network.services import ScpService
from dicom_node.network.status import STORED, Ending, Rejection, StoreResponse

_ARRIVAL_S = 10.0


class Watcher:
    """A listener that admits as the node would, keeps nothing and remembers who came."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._came = threading.Event()
        self._uids: set[str] = set()
        self.turned_away: list[tuple[AssociationRequest, Rejection]] = []

    def admits(self, request: AssociationRequest) -> bool:
        """Say what the node would say."""
        return self._admission.admits(request)

    def opened(self, request: AssociationRequest) -> int:
        """Nothing is recorded."""
        del request
        return 0

    def rejected(self, request: AssociationRequest, rejection: Rejection) -> None:
        """Remember it for the finding."""
        self.turned_away.append((request, rejection))

    def closed(self, association: AssociationInfo, ending: Ending) -> None:
        """Nothing is recorded."""

    def receive(self, received: ReceivedInstance) -> StoreResponse:
        """Acknowledge and forget: this was a test object."""
        self._uids.add(received.sop_instance_uid)
        self._came.set()
        return STORED

    def saw(self, sop_instance_uid: str) -> bool:
        """Whether the object has arrived, or does within a moment."""
        self._came.wait(_ARRIVAL_S)
        return sop_instance_uid in self._uids


@contextmanager
def listening(settings: Settings, services: Sequence[ScpService] = ()) -> Iterator[Watcher | None]:
    """A listener on our port for the time of the check; None when the node itself is listening."""
    watcher = Watcher(Admission(settings.node.accept_from))
    scp = StorageScp(ScpSettings.of(settings.node), buffered(watcher.receive), watcher, services=services)
    try:
        scp.start()
    except CannotListenError:
        yield None
        return
    try:
        yield watcher
    finally:
        scp.stop()
