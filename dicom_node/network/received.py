"""What the SCP hands on: plain values about an association and an instance that came over it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from dicom_node.network.status import Ending, Rejection, StoreResponse


@dataclass(frozen=True)
class AssociationRequest:
    """Who asks for an association; titles are stripped, `peer_host` is the address of the socket."""

    calling_ae: str
    called_ae: str
    peer_host: str


@dataclass(frozen=True)
class AssociationInfo:
    """One accepted association; `id` is the row that `AssociationListener.opened` made for it."""

    id: int
    calling_ae: str
    called_ae: str
    peer_host: str


@dataclass(frozen=True)
class StoreRequest:
    """The command of one C-STORE request whose data set is about to come. UIDs are well formed, without padding."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    association: AssociationInfo


class Incoming(Protocol):
    """Takes one data set piece by piece; used by one thread. Nothing raises for what the sender did wrong:
    the answer says it, and the rest of the data set is drained."""

    def write(self, pieces: Sequence[memoryview]) -> None:
        """Take the next bytes; the views are valid until this returns."""
        ...

    def finish(self) -> StoreResponse:
        """The data set is complete: make it durable and return the answer."""
        ...

    def discard(self) -> None:
        """The data set will not be completed. Leave nothing behind. Also called after `finish`."""
        ...


Begin = Callable[[StoreRequest], Incoming]
"""Called when a C-STORE command has arrived."""


@dataclass(frozen=True)
class ReceivedInstance:
    """One C-STORE request: the UIDs of its command and the encoded data set, untouched.

    `data` is valid until the receive function returns.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data: memoryview = field(repr=False)
    association: AssociationInfo


Receive = Callable[[ReceivedInstance], StoreResponse | int]
"""Answers one instance; a bare status stands for a response without details."""


class _Buffered:
    """Collects a data set in memory and hands it over in one piece."""

    def __init__(self, request: StoreRequest, receive: Receive) -> None:
        self._request = request
        self._receive = receive
        self._data = bytearray()

    def write(self, pieces: Sequence[memoryview]) -> None:
        """Keep a copy."""
        for piece in pieces:
            self._data += piece

    def finish(self) -> StoreResponse:
        """Hand the whole data set on."""
        request = self._request
        answer = self._receive(
            ReceivedInstance(
                sop_class_uid=request.sop_class_uid,
                sop_instance_uid=request.sop_instance_uid,
                transfer_syntax_uid=request.transfer_syntax_uid,
                data=memoryview(self._data),
                association=request.association,
            )
        )
        return answer if isinstance(answer, StoreResponse) else StoreResponse(answer)

    def discard(self) -> None:
        """There is nothing to leave behind."""


def buffered(receive: Receive) -> Begin:
    """Receive whole data sets from memory, for small acceptors such as a check or a demonstration."""
    return lambda request: _Buffered(request, receive)


class IntakeClosedError(Exception):
    """Raised by a listener to turn an association away for the time being, for a reason it has told itself."""


class AssociationListener(Protocol):
    """Decides who may call and keeps the record of associations. Called from several threads."""

    def admits(self, request: AssociationRequest) -> bool:
        """Say whether this calling AE may open an association from this address."""
        ...

    def opened(self, request: AssociationRequest) -> int:
        """Record an accepted association before the acceptance is sent; return its id.

        Any exception turns the acceptance into a transient rejection.
        """
        ...

    def rejected(self, request: AssociationRequest, rejection: Rejection) -> None:
        """Take note of a rejected request."""
        ...

    def closed(self, association: AssociationInfo, ending: Ending) -> None:
        """Record the end of an association, exactly once for each one opened."""
        ...
