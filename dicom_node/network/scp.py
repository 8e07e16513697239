"""The Storage and Verification SCP: negotiation here, what happens to an instance is given.

`StorageScp` gets two things: a receive function, which answers only when the instance is durable, and a
listener, which decides who may call and records associations. It knows neither files nor tables.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, cast

import structlog
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.pdu_primitives import A_ABORT, A_ASSOCIATE

from config.sections import NodeSection
from config.tls import ListenerTls
from dicom_node.errors import CannotListenError
from dicom_node.network.presentation import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    accepted_contexts,
)
from dicom_node.network.pynetdicom_switches import configure_library
from dicom_node.network.received import (
    AssociationInfo,
    AssociationListener,
    AssociationRequest,
    IntakeClosedError,
    ReceivedInstance,
)
from dicom_node.network.services import ScpService
from dicom_node.network.status import Ending, Rejection, Status, StoreResponse
from dicom_node.network.tls import RenewedContext, TlsAssociationServer
from dicom_node.network.transport import AssociationServer, SocketGuard
from dicom_node.observability.logs import describe_error

log = structlog.get_logger(__name__)

Receive = Callable[[ReceivedInstance], StoreResponse | int]
"""Answers one instance; a bare status stands for a response without details."""

# The library's own limit counts connections that have not asked for anything yet; ours counts associations.
_NO_LIBRARY_LIMIT = 100_000
_ABORT_S = 5.0  # an abort is one small PDU; whoever does not take it by then is cut off


@dataclass(frozen=True)
class ScpSettings:
    """What the acceptor needs to know; times in seconds, `max_pdu` in bytes, port 0 takes a free one.

    With `tls` the port speaks TLS and nothing else.
    """

    ae_titles: tuple[str, ...]
    host: str
    port: int
    max_pdu: int = 131072
    max_associations: int = 50
    association_timeout_s: float = 30.0
    dimse_timeout_s: float = 60.0
    network_timeout_s: float = 60.0
    pdu_deadline_s: float = 30.0
    tls: ListenerTls | None = None
    tls_handshake_s: float = 10.0

    @classmethod
    def of(cls, node: NodeSection) -> ScpSettings:
        """The settings of the node's own AE."""
        return cls(
            ae_titles=node.ae_titles,
            host=node.host,
            port=node.port,
            max_pdu=node.max_pdu,
            max_associations=node.max_associations,
            association_timeout_s=node.timeouts.association.total_seconds(),
            dimse_timeout_s=node.timeouts.dimse.total_seconds(),
            network_timeout_s=node.timeouts.network.total_seconds(),
            tls=node.tls,
        )


@dataclass
class _Open:
    """An association that holds a slot; `info` is None until its row exists."""

    request: AssociationRequest
    info: AssociationInfo | None = None
    ending: Ending = Ending.LOST


class StorageScp:
    """Accepts associations, answers C-ECHO, and hands every C-STORE request to `receive`.

    Guarantees: `receive` runs only for associations that the listener admitted and recorded; each one
    is reported closed exactly once, after its last request was answered; an exception in `receive`
    becomes status C001. `receive` and the listener are called from one thread per association.
    """

    def __init__(
        self,
        settings: ScpSettings,
        receive: Receive,
        associations: AssociationListener,
        *,
        services: Sequence[ScpService] = (),
    ) -> None:
        """Bind nothing yet; `services` are offered beside storage and verification."""
        self._settings = settings
        self._services = tuple(services)
        self._receive = receive
        self._associations = associations
        self._open: dict[Association, _Open] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._server: AssociationServer | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port the SCP listens on; raises `RuntimeError` before `start`."""
        if self._server is None:
            raise RuntimeError("the SCP has not been started")
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    @property
    def open_associations(self) -> int:
        """How many associations hold a slot at the moment."""
        with self._changed:
            return len(self._open)

    def start(self) -> None:
        """Bind and listen. Raises `CannotListenError` when the address cannot be had."""
        configure_library()
        settings = self._settings
        try:
            self._server = self._make_server()
        except OSError as exc:
            cause = exc.strerror or type(exc).__name__
            raise CannotListenError(settings.host, settings.port, cause) from exc
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.2}, name="scp-accept", daemon=True
        ).start()

    def _make_server(self) -> AssociationServer:
        """Bind the listening socket; connections queue until the accept thread runs."""
        settings = self._settings
        kind: dict[str, Any] = {"server_class": AssociationServer}
        if settings.tls is not None:
            kind = {
                "server_class": TlsAssociationServer,
                "tls": RenewedContext(settings.tls),
                "handshake_s": settings.tls_handshake_s,
            }
        server: AssociationServer = self._entity().make_server(
            (settings.host, settings.port),
            evt_handlers=[
                (evt.EVT_REQUESTED, self._on_requested),
                (evt.EVT_ACSE_RECV, self._on_acse_received),
                (evt.EVT_RELEASED, self._on_released),
                (evt.EVT_C_STORE, self._on_store),
                *(handler for service in self._services for handler in service.handlers),
            ],
            **kind,
            guard=SocketGuard(settings.pdu_deadline_s, settings.max_pdu),
            finished=self._on_finished,
        )
        return server

    def stop(self, drain: timedelta = timedelta(0)) -> None:
        """Stop accepting at once, let open associations finish for `drain`, then abort what is left."""
        if self._server is None:
            return
        self._stopping = True
        self._server.shutdown()
        if not self._wait_until_idle(drain.total_seconds()):
            self._abort_all()
            self._wait_until_idle(_ABORT_S)
        self._server.cut()
        self._server = None

    def _entity(self) -> Any:
        """The application entity with our contexts, limits and name."""
        settings = self._settings
        entity = AE(ae_title=settings.ae_titles[0])
        entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        entity.maximum_pdu_size = settings.max_pdu
        entity.maximum_associations = _NO_LIBRARY_LIMIT
        entity.acse_timeout = settings.association_timeout_s
        entity.dimse_timeout = settings.dimse_timeout_s
        entity.network_timeout = settings.network_timeout_s
        entity.supported_contexts = [
            build_context(context.sop_class_uid, list(context.transfer_syntax_uids))
            for context in accepted_contexts()
        ] + [context for service in self._services for context in service.contexts]
        return entity

    # --- associations

    def _on_requested(self, event: Event) -> None:
        """Admit or reject before the library negotiates; nothing is accepted without its record."""
        primitive = cast(A_ASSOCIATE, event.assoc.requestor.primitive)
        request = AssociationRequest(
            calling_ae=primitive.calling_ae_title.strip(),
            called_ae=primitive.called_ae_title.strip(),
            peer_host=event.assoc.requestor.address,
        )
        rejection = self._admit(event.assoc, request)
        if rejection is None:
            return
        event.assoc.acse.send_reject(*rejection.value)
        event.assoc.is_rejected = True
        event.assoc.kill()
        try:
            self._associations.rejected(request, rejection)
        except Exception as exc:  # the peer has its answer; only the note is missing
            log.error("association.rejected", rejection=rejection.name, **describe_error(exc))

    def _admit(self, assoc: Association, request: AssociationRequest) -> Rejection | None:
        """Take a slot and record the association, or say why not."""
        if request.called_ae not in self._settings.ae_titles:
            return Rejection.CALLED_AE_UNKNOWN
        slot = _Open(request)
        try:
            if not self._associations.admits(request):
                return Rejection.CALLING_AE_UNKNOWN
            if not self._take_slot(assoc, slot):
                return Rejection.LOCAL_LIMIT
            number = self._associations.opened(request)
        except IntakeClosedError:
            self._give_slot_back(assoc)
            return Rejection.TEMPORARY_CONGESTION
        except Exception as exc:  # edge: without a record there is no association
            self._give_slot_back(assoc)
            log.error("association.rejected", calling_ae=request.calling_ae, **describe_error(exc))
            return Rejection.TEMPORARY_CONGESTION
        slot.info = AssociationInfo(number, request.calling_ae, request.called_ae, request.peer_host)
        return None

    def _take_slot(self, assoc: Association, slot: _Open) -> bool:
        """Count this association, if there is room for it."""
        with self._changed:
            if self._stopping or len(self._open) >= self._settings.max_associations:
                return False
            self._open[assoc] = slot
            return True

    def _give_slot_back(self, assoc: Association) -> _Open | None:
        """Forget an association and wake whoever waits for the last one."""
        with self._changed:
            slot = self._open.pop(assoc, None)
            self._changed.notify_all()
            return slot

    def _on_acse_received(self, event: Event) -> None:
        """Tell an abort by the peer from a connection that just went away."""
        if isinstance(getattr(event, "primitive", None), A_ABORT):
            self._mark(event.assoc, Ending.ABORTED)

    def _on_released(self, event: Event) -> None:
        """The peer said goodbye as it should."""
        self._mark(event.assoc, Ending.RELEASED)

    def _mark(self, assoc: Association, ending: Ending) -> None:
        """Remember how the association ends; its threads may still be running."""
        with self._changed:
            if assoc in self._open:
                self._open[assoc].ending = ending

    def _on_finished(self, assoc: Association) -> None:
        """Record the end; called once per connection, after the association's threads are gone."""
        with self._changed:
            slot = self._open.get(assoc)
        try:
            if slot is not None and slot.info is not None:
                self._associations.closed(slot.info, slot.ending)
        except Exception as exc:  # edge: a restart closes the row as lost
            log.error("association.closed", ending=slot.ending.value if slot else None, **describe_error(exc))
        finally:
            self._give_slot_back(assoc)

    # --- requests

    def _on_store(self, event: Event) -> Dataset:
        """Answer one C-STORE request; whatever goes wrong, the peer gets a status and no text of ours."""
        with self._changed:
            slot = self._open.get(event.assoc)
        if slot is None or slot.info is None:
            return _encode(StoreResponse(Status.NOT_AUTHORIZED))
        try:
            return _encode(self._store(event, slot.info))
        except Exception as exc:  # edge: the DIMSE handler
            log.error("instance.refused", association=slot.info.id, status="C001", **describe_error(exc))
            return _encode(StoreResponse(Status.INTERNAL_ERROR, comment="INTERNAL_ERROR"))

    def _store(self, event: Event, association: AssociationInfo) -> StoreResponse | int:
        """Check what only the association knows, then hand the instance on."""
        request, context = cast(C_STORE, event.request), event.context
        if request.AffectedSOPClassUID != context.abstract_syntax:
            log.warning("instance.refused", association=association.id, status="0122")
            return StoreResponse(Status.SOP_CLASS_NOT_SUPPORTED)
        if request.DataSet is None:
            log.warning("instance.refused", association=association.id, status="C000")
            return StoreResponse(Status.CANNOT_UNDERSTAND, comment="CANNOT_UNDERSTAND")
        received = ReceivedInstance(
            sop_class_uid=str(request.AffectedSOPClassUID),
            sop_instance_uid=str(request.AffectedSOPInstanceUID),
            transfer_syntax_uid=str(context.transfer_syntax),
            data=request.DataSet.getbuffer(),
            association=association,
        )
        return self._receive(received)

    # --- stopping

    def _wait_until_idle(self, seconds: float) -> bool:
        """Wait until no association is open; False when the time is over first."""
        deadline = time.monotonic() + seconds
        with self._changed:
            return self._changed.wait_for(lambda: not self._open, max(deadline - time.monotonic(), 0.0))

    def _abort_all(self) -> None:
        """Abort what is still open."""
        with self._changed:
            left = list(self._open.items())
            for _, slot in left:
                slot.ending = Ending.ABORTED
        for assoc, _ in left:
            assoc.abort()


def _encode(response: StoreResponse | int) -> Dataset:
    """The response as the library wants it: status, and for failures what is at fault."""
    if isinstance(response, int):
        response = StoreResponse(response)
    answer = Dataset()
    answer.Status = int(response.status)
    if response.offending is not None:
        answer.OffendingElement = response.offending
    if response.comment:
        answer.ErrorComment = response.comment[:64]
    return answer
