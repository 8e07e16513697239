"""Storage commitment, Push Model, as its provider (PS3.4 Annex J): the request in, the report out.

The report always goes out on an association of its own, on which we propose the SCP role: the association of
the request may end at any time, and reading files again takes longer than a sender waits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import structlog
from pydicom.dataset import Dataset
from pynetdicom import build_context, evt
from pynetdicom.association import Association

from config.sections import Peer
from dicom_node.errors import AssociationLostError, AssociationRejectedError, PeerError, Reason
from dicom_node.network.association import associate
from dicom_node.network.commands import is_uid
from dicom_node.network.commitment import (
    ALL_KEPT,
    COMMITMENT,
    REQUEST,
    SOME_NOT,
    WELL_KNOWN,
    referenced,
)
from dicom_node.network.presentation import EXPLICIT_LE, IMPLICIT_LE, ProposedContext
from dicom_node.network.services import ScpService
from dicom_node.observability.logs import describe_error

log = structlog.get_logger(__name__)

# Statuses of an N-ACTION response, PS3.7 10.1.4.1.10.
TAKEN: Final = 0x0000
PROCESSING_FAILURE: Final = 0x0110
NO_SUCH_INSTANCE: Final = 0x0112
INVALID_ARGUMENT: Final = 0x0115
NO_SUCH_ACTION: Final = 0x0123
NOT_AUTHORIZED: Final = 0x0124
RESOURCE_LIMITATION: Final = 0x0213


@dataclass(frozen=True)
class Asked:
    """What a sender wants us to keep: (SOP class, SOP instance) for each instance."""

    transaction_uid: str
    calling_ae: str
    called_ae: str
    instances: tuple[tuple[str, str], ...]


Hear = Callable[[Asked], int]
"""Keeps a request for good and returns the status of the answer. Called from the association's thread."""


def request_service(hear: Hear) -> ScpService:
    """The service that takes requests on the associations of senders."""
    context = build_context(COMMITMENT, [EXPLICIT_LE, IMPLICIT_LE])
    context.scu_role, context.scp_role = True, True

    def on_request(event: Any) -> tuple[int, None]:
        return _answer(event, hear), None

    return ScpService((context,), ((evt.EVT_N_ACTION, on_request),))


def report(
    peer: Peer,
    transaction_uid: str,
    promised: Sequence[tuple[str, str]],
    failed: Sequence[tuple[str, str, int]],
) -> None:
    """Tell a sender what is kept; `failed` has the Failure Reason of each instance that is not.

    Raises `PeerError` when the sender did not take the report.
    """
    with _as_provider(peer) as assoc:
        try:
            answer, _ = assoc.send_n_event_report(
                _information(transaction_uid, promised, failed),
                SOME_NOT if failed else ALL_KEPT,
                COMMITMENT,
                WELL_KNOWN,
            )
        except RuntimeError as exc:
            raise AssociationLostError("The association ended before the report.") from exc
        if "Status" not in answer:
            raise AssociationLostError("No answer to an N-EVENT-REPORT request.")
        if answer.Status != TAKEN:
            detail = f"N-EVENT-REPORT was answered with 0x{answer.Status:04X}."
            raise PeerError(Reason.COMMITMENT_REFUSED, detail)


def check_reports(peer: Peer) -> None:
    """Ask for the association of a report and send none. Raises `PeerError` when it cannot be had."""
    with _as_provider(peer):
        pass


@contextmanager
def _as_provider(peer: Peer) -> Iterator[Association]:
    """An association on which we are the SCP, though we asked for it (PS3.7 D.3.3.4)."""
    contexts = (ProposedContext(COMMITMENT, (EXPLICIT_LE, IMPLICIT_LE)),)
    with associate(peer, contexts, None, reports_on=(COMMITMENT,)) as assoc:
        if not any(context.as_scp for context in assoc.accepted_contexts):
            detail = "It does not let us report: the SCP role was not accepted."
            raise AssociationRejectedError(detail, permanent=True)
        yield assoc


def _answer(event: Any, hear: Hear) -> int:
    """Read a request, hand it on, and say whether it was taken."""
    if event.action_type != REQUEST:
        return NO_SUCH_ACTION
    if event.request.RequestedSOPInstanceUID != WELL_KNOWN:
        return NO_SUCH_INSTANCE
    asker = event.assoc.requestor.primitive
    try:
        asked = _read(event.action_information, asker.calling_ae_title, asker.called_ae_title)
    except Exception as exc:  # edge: whatever a peer may put there
        log.warning("safekeeping.unreadable", **describe_error(exc))
        return INVALID_ARGUMENT
    try:
        return hear(asked)
    except Exception as exc:  # edge: the sender may ask again
        log.error("safekeeping.not_taken", **describe_error(exc))
        return PROCESSING_FAILURE


def _read(information: Dataset, calling_ae: str, called_ae: str) -> Asked:
    """The request in an Action Information. Raises `ValueError`, or whatever a malformed one leads to."""
    pairs = tuple(
        (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
        for item in information.ReferencedSOPSequence
    )
    transaction = str(information.TransactionUID)
    if not pairs or not all(map(is_uid, (transaction, *(uid for pair in pairs for uid in pair)))):
        raise ValueError("no instance, or a UID that is none")
    return Asked(transaction, calling_ae.strip(), called_ae.strip(), pairs)


def _information(
    transaction_uid: str, promised: Sequence[tuple[str, str]], failed: Sequence[tuple[str, str, int]]
) -> Dataset:
    """The Event Information of a report (PS3.4 Table J.3-2)."""
    information = Dataset()
    information.TransactionUID = transaction_uid
    if promised:
        information.ReferencedSOPSequence = [referenced(*pair) for pair in promised]
    if failed:
        information.FailedSOPSequence = [_failed(*one) for one in failed]
    return information


def _failed(sop_class_uid: str, sop_instance_uid: str, reason: int) -> Dataset:
    item = referenced(sop_class_uid, sop_instance_uid)
    item.FailureReason = reason
    return item
