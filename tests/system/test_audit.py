"""The audit trail of a whole node, as a real log server gets it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from pydicom import dcmread

from dicom_node.demo.archive import Archive
from dicom_node.demo.bench import RunningNode
from dicom_node.network import scu

LIMIT = timedelta(seconds=150)


def test_a_log_server_hears_of_start_transfers_and_stop(
    start_node: Callable[..., RunningNode],
    start_archive: Callable[..., Archive],
    series: list[Path],
    log_server,
) -> None:
    server, pki = log_server(), log_server.pki
    us = pki.issue("us", key="ec")
    tls = f"{{ca: {pki.ca}, certificate: {us.certificate}, key: {us.key}}}"
    start_archive()
    node = start_node(extra=f"audit: {{syslog: {{host: 127.0.0.1, port: {server.port}, tls: {tls}}}}}\n")
    first = dcmread(series[0], stop_before_pixels=True)

    scu.send(node.peer, [scu.outgoing(path) for path in series], lambda *_: True)
    node.await_end(str(first.SeriesInstanceUID), LIMIT)
    assert node.stop() == 0

    assert server.sequence == list(range(1, len(server.received) + 1))
    text = "\n".join(message.message for message in server.received)
    told = [message.message.split('csd-code="')[1][:6] for message in server.received]
    assert told[0] == told[-1] == "110100"
    assert told[1:-1] == ["110104", "110103", "110102", "110104"]
    assert str(first.StudyInstanceUID) in text
    for secret in (str(first.PatientName), str(first.PatientID)):
        assert secret not in text
    with node.operations() as operations:
        assert operations.verify_audit(actor="test").fault is None
