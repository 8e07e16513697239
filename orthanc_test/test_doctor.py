"""The doctor's test object there and back, with a real Orthanc as the PACS."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from config.commitment import PeerCommitment
from config.settings import Settings
from dicom_node.demo.bench import RunningNode, free_port
from dicom_node.doctor.exchange import check_exchange
from dicom_node.doctor.findings import Finding, Level
from dicom_node.doctor.keeping import check_commitment
from dicom_node.doctor.peers import check_peer

pytestmark = pytest.mark.skipif(
    "ORTHANC_URL" in os.environ, reason="leaves a site's own list of modalities alone"
)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def examine(orthanc: Any, port: int) -> Any:
    """Register the node at Orthanc under an AE title and a port, then send the object there and back."""

    def run(
        *, title: str = "ENHANCE", known_port: int | None = None, callers: str = "ORTHANC"
    ) -> list[Finding]:
        body = json.dumps([title, "127.0.0.1", known_port or port]).encode()
        orthanc.raw("PUT", "/modalities/enhance", body)
        return check_exchange(settings(orthanc, port, callers), settings(orthanc, port, callers).peer("pacs"))

    yield run
    orthanc.raw("DELETE", "/modalities/enhance")


def settings(orthanc: Any, port: int, callers: str) -> Settings:
    peer = {"name": "pacs", "ae_title": orthanc.ae_title, "host": orthanc.host, "port": orthanc.port}
    return Settings.model_validate({"node": {"port": port, "accept_from": [callers]}, "peers": [peer]})


def levels(findings: list[Finding]) -> list[Level]:
    return [finding.level for finding in findings]


def test_orthanc_takes_what_the_node_would_send(orthanc: Any, port: int) -> None:
    assert levels(check_peer(settings(orthanc, port, "X").peer("pacs"))) == [Level.OK] * 3


def test_the_object_goes_there_and_comes_back(examine: Any) -> None:
    there, back = examine()
    assert levels([there, back]) == [Level.OK, Level.OK], (there, back)
    assert "sent the test object back" in back.seen


def test_a_pacs_that_does_not_know_us_is_told_what_to_enter(examine: Any) -> None:
    _, back = examine(title="SOMEBODY")
    assert back.level is Level.PROBLEM
    assert "ENHANCE" in back.seen
    assert "lines below" in back.fix


def test_a_pacs_that_calls_another_port_is_a_problem(examine: Any) -> None:
    _, back = examine(known_port=free_port())
    assert back.level is Level.PROBLEM
    assert "host and port" in back.fix


def test_a_pacs_that_the_list_of_callers_lacks_is_told_with_the_line_to_add(examine: Any) -> None:
    _, back = examine(callers="SCANNER")
    assert back.level is Level.PROBLEM
    assert "{ae_title: ORTHANC, network: 127.0.0.1}" in back.fix


def test_with_the_node_running_the_object_comes_in_by_its_own_door(orthanc: Any, node: RunningNode) -> None:
    peer = node.settings.peer("pacs")
    assert peer is not None
    assert levels(check_exchange(node.settings, peer)) == [Level.OK, Level.OK]
    with node.operations() as operations:
        (series,) = operations.series()
    assert series.calling_ae == orthanc.ae_title


def test_orthanc_promises_to_keep_the_object_and_its_report_reaches_us(orthanc: Any, port: int) -> None:
    known = {"AET": "ENHANCE", "Host": "127.0.0.1", "Port": port, "AllowStorageCommitment": True}
    orthanc.raw("PUT", "/modalities/enhance", json.dumps(known).encode())
    written = settings(orthanc, port, "ORTHANC")
    peer = written.peer("pacs")
    assert peer is not None
    asked = peer.model_copy(update={"commitment": PeerCommitment()})

    assert levels(check_commitment(asked)) == [Level.OK]
    there, kept, back = check_exchange(written, asked)

    orthanc.raw("DELETE", "/modalities/enhance")
    assert levels([there, kept, back]) == [Level.OK] * 3, kept
    assert "promised to keep" in kept.seen
