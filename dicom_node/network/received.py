"""What the SCP hands on: plain values about an association and an instance that came over it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from dicom_node.network.status import Ending, Rejection


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
class ReceivedInstance:
    """One C-STORE request: the UIDs of its command and the encoded data set, untouched.

    `data` is valid until the receive function returns.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data: memoryview = field(repr=False)
    association: AssociationInfo


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
