"""C-MOVE of one series: asks a peer to send what it holds to an AE title that it knows (PS3.4 C.4.2)."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset

from config.sections import Peer
from dicom_node.errors import AssociationLostError
from dicom_node.network.presentation import EXPLICIT_LE, IMPLICIT_LE, ProposedContext
from dicom_node.network.scu import associate

MOVE = "1.2.840.10008.5.1.4.1.2.2.2"  # Study Root Query/Retrieve Information Model - MOVE
PENDING = frozenset({0xFF00, 0xFF01})
DESTINATION_UNKNOWN = 0xA801


@dataclass(frozen=True)
class MoveResult:
    """The last answer: its status, and how many instances arrived or not, as the peer counts them."""

    status: int
    completed: int
    failed: int


def move_series(
    peer: Peer, destination: str, study_instance_uid: str, series_instance_uid: str
) -> MoveResult:
    """Let the peer send a series to the AE title `destination`. Raises a `PeerError`."""
    query = Dataset()
    query.QueryRetrieveLevel = "SERIES"
    query.StudyInstanceUID, query.SeriesInstanceUID = study_instance_uid, series_instance_uid
    last = Dataset()
    with associate(peer, (ProposedContext(MOVE, (EXPLICIT_LE, IMPLICIT_LE)),), None) as assoc:
        for answer, _ in assoc.send_c_move(query, destination, MOVE):
            if "Status" not in answer:
                raise AssociationLostError("No answer to a C-MOVE request.")
            last = answer
            if answer.Status not in PENDING:
                break
    return MoveResult(
        int(last.get("Status", 0xC000)),
        int(last.get("NumberOfCompletedSuboperations", 0) or 0),
        int(last.get("NumberOfFailedSuboperations", 0) or 0),
    )
