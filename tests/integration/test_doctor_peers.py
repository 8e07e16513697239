"""The peers' part of the doctor against DCMTK's storescp, well and unwell."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import Verification

from config.sections import Peer
from config.settings import Settings
from dicom_node.doctor.exchange import check_exchange
from dicom_node.doctor.findings import Level
from dicom_node.doctor.keeping import check_commitment
from dicom_node.doctor.peers import check_peer
from tests.nursery import dicom_node


def archive(port: int, **changes: Any) -> Peer:
    values = {"name": "archive", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": port}
    return Peer.model_validate({**values, "calling_ae_title": "ENHANCE", **changes})


@pytest.fixture
def start_peer() -> Iterator[Callable[..., int]]:
    """A stock acceptor; only ENHANCE may call ARCHIVE. `statuses` are its answers to C-ECHO and C-STORE."""
    servers: list[Any] = []

    def start(*sop_classes: str, echo: int = 0, store: int = 0) -> int:
        entity = AE(ae_title="ARCHIVE")
        entity.require_called_aet = True
        entity.require_calling_aet = ["ENHANCE"]
        for sop_class in sop_classes:
            entity.add_supported_context(sop_class, [ExplicitVRLittleEndian])
        handlers = [(evt.EVT_C_ECHO, lambda _: echo), (evt.EVT_C_STORE, lambda _: store)]
        servers.append(entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers))
        return int(servers[-1].server_address[1])

    yield start
    for server in servers:
        server.shutdown()


def test_an_archive_that_takes_everything_is_fine(start_storescp):
    port, _ = start_storescp()

    findings = check_peer(archive(port))

    assert [finding.level for finding in findings] == [Level.OK] * 3
    assert "Explicit VR Little Endian and Implicit VR Little Endian" in findings[1].seen


def test_an_archive_without_storage_commitment_is_a_problem_where_it_is_asked(start_storescp):
    port, _ = start_storescp()

    assert check_commitment(archive(port)) == []
    (finding,) = check_commitment(archive(port, commitment={}))
    assert finding.level is Level.PROBLEM
    assert "does not offer storage commitment" in finding.seen


def test_an_archive_that_wants_implicit_vr_only_is_a_warning(start_storescp):
    port, _ = start_storescp("+xi")
    levels = [finding.level for finding in check_peer(archive(port))]
    assert levels == [Level.OK, Level.WARNING, Level.WARNING]


def test_an_archive_that_takes_no_mr_is_a_problem_with_the_uid_to_allow(start_peer):
    findings = check_peer(archive(start_peer(Verification, CTImageStorage)))
    assert [finding.level for finding in findings] == [Level.OK, Level.OK, Level.PROBLEM]
    assert "1.2.840.10008.5.1.4.1.1.4)" in findings[2].fix


def test_an_archive_without_storage_or_without_verification(start_peer):
    echo_only = check_peer(archive(start_peer(Verification)))
    assert [finding.level for finding in echo_only] == [Level.OK, Level.PROBLEM, Level.PROBLEM]
    store_only = check_peer(archive(start_peer(CTImageStorage)))
    assert [finding.level for finding in store_only] == [Level.WARNING, Level.OK, Level.PROBLEM]


def test_an_archive_that_answers_an_echo_with_an_error_is_a_warning(start_peer):
    assert check_peer(archive(start_peer(Verification, echo=0x0211)))[0].level is Level.WARNING


@pytest.mark.parametrize(
    ("change", "fix"),
    [
        ({"calling_ae_title": "STRANGER"}, "has to enter our AE title STRANGER"),
        ({"ae_title": "ARCHIV"}, "correct ae_title"),
        ({"port": 1}, "nc -vz 127.0.0.1 1"),
        ({"host": "no-such-host.invalid"}, "Check host and port"),
    ],
)
def test_what_keeps_the_peer_away_is_told_with_its_fix(start_peer, change, fix):
    (finding,) = check_peer(archive(**{"port": start_peer(Verification), **change}))
    assert finding.level is Level.PROBLEM
    assert fix in finding.fix


def test_a_peer_that_is_switched_off_is_not_called():
    (finding,) = check_peer(archive(1, enabled=False))
    assert finding.level is Level.WARNING


def test_a_peer_whose_certificate_is_not_believed_is_told_as_such(start_storescp, authority):
    hospital, foreign = authority("hospital"), authority("foreign")
    theirs, ours = hospital.issue("archive"), hospital.issue("us")
    port, _ = start_storescp("+tls", theirs.key, theirs.certificate, "+cf", hospital.ca)
    section = {"certificate": ours.certificate, "key": ours.key}

    assert check_peer(archive(port, tls={**section, "ca": hospital.ca}))[0].level is Level.OK
    (finding,) = check_peer(archive(port, tls={**section, "ca": foreign.ca}))
    assert finding.level is Level.PROBLEM
    assert "TLS" in finding.seen
    assert "signed by the file under `ca`" in finding.fix


def test_a_test_object_is_stored_and_the_way_back_left_open_without_c_move(start_storescp):
    port, folder = start_storescp()

    findings = check_exchange(Settings.model_validate({"node": {"port": 0}}), archive(port))

    assert [finding.level for finding in findings] == [Level.OK, Level.WARNING]
    assert len(list(folder.iterdir())) == 1


def test_a_test_object_that_is_refused_is_a_problem(start_peer):
    (finding,) = check_exchange(Settings(), archive(start_peer(Verification, CTImageStorage, store=0xA700)))
    assert finding.level is Level.PROBLEM
    assert "0xA700" in finding.seen


def test_the_command_ends_with_1_on_a_problem_and_0_without(start_storescp, tmp_path):
    port, _ = start_storescp()
    (tmp_path / "node.yaml").write_text(
        "node: {port: 0}\nstorage: {watermarks: {soft: 99 %, hard: 100 %, reserve: 1 MB}}\n"
        f"peers: [{{name: archive, ae_title: ARCHIVE, host: 127.0.0.1, port: {port}}}]\n"
    )
    well = doctor(tmp_path, "--json", "--store")
    assert well.returncode == 0, well.stdout
    examined = json.loads(well.stdout)
    assert {"disk", "database", "ports", "peers", "exchange", "model", "device", "clock"} <= {
        finding["check"] for finding in examined["findings"]
    }
    assert len(examined["entries"]) == 2

    text = (tmp_path / "node.yaml").read_text()
    (tmp_path / "node.yaml").write_text(text.replace(str(port), "1"))
    unwell = doctor(tmp_path)
    assert unwell.returncode == 1
    assert "problem  peers: archive" in unwell.stdout
    assert "Fix: " in unwell.stdout
    assert "1 problems." in unwell.stdout
    assert "allow this node to store" in unwell.stdout


def doctor(folder, *options: str) -> subprocess.CompletedProcess[str]:
    return dicom_node("doctor", "-c", folder / "node.yaml", *options)
