"""The sockets under associations that we request: prompt acknowledgements, always closed.

Associations that we accept run on `dicom_node.network.server`.
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import Any

from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.transport import AddressInformation, AssociationSocket

_LOOK_AGAIN_S = 0.05  # how soon the end of an association's thread is noticed


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

    _now = _ever = False

    @property
    def _is_connected(self) -> bool:
        """Whether there is a connection; for others than the reading thread, whether there ever was one.

        The thread that requests an association asks so whether it could connect. By then a rejection may have
        come and the reading thread may have closed the connection: the library took that for a failure to
        connect, and the rejection and its reason were lost (one in seventeen on a busy machine).
        """
        reading = threading.current_thread() is self.assoc.dul
        return self._now if reading else self._ever

    @_is_connected.setter
    def _is_connected(self, value: bool) -> None:
        self._now = value
        self._ever |= value

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
