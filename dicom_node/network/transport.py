"""The sockets under associations: no Nagle delay, PDUs read under a deadline and a length cap, always closed.

The library's own reader blocks for as long as a peer keeps the connection open, and believes any
length a PDU header claims. The classes here are injected (`AE.make_server(server_class=...)`), so a
faster transport for the Storage path goes in at the same place.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from socketserver import BaseServer
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.transport import (
    AddressInformation,
    AssociationSocket,
    RequestHandler,
    ThreadedAssociationServer,
)

_LOOK_AGAIN_S = 0.05  # how soon the end of an association's thread is noticed
_ASSOCIATE_PDU_CAP = 1 << 20  # an A-ASSOCIATE-RQ with 128 contexts and every extension stays far below


@dataclass(frozen=True)
class SocketGuard:
    """Limits for one PDU: seconds from its first to its last byte, and its largest length in bytes."""

    pdu_deadline_s: float
    max_pdu: int

    @property
    def largest(self) -> int:
        """The longest PDU of any type that is read at all."""
        return max(self.max_pdu, _ASSOCIATE_PDU_CAP)


def acknowledge_at_once(raw: socket.socket) -> None:
    """Send the acknowledgement that is due, and the next ones without delay, for a while.

    A peer with Nagle's algorithm holds back the second piece of a message until then, 40 ms on Linux. The
    kernel forgets the option by and by, so it is set before every read; other systems do not have it.
    """
    if hasattr(socket, "TCP_QUICKACK"):
        with suppress(OSError):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


class PromptSocket(AssociationSocket):
    """An association socket that acknowledges at once, and is closed even when the peer was gone first."""

    def recv(self, nr_bytes: int) -> bytearray:
        """Read as the library does; a peer that writes an answer in two pieces need not wait in between."""
        if self.socket is not None:
            acknowledge_at_once(self.socket)
        return super().recv(nr_bytes)

    def _shutdown_socket(self) -> None:
        """Shut down, if there is still a connection, and close in every case."""
        if self.socket is not None:
            with suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
            self.socket.close()


class ReactorGate(threading.Event):
    """Stops an association's own thread for certain while a request waits for its answer.

    The library's event leaves a gap: its thread may have passed the gate when `clear` is called, still
    looks paused, and takes the answer away from the request, which then waits for its timeout (seen
    within a few dozen requests on a busy machine). Here `clear` returns only when the thread has arrived
    at the closed gate.
    """

    def __init__(self, assoc: Association) -> None:
        super().__init__()
        self._assoc = assoc
        self._turn = threading.Condition()
        self._is_open = True
        self._is_reached = False

    def is_set(self) -> bool:
        """Whether the gate is open."""
        return self._is_open

    def set(self) -> None:
        """Open the gate."""
        with self._turn:
            self._is_open = True
            self._turn.notify_all()

    def clear(self) -> None:
        """Close the gate and wait for the association's thread to stand before it, or to have ended."""
        with self._turn:
            self._is_open = False
            if threading.current_thread() is self._assoc:
                return
            while not self._is_reached and self._assoc.is_alive():
                self._turn.wait(_LOOK_AGAIN_S)

    def wait(self, timeout: float | None = None) -> bool:
        """Pass when the gate is open; called by the association's thread on every round."""
        with self._turn:
            self._is_reached = True
            self._turn.notify_all()
            passed = self._turn.wait_for(self.is_set, timeout)
            self._is_reached = False
            return passed


class RequestorEntity(AE):
    """An application entity whose outgoing associations run on a `PromptSocket` and behind a `ReactorGate`."""

    def _create_socket(
        self,
        assoc: Association,
        local_address: AddressInformation,
        tls_args: Any,  # noqa: ARG002
    ) -> AssociationSocket:
        """The socket of one association, not yet connected."""
        assoc._reactor_checkpoint = ReactorGate(assoc)
        return PromptSocket(assoc, address=local_address)


class GuardedSocket(PromptSocket):
    """An association socket whose reads end: by data, by the deadline, or before a byte if too long."""

    def __init__(self, assoc: Association, client_socket: socket.socket, *, guard: SocketGuard) -> None:
        super().__init__(assoc, client_socket=client_socket)
        self._guard = guard

    def recv(self, nr_bytes: int) -> bytearray:
        """Read exactly `nr_bytes`, fewer only if the peer closed; `OSError` beyond deadline or cap."""
        if nr_bytes > self._guard.largest:
            raise OSError("PDU is longer than allowed")
        buffer = bytearray(nr_bytes)
        with memoryview(buffer) as view:
            filled = self._fill(view)
        return buffer if filled == nr_bytes else buffer[:filled]

    def _fill(self, view: memoryview) -> int:
        """Fill `view` from the socket; return how far it got before the peer closed."""
        raw = self.socket
        if raw is None:
            raise OSError("the connection is closed")
        acknowledge_at_once(raw)
        deadline = time.monotonic() + self._guard.pdu_deadline_s
        filled = 0
        while filled < len(view):
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise TimeoutError("PDU deadline passed")
            raw.settimeout(remaining)
            count = raw.recv_into(view[filled:])
            if count == 0:
                break
            filled += count
        return filled


class AssociationHandler(RequestHandler):
    """Runs one association from the accepted socket to its end, and reports the end once."""

    server: AssociationServer

    def _create_association(self) -> Association:
        """Build the association on a guarded socket."""
        assoc = super()._create_association()
        # Wrapping the socket queued "transport connected"; the wrapper that replaces it queues its own.
        assoc.dul.event_queue.get_nowait()
        assoc.dul.socket = GuardedSocket(assoc, self.request, guard=self.server.guard)
        return assoc

    def handle(self) -> None:
        """Start the association and stay until its threads are gone, whatever ended it."""
        assoc = self._create_association()
        evt.trigger(assoc, evt.EVT_CONN_OPEN, {"address": self.client_address})
        assoc.start()
        assoc.join()
        self.server.finished(assoc)


class AssociationServer(ThreadedAssociationServer):
    """Accepts connections without delay on small writes; one thread for each."""

    request_queue_size = 128
    daemon_threads = True
    block_on_close = False

    def __init__(
        self, *args: Any, guard: SocketGuard, finished: Callable[[Association], None], **kwargs: Any
    ) -> None:
        self.guard = guard
        self.finished = finished
        kwargs["request_handler"] = AssociationHandler
        super().__init__(*args, **kwargs)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection; a response leaves at once, not after a delayed acknowledgement."""
        client, address = super().get_request()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client, address

    def shutdown(self) -> None:
        """Stop accepting and close the listening socket; running associations go on."""
        BaseServer.shutdown(self)
        self.server_close()

    def cut(self) -> None:
        """Cut every connection that is left, also those that never asked for an association.

        Their threads would otherwise keep the process from ending until their own timeouts.
        """
        for assoc in self.active_associations:
            assoc.dul.kill_dul()
            wrapper = assoc.dul.socket
            if wrapper is not None and wrapper.socket is not None:
                with suppress(OSError):
                    wrapper.socket.shutdown(socket.SHUT_RDWR)
