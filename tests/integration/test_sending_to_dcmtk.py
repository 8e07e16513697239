"""DCMTK's storescp as the archive."""

from __future__ import annotations

import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from config.sections import Peer
from dicom_node.errors import AssociationLostError, AssociationRejectedError, PeerUnreachableError
from dicom_node.network.scu import echo, outgoing, send


def archive(port, **changes):
    values = {
        "name": "archive",
        "ae_title": "ARCHIVE",
        "host": "127.0.0.1",
        "port": port,
        "calling_ae_title": "ENHANCE",
    }
    return Peer.model_validate({**values, **changes})


@pytest.mark.parametrize(
    ("option", "syntax"), [("+xe", ExplicitVRLittleEndian), ("+xi", ImplicitVRLittleEndian)]
)
def test_archive_holds_what_was_sent_in_the_syntax_it_prefers(start_storescp, write_series, option, syntax):
    port, folder = start_storescp(option)
    paths = write_series()
    answers = []

    report = send(archive(port), [outgoing(path) for path in paths], lambda *result: answers.append(result))

    arrived = {dataset.SOPInstanceUID: dataset for dataset in map(dcmread, folder.iterdir())}
    assert report.succeeded == len(arrived) == 12
    assert [uid for uid, _, _ in answers] == [dcmread(path).SOPInstanceUID for path in paths]
    for path in paths:
        sent = dcmread(path)
        assert arrived[sent.SOPInstanceUID] == sent
        assert arrived[sent.SOPInstanceUID].file_meta.TransferSyntaxUID == syntax


def test_echo_is_timed(start_storescp):
    port, _ = start_storescp()

    assert echo(archive(port)).status == 0x0000


def test_refused_association_is_told(start_storescp):
    port, _ = start_storescp("--refuse")

    with pytest.raises(AssociationRejectedError):
        echo(archive(port))


def test_abort_in_the_middle_of_a_series_is_told(start_storescp, write_series):
    port, _ = start_storescp("--abort-during")

    with pytest.raises(AssociationLostError):
        send(archive(port), [outgoing(path) for path in write_series()], lambda *_: None)


def test_archive_that_is_down_is_unreachable(start_storescp):
    with pytest.raises(PeerUnreachableError):
        echo(archive(1))
