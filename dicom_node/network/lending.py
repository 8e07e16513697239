"""An outgoing association that lends its connection: the library negotiates, the caller moves the data.

While the connection is lent, neither of the library's two threads reads or writes it; given back, it is
released or aborted as ever.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from pynetdicom.association import Association
from pynetdicom.transport import AddressInformation, AssociationSocket

from dicom_node.network.transport import PromptSocket, ReactorGate, RequestorEntity

_LOOK_AGAIN_S = 0.5  # how soon a parked thread notices the end of the process


class LendableSocket(PromptSocket):
    """An association socket whose reading thread can be parked."""

    def __init__(self, assoc: Association, address: AddressInformation) -> None:
        super().__init__(assoc, address=address)
        self._turn = threading.Condition()
        self._is_lent = False
        self._is_parked = False

    @property
    def ready(self) -> bool:
        """Whether there is something to read; the library's thread waits here while the socket is lent."""
        with self._turn:
            while self._is_lent:
                self._is_parked = True
                self._turn.notify_all()
                self._turn.wait(_LOOK_AGAIN_S)
                # The library's thread is no daemon: parked for ever, it would keep the process from ending.
                if not threading.main_thread().is_alive():
                    self._assoc.dul.kill_dul()
                    return False
            self._is_parked = False
        return bool(super().ready)

    def lend(self) -> socket.socket | None:
        """Park the library's thread and hand out the connection; None when it is gone already."""
        with self._turn:
            self._is_lent = True
            while not self._is_parked and self._assoc.dul.is_alive():
                self._turn.wait(_LOOK_AGAIN_S)
        return self.socket

    def take_back(self) -> None:
        """Let the library's thread go on."""
        with self._turn:
            self._is_lent = False
            self._turn.notify_all()


class LendingEntity(RequestorEntity):
    """An application entity whose associations run on a `LendableSocket`, over TLS where given a context."""

    def _create_socket(
        self, assoc: Association, local_address: AddressInformation, tls_args: Any
    ) -> AssociationSocket:
        """The socket of one association, not yet connected."""
        assoc._reactor_checkpoint = ReactorGate(assoc)
        wrapper = LendableSocket(assoc, local_address)
        wrapper.tls_args = tls_args
        return wrapper


@contextmanager
def lent_connection(assoc: Association) -> Iterator[socket.socket | None]:
    """The connection of an established association, for the time of the block and for the caller alone."""
    wrapper = cast("LendableSocket", assoc.dul.socket)
    assoc._reactor_checkpoint.clear()
    try:
        yield wrapper.lend()
    finally:
        # What passed meanwhile the library has not seen: to its idle timer the peer was silent.
        assoc.dul._idle_timer.restart()
        wrapper.take_back()
