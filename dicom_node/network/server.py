"""Accepts connections and runs one association on each, on a thread of its own and no other.

The library's server and request handler are subclassed: they still make the association object, but the
request is read under a deadline and judged before anything is made for it, and no peer can hold up the
accept loop, which neither reads nor shakes hands.
"""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from socketserver import BaseServer
from typing import Any

import structlog
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import A_ASSOCIATE
from pynetdicom.transport import RequestHandler, ThreadedAssociationServer

from dicom_node.network.gate import Gate, Ticket
from dicom_node.network.limits import ASSOCIATE_PDU_CAP, ScpSettings
from dicom_node.network.provider import BlockingProvider, decode_request
from dicom_node.network.received import AssociationRequest
from dicom_node.network.requests import Judged, judge_request
from dicom_node.network.status import Rejection
from dicom_node.network.wire import PduType, PeerGoneError, ProtocolViolationError, TooSlowError, Wire
from dicom_node.observability import events
from dicom_node.observability.logs import Seldom, describe_error

log = structlog.get_logger(__name__)

Serve = Callable[[Association, Wire, Ticket], None]
"""Runs an association whose request is in `assoc.requestor.primitive`."""

TurnedAway = Callable[[AssociationRequest, Rejection], None]
"""Takes note of a request that was rejected for its form; its titles are left out."""

_FIRST: Mapping[int, int] = {PduType.ASSOCIATE_RQ: ASSOCIATE_PDU_CAP, PduType.ABORT: 4}
_NO_HANDLE = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_REJECT = b"\x03\x00\x00\x00\x00\x04\x00"
_ABORT_BY_PROVIDER = b"\x07\x00\x00\x00\x00\x04\x00\x00\x02"


class AssociationHandler(RequestHandler):
    """Reads the request of one connection and hands the association on; made and used on its thread."""

    server: AssociationServer

    def __init__(self, request: socket.socket, address: Any, server: AssociationServer, ticket: Ticket):
        self._ticket = ticket
        super().__init__(request, address, server)

    def handle(self) -> None:
        """Stay until the association has ended."""
        settings = self.server.settings
        wire = Wire(self.request, tick_s=settings.tick_s, pdu_s=settings.pdu_deadline_s)
        try:
            judged = self._read_request(wire, settings)
            if judged.rejection is not None:
                reject(wire, judged.rejection)
                asked = AssociationRequest("", "", str(self.client_address[0]))
                self.server.turned_away(asked, judged.rejection)
                return
            assoc = self._associate(wire, decode_request(judged.body))
            self.server.serve(assoc, wire, self._ticket)
        except ProtocolViolationError as exc:
            self._note(exc.what)
            send_abort(wire, exc)
        except TooSlowError as exc:
            self._note(exc.what)
        except PeerGoneError:
            return

    def _read_request(self, wire: Wire, settings: ScpSettings) -> Judged:
        """The first PDU, which has to be a request, within its time."""
        deadline = time.monotonic() + settings.association_timeout_s
        kind, body = wire.next_pdu(_FIRST, first_byte_by=deadline, complete_by=deadline)
        if kind == PduType.ABORT:
            raise PeerGoneError
        return judge_request(body)

    def _associate(self, wire: Wire, primitive: A_ASSOCIATE) -> Association:
        """The library's association object on our provider; its own socket wrapper is not used."""
        assoc = self._create_association()
        assoc.dul = BlockingProvider(assoc, wire)
        assoc.requestor.primitive = primitive
        return assoc

    def _note(self, what: str) -> None:
        """One line for a connection that came to nothing; a flood yields one line in a while."""
        dropped = self.server.seldom.count(what)
        if dropped:
            log.warning(
                events.CONNECTION_DROPPED, peer_host=self.client_address[0], cause=what, number=dropped
            )


def reject(wire: Wire, rejection: Rejection) -> None:
    """A-ASSOCIATE-RJ (PS3.8 9.3.4), and time for it to arrive."""
    wire.send(_REJECT + bytes(rejection.value))
    wire.linger()


def send_abort(wire: Wire, violation: ProtocolViolationError) -> None:
    """A-ABORT by the provider with its reason (PS3.8 9.3.8), and time for it to arrive."""
    with suppress(PeerGoneError, TooSlowError):
        wire.send(_ABORT_BY_PROVIDER + bytes([violation.reason]))
        wire.linger()


class AssociationServer(ThreadedAssociationServer):
    """Accepts connections; each gets its ticket at the gate and a thread of its own."""

    request_queue_size = 128

    def __init__(
        self,
        *args: Any,
        settings: ScpSettings,
        gate: Gate,
        serve: Serve,
        turned_away: TurnedAway,
        listen: bool = True,
        **kwargs: Any,
    ) -> None:
        """`listen` False: connections come through `take` alone, and no address is bound."""
        self.settings = settings
        self.gate = gate
        self.serve = serve
        self.turned_away = turned_away
        self.seldom = Seldom(10.0)
        self._listens = listen
        super().__init__(*args, **kwargs)

    def server_bind(self) -> None:
        """Bind, where this server accepts by itself."""
        if self._listens:
            super().server_bind()

    def server_activate(self) -> None:
        """Listen, where this server accepts by itself."""
        if self._listens:
            super().server_activate()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection. Without a free handle, wait a little: the peer waits in the queue."""
        try:
            return super().get_request()
        except OSError as exc:
            if exc.errno in _NO_HANDLE:
                if self.seldom.count("no handle left"):
                    log.error(events.CONNECTION_DROPPED, cause="no handle left")
                time.sleep(0.1)
            raise

    def process_request(self, request: Any, client_address: Any) -> None:
        """Let a connection in and give it a thread."""
        self.take(request, client_address, self.gate.enter(str(client_address[0]), request))

    def take(self, request: socket.socket, address: Any, ticket: Ticket) -> None:
        """Serve a connection on a thread of its own. A response leaves at once, whatever Nagle thinks."""
        with suppress(OSError):
            request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        thread = threading.Thread(
            target=self._run, args=(request, address, ticket), name="association", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as exc:
            if self.seldom.count("no thread left"):
                log.error(events.CONNECTION_DROPPED, cause="no thread left", **describe_error(exc))
            self.gate.leave(ticket)
            self.shutdown_request(request)

    def _run(self, request: socket.socket, address: Any, ticket: Ticket) -> None:
        """The whole life of one connection."""
        try:
            secured = self.secure(request, address, ticket)
            if secured is not None:
                AssociationHandler(secured, address, self, ticket)
        except Exception as exc:  # edge: the thread of a connection
            log.error(events.CONNECTION_DROPPED, **describe_error(exc))
        finally:
            self.gate.leave(ticket)
            self.shutdown_request(ticket.raw)

    def secure(self, request: socket.socket, _address: Any, _ticket: Ticket) -> socket.socket | None:
        """The connection as it is; a server that speaks TLS shakes hands here. None: it came to nothing."""
        return request

    def shutdown(self) -> None:
        """Stop accepting and close the listening socket; running associations go on."""
        if self._listens:
            BaseServer.shutdown(self)
        self.server_close()
