"""How many instances a peer says a series has: C-FIND at the SERIES level (PS3.4 C.4.1, Study Root)."""

from __future__ import annotations

from pydicom.dataset import Dataset

from config.sections import Peer
from dicom_node.errors import AssociationLostError
from dicom_node.network.presentation import EXPLICIT_LE, IMPLICIT_LE, ProposedContext
from dicom_node.network.scu import associate

FIND = "1.2.840.10008.5.1.4.1.2.2.1"  # Study Root Query/Retrieve Information Model - FIND
IMAGE = "IMAGE"
_PENDING = frozenset({0xFF00, 0xFF01})
_SUCCESS = 0x0000


def count_instances(peer: Peer, study_instance_uid: str, series_instance_uid: str) -> int | None:
    """Number of Series Related Instances (0020,1209) as the peer has it.

    A peer that does not keep that number is asked for the instances themselves. None when the peer does not know
    the series or answers neither. Raises a `PeerError`.
    """
    with associate(peer, (ProposedContext(FIND, (EXPLICIT_LE, IMPLICIT_LE)),), None) as assoc:
        query = Dataset()
        query.QueryRetrieveLevel = "SERIES"
        query.StudyInstanceUID, query.SeriesInstanceUID = study_instance_uid, series_instance_uid
        query.NumberOfSeriesRelatedInstances = None
        matches = _find(assoc, query)
        if len(matches) != 1:
            return None
        told = matches[0].get("NumberOfSeriesRelatedInstances")
        if told is not None and str(told).strip():
            return int(told)
        query.QueryRetrieveLevel = IMAGE
        query.SOPInstanceUID = ""
        del query.NumberOfSeriesRelatedInstances
        return len({str(match.get("SOPInstanceUID", "")) for match in _find(assoc, query)} - {""}) or None


def _find(assoc: object, query: Dataset) -> list[Dataset]:
    """The matches of one query; an empty list when the peer refuses it."""
    matches = []
    for answer, match in assoc.send_c_find(query, FIND):  # type: ignore[attr-defined]
        if "Status" not in answer:
            raise AssociationLostError("No answer to a C-FIND request.")
        if answer.Status in _PENDING and match is not None:
            matches.append(match)
        elif answer.Status != _SUCCESS:
            return []
    return matches
