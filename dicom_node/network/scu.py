"""The SCU: C-ECHO and C-STORE to a peer over one association per call, opened and released here.

A stored file goes out byte for byte, straight from the disk. The one conversion is Explicit to Implicit
VR Little Endian, for a peer that accepts nothing else.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pydicom.dataset import Dataset

from config.sections import Peer
from dicom_node.errors import AssociationLostError, UnreadableInstanceError
from dicom_node.network.association import associate
from dicom_node.network.presentation import (
    EXPLICIT_LE,
    IMPLICIT_LE,
    VERIFICATION,
    ProposedContext,
)
from dicom_node.network.status import Status
from dicom_node.network.stored_file import Outgoing, SourceChangedError, outgoing
from dicom_node.network.transmission import Answer, Heard, transmit

__all__ = [
    "Answer",
    "EchoResult",
    "Heard",
    "Outgoing",
    "SendReport",
    "associate",
    "echo",
    "negotiate",
    "outgoing",
    "send",
    "transmit",
]

OnResult = Callable[[str, int, str], bool | None]
"""Called with SOP Instance UID, status and comment once an instance is answered; False stops the sending."""


@dataclass(frozen=True)
class EchoResult:
    """A C-ECHO that was answered: its status and the seconds from connecting to the answer."""

    status: int
    seconds: float


@dataclass(frozen=True)
class SendReport:
    """How many instances were answered, and how many of those with success (0000)."""

    answered: int
    succeeded: int
    seconds: float


def echo(peer: Peer, *, calling_ae_title: str | None = None) -> EchoResult:
    """Verify that the peer answers C-ECHO. Raises a `PeerError` when it does not."""
    begin = time.monotonic()
    contexts = (ProposedContext(VERIFICATION, (EXPLICIT_LE, IMPLICIT_LE)),)
    with associate(peer, contexts, calling_ae_title) as assoc:
        status = _status_of(_guarded(assoc.send_c_echo), "C-ECHO")
    return EchoResult(status, time.monotonic() - begin)


def send(
    peer: Peer, files: Iterable[Outgoing], on_result: OnResult, *, calling_ae_title: str | None = None
) -> SendReport:
    """Send `files` in the order given over one association, with `on_result` after each answer.

    An instance whose SOP class or syntax the peer did not accept is reported with 0122. Raises
    `PeerUnreachableError`, `AssociationRejectedError` or `AssociationLostError`, and
    `UnreadableInstanceError` or `SourceChangedError` for a file that is not what it should be; what was
    reported before stands. An instance without a report was not answered and has to be sent again.
    `transmit` goes on where this raises for one file.
    """
    begin = time.monotonic()
    items = tuple(files)
    answered = succeeded = 0
    trouble: list[UnreadableInstanceError | SourceChangedError] = []

    def heard(answer: Answer) -> bool:
        nonlocal answered, succeeded
        if answer.trouble is not None:
            trouble.append(answer.trouble)
            return False
        status = int(Status.SOP_CLASS_NOT_SUPPORTED) if answer.status is None else answer.status
        answered += 1
        succeeded += status == Status.SUCCESS
        return on_result(answer.item.sop_instance_uid, status, answer.comment) is not False

    transmit(peer, items, heard, calling_ae_title=calling_ae_title)
    if trouble:
        raise trouble[0]
    return SendReport(answered, succeeded, time.monotonic() - begin)


def negotiate(
    peer: Peer, contexts: Sequence[ProposedContext], *, calling_ae_title: str | None = None
) -> frozenset[tuple[str, str]]:
    """Propose contexts and release at once; the (SOP class, transfer syntax) pairs that the peer accepted.

    Raises a `PeerError`; a peer that accepts none of them is an `AssociationRejectedError` with NO_CONTEXT.
    """
    with associate(peer, contexts, calling_ae_title) as assoc:
        return frozenset((str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in assoc.accepted_contexts)


def _guarded(request: Callable[[], Dataset]) -> Dataset:
    """Make one request; an association that is gone by then is lost, not a mistake of the caller."""
    try:
        return request()
    except RuntimeError as exc:
        raise AssociationLostError("The association ended between two requests.") from exc


def _status_of(answer: Dataset, service: str) -> int:
    """The status of an answer; without one there was no answer, and nothing is known to be stored."""
    if "Status" not in answer:
        raise AssociationLostError(f"No answer to a {service} request.")
    return int(answer.Status)
