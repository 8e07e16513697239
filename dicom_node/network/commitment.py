"""Storage commitment, Push Model, as its requestor (PS3.4 Annex J): the request out, the report in.

The report comes whenever the peer is ready: on the association of the request, or on one that the peer
opens. Both ways end in the same function, which is given.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import build_context, evt

from config.sections import Peer
from dicom_node.errors import AssociationLostError, PeerError, Reason
from dicom_node.network.association import associate
from dicom_node.network.presentation import EXPLICIT_LE, IMPLICIT_LE, ProposedContext
from dicom_node.network.services import ScpService
from dicom_node.observability.logs import describe_error

log = structlog.get_logger(__name__)

COMMITMENT: Final = "1.2.840.10008.1.20.1"
WELL_KNOWN: Final = "1.2.840.10008.1.20.1.1"  # Storage Commitment Push Model SOP Instance
REQUEST: Final = 1  # Action Type ID, PS3.4 Table J.3.2-1
ALL_KEPT, SOME_NOT = 1, 2  # Event Type ID, PS3.4 Table J.3.3-1
_SUCCESS, _PROCESSING_FAILURE, _NO_SUCH_EVENT, _BAD_ARGUMENT = 0x0000, 0x0110, 0x0113, 0x0115
_LONGEST_REASON: Final = 0xFFFF


@dataclass(frozen=True)
class KeepReport:
    """What a peer reports: the instances it keeps, and those it does not with their Failure Reason."""

    transaction_uid: str
    committed: frozenset[str]
    failed: Mapping[str, int] = field(default_factory=dict)


Heard = Callable[[KeepReport], bool]
"""Keeps a report for good; False when its transaction is not ours. Called from the association's thread."""


def ask_to_keep(
    peer: Peer,
    transaction_uid: str,
    instances: Sequence[tuple[str, str]],
    heard: Heard,
    *,
    linger_s: float,
) -> bool:
    """Ask a peer to keep (SOP class, SOP instance) pairs; True when the report came on the same association.

    Raises `PeerError` when the peer did not take the request. A report may come all the same, and before
    this returns.
    """
    came = threading.Event()

    def on_report(event: Any) -> tuple[int, None]:
        answer = _answer(event, heard)
        if answer == _SUCCESS:
            came.set()
        return answer, None

    contexts = (ProposedContext(COMMITMENT, (EXPLICIT_LE, IMPLICIT_LE)),)
    handlers = ((evt.EVT_N_EVENT_REPORT, on_report),)
    with associate(peer, contexts, None, handlers=handlers) as assoc:
        try:
            answer, _ = assoc.send_n_action(
                _request(transaction_uid, instances), REQUEST, COMMITMENT, WELL_KNOWN
            )
        except RuntimeError as exc:
            raise AssociationLostError("The association ended before the request.") from exc
        if "Status" not in answer:
            raise AssociationLostError("No answer to an N-ACTION request.")
        if answer.Status != _SUCCESS:
            raise PeerError(Reason.COMMITMENT_REFUSED, f"N-ACTION was answered with 0x{answer.Status:04X}.")
        came.wait(linger_s)
    return came.is_set()


def report_service(heard: Heard) -> ScpService:
    """The service that takes reports on associations which the peer opens, as SCP with us as the SCU."""
    context = build_context(COMMITMENT, [EXPLICIT_LE, IMPLICIT_LE])
    context.scu_role, context.scp_role = True, True

    def on_report(event: Any) -> tuple[int, None]:
        return _answer(event, heard), None

    return ScpService((context,), ((evt.EVT_N_EVENT_REPORT, on_report),))


def _request(transaction_uid: str, instances: Sequence[tuple[str, str]]) -> Dataset:
    """The Action Information of a request."""
    information = Dataset()
    information.TransactionUID = transaction_uid
    information.ReferencedSOPSequence = [referenced(*pair) for pair in instances]
    return information


def referenced(sop_class_uid: str, sop_instance_uid: str) -> Dataset:
    """One item of a Referenced SOP Sequence."""
    item = Dataset()
    item.ReferencedSOPClassUID = UID(sop_class_uid)
    item.ReferencedSOPInstanceUID = UID(sop_instance_uid)
    return item


def _answer(event: Any, heard: Heard) -> int:
    """Read a report, hand it on, and say what became of it (PS3.7 10.1.1.1.8)."""
    if event.event_type not in (ALL_KEPT, SOME_NOT):
        return _NO_SUCH_EVENT
    try:
        report = _read(event.event_information)
    except Exception as exc:  # edge: whatever a peer may put there
        log.warning("commitment.unreadable", **describe_error(exc))
        return _BAD_ARGUMENT
    try:
        return _SUCCESS if heard(report) else _BAD_ARGUMENT
    except Exception as exc:  # edge: the peer may send the report again
        log.error("commitment.not_kept", **describe_error(exc))
        return _PROCESSING_FAILURE


def _read(information: Dataset) -> KeepReport:
    """The report in an Event Information. Raises whatever a malformed one leads to."""
    failed = {
        str(item.ReferencedSOPInstanceUID): int(item.get("FailureReason", None) or _PROCESSING_FAILURE)
        for item in information.get("FailedSOPSequence", None) or ()
    }
    kept = {
        str(item.ReferencedSOPInstanceUID) for item in information.get("ReferencedSOPSequence", None) or ()
    }
    return KeepReport(str(information.TransactionUID), frozenset(kept - set(failed)), failed)
