"""The Storage and Verification SCP: negotiation here, what happens to an instance is given.

`StorageScp` gets two things: where each data set goes, which answers only when the instance is durable, and a
listener, which decides who may call and records associations. It knows neither files nor tables.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, cast

import structlog
from pynetdicom import AE, build_context
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE

from dicom_node.errors import CannotListenError
from dicom_node.network.conversation import AcceptedContext, Conversation
from dicom_node.network.gate import Gate, Ticket
from dicom_node.network.limits import ScpSettings
from dicom_node.network.presentation import (
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
    accepted_contexts,
)
from dicom_node.network.provider import serve_with_library
from dicom_node.network.pynetdicom_switches import configure_library
from dicom_node.network.received import (
    AssociationInfo,
    AssociationListener,
    AssociationRequest,
    Begin,
    IntakeClosedError,
)
from dicom_node.network.server import AssociationServer, reject, send_abort
from dicom_node.network.services import ScpService
from dicom_node.network.shares import Shares
from dicom_node.network.status import Ending, Rejection
from dicom_node.network.tls import RenewedContext, TlsAssociationServer
from dicom_node.network.wire import (
    PeerGoneError,
    ProtocolViolationError,
    TooSlowError,
    Wire,
    cut,
)
from dicom_node.observability import events
from dicom_node.observability.logs import describe_error

__all__ = ["ScpSettings", "StorageScp"]

log = structlog.get_logger(__name__)

# Ours counts associations, also those of other processes; the library's counts its own threads.
_NO_LIBRARY_LIMIT = 100_000
_ABORT_S = 5.0  # an abort is one small PDU; whoever does not take it by then is cut off
_ABORT_BY_USER = b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00"


@dataclass
class _Open:
    """An association that holds a slot; `info` is None until its row exists. `cut`: we end it ourselves."""

    request: AssociationRequest
    ticket: Ticket
    info: AssociationInfo | None = None
    cut: bool = False


class StorageScp:
    """Accepts associations, answers C-ECHO, and hands every C-STORE request to `begin`.

    Guarantees: `begin` runs only for associations that the listener admitted and recorded; each one is
    reported closed exactly once, after its last request was answered; an exception becomes status C001.
    `begin`, what it returns, and the listener are called from one thread per association.
    """

    def __init__(
        self,
        settings: ScpSettings,
        begin: Begin,
        associations: AssociationListener,
        *,
        services: Sequence[ScpService] = (),
        gate: Gate | None = None,
    ) -> None:
        """Bind nothing yet; `services` are offered beside storage and verification."""
        self._settings = settings
        self._services = tuple(services)
        self._begin = begin
        self._associations = associations
        self._gate = gate or Gate(settings)
        self._shares = Shares()
        self._ours = frozenset(context.sop_class_uid for context in accepted_contexts())
        self._open: dict[int, _Open] = {}
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
        settings = self._settings
        try:
            server = self.prepare(listen=True)
        except OSError as exc:
            cause = exc.strerror or type(exc).__name__
            raise CannotListenError(settings.host, settings.port, cause) from exc
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.2}, name="scp-accept", daemon=True
        ).start()

    def prepare(self, *, listen: bool) -> AssociationServer:
        """Make the server; with `listen` bound, else for connections that are handed to its `take`."""
        configure_library()
        settings = self._settings
        kind: dict[str, Any] = {"server_class": AssociationServer}
        if settings.tls is not None:
            kind = {"server_class": TlsAssociationServer, "tls": RenewedContext(settings.tls)}
        server: AssociationServer = self._entity().make_server(
            (settings.host, settings.port),
            evt_handlers=[handler for service in self._services for handler in service.handlers],
            **kind,
            settings=settings,
            gate=self._gate,
            serve=self._serve,
            turned_away=self._note_rejection,
            listen=listen,
        )
        self._server = server
        return server

    def stop(self, drain: timedelta = timedelta(0)) -> None:
        """Stop accepting at once, let open associations finish for `drain`, then abort what is left."""
        if self._server is None:
            return
        self._stopping = True
        self._server.shutdown()
        self._gate.cut_waiting()
        if not self._wait_until_idle(drain.total_seconds()):
            self._abort_all()
            self._wait_until_idle(_ABORT_S)
        self._server = None

    def _entity(self) -> Any:
        """The application entity with our contexts, limits and name."""
        settings = self._settings
        entity = AE(ae_title=settings.ae_titles[0])
        entity.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        entity.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        entity.maximum_pdu_size = settings.max_pdu
        entity.maximum_associations = _NO_LIBRARY_LIMIT
        entity.supported_contexts = [
            build_context(context.sop_class_uid, list(context.transfer_syntax_uids))
            for context in accepted_contexts()
        ] + [context for service in self._services for context in service.contexts]
        return entity

    # --- associations

    def _serve(self, assoc: Association, wire: Wire, ticket: Ticket) -> None:
        """Admit or reject; then negotiate and converse to the end. Nothing is accepted without its record."""
        request = _request_of(assoc)
        slot = _Open(request, ticket)
        rejection = self._admit(slot)
        if rejection is not None:
            try:
                reject(wire, rejection)
            finally:
                self._note_rejection(request, rejection)
            return
        ending = Ending.LOST
        try:
            assoc.acse.negotiate_association()
            ending = self._converse(assoc, wire, slot)
        finally:
            self._finish(slot, ending)

    def _note_rejection(self, request: AssociationRequest, rejection: Rejection) -> None:
        """Tell the listener; the peer has its answer already."""
        try:
            self._associations.rejected(request, rejection)
        except Exception as exc:  # edge: only the note is missing
            log.error("association.rejected", rejection=rejection.name, **describe_error(exc))

    def _admit(self, slot: _Open) -> Rejection | None:
        """Take a slot and record the association, or say why not."""
        request = slot.request
        if request.called_ae not in self._settings.ae_titles:
            return Rejection.CALLED_AE_UNKNOWN
        try:
            if not self._associations.admits(request):
                return Rejection.CALLING_AE_UNKNOWN
            rejection = self._take_slot(slot)
            if rejection is not None:
                return rejection
            number = self._associations.opened(request)
        except IntakeClosedError:
            self._give_slot_back(slot)
            return Rejection.TEMPORARY_CONGESTION
        except Exception as exc:  # edge: without a record there is no association
            self._give_slot_back(slot)
            log.error("association.rejected", calling_ae=request.calling_ae, **describe_error(exc))
            return Rejection.TEMPORARY_CONGESTION
        slot.info = AssociationInfo(number, request.calling_ae, request.called_ae, request.peer_host)
        return None

    def _take_slot(self, slot: _Open) -> Rejection | None:
        """Count this association, if there is room for it."""
        rejection = self._gate.associate(slot.ticket, slot.request.calling_ae)
        if rejection is None:
            with self._changed:
                if self._stopping:
                    return Rejection.LOCAL_LIMIT
                self._open[slot.ticket.number] = slot
        return rejection

    def _give_slot_back(self, slot: _Open) -> None:
        """Forget an association and wake whoever waits for the last one."""
        self._gate.leave(slot.ticket)
        with self._changed:
            self._open.pop(slot.ticket.number, None)
            self._changed.notify_all()

    def _converse(self, assoc: Association, wire: Wire, slot: _Open) -> Ending:
        """Serve the association; how it ended."""
        assert slot.info is not None  # noqa: S101 (`_admit` has just set it)
        conversation = Conversation(
            wire,
            self._settings,
            contexts=_accepted(assoc, self._ours),
            association=slot.info,
            peer_max_pdu=assoc.requestor.maximum_length or 0,
            begin=self._begin,
            library=partial(serve_with_library, assoc),
            shares=self._shares,
        )
        try:
            return conversation.run()
        except ProtocolViolationError as exc:
            log.warning(events.ASSOCIATION_CUT, association=slot.info.id, cause=exc.what)
            send_abort(wire, exc)
        except TooSlowError as exc:
            log.warning(events.ASSOCIATION_CUT, association=slot.info.id, cause=exc.what)
            self._abort(wire)
        except PeerGoneError:
            if not slot.cut:
                return Ending.LOST
            self._abort(wire)
        return Ending.ABORTED

    def _abort(self, wire: Wire) -> None:
        """A-ABORT by the user, to a peer that may not be listening any more."""
        with suppress(PeerGoneError, TooSlowError):
            wire.send(_ABORT_BY_USER)
            wire.linger(0.2)

    def _finish(self, slot: _Open, ending: Ending) -> None:
        """Record the end; called once per association, by its own thread."""
        try:
            if slot.info is not None:
                self._associations.closed(slot.info, ending)
        except Exception as exc:  # edge: a restart closes the row as lost
            log.error("association.closed", ending=ending.value, **describe_error(exc))
        finally:
            self._give_slot_back(slot)

    # --- stopping

    def _wait_until_idle(self, seconds: float) -> bool:
        """Wait until no association is open; False when the time is over first."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._open, max(seconds, 0.0))

    def _abort_all(self) -> None:
        """Wake every association that is still open; its own thread sends the A-ABORT."""
        with self._changed:
            left = list(self._open.values())
            for slot in left:
                slot.cut = True
        for slot in left:
            cut(slot.ticket.raw, socket.SHUT_RD)


def _request_of(assoc: Association) -> AssociationRequest:
    """Who asks, in our words."""
    primitive = cast(A_ASSOCIATE, assoc.requestor.primitive)
    return AssociationRequest(
        calling_ae=primitive.calling_ae_title.strip(),
        called_ae=primitive.called_ae_title.strip(),
        peer_host=assoc.requestor.address,
    )


def _accepted(assoc: Association, ours: Collection[str]) -> dict[int, AcceptedContext]:
    """The accepted contexts by their ids; `ours` are the SOP classes served without the library."""
    return {
        cast("int", context.context_id): AcceptedContext(
            str(context.abstract_syntax), str(context.transfer_syntax[0]), context.abstract_syntax in ours
        )
        for context in assoc.accepted_contexts
    }
