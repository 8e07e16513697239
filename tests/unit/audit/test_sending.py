"""Syslog over TLS to a real receiver: what arrives, and that an outage costs nothing but time."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from config.audit import AuditSection
from dicom_node.audit.recorder import Recorder
from dicom_node.audit.shipper import Shipper
from dicom_node.audit.syslog import AuditNotSentError, SyslogTarget, format_record, frame
from dicom_node.demo.bench import free_port
from storage.audit_chain import GENESIS, NewAuditRecord, link


class Seconds:
    """A monotonic clock moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def section_for(log_server, port: int, **changes) -> AuditSection:
    pki = log_server.pki
    us = pki.issue(f"us-{port}", key="ec")
    tls = {"ca": pki.ca, "certificate": us.certificate, "key": us.key, **changes}
    return AuditSection.model_validate(
        {"syslog": {"host": "127.0.0.1", "port": port, "timeout": "5 s", "tls": tls}}
    )


@pytest.fixture
def recorder(store, settings) -> Recorder:
    return Recorder(store, settings)


def test_every_record_arrives_in_order_with_its_place_in_the_chain(log_server, store, line, recorder) -> None:
    server = log_server()
    line()
    count = recorder.record()

    sent = Shipper(store, section_for(log_server, server.port)).ship()

    records = store.audit.list()[::-1]
    assert sent == count == len(records) > 0
    assert server.sequence == [record.seq for record in records]
    assert [(m.digest, m.message) for m in server.received] == [(r.digest, r.message) for r in records]
    assert [m.priority for m in server.received] == [85 if r.outcome == 0 else 84 for r in records]
    assert store.audit.unsent() == []


def test_a_message_of_32_kilobytes_arrives_whole(log_server) -> None:
    server = log_server()
    draft = NewAuditRecord(1, _moment(), "110103", 0, "<AuditMessage>" + "é" * 16000 + "</AuditMessage>")
    record = link(draft, seq=1, previous=GENESIS)

    SyslogTarget(section_for(log_server, server.port).syslog, hostname="node 1").deliver([record] * 3)

    assert [message.message for message in server.received] == [draft.message] * 3
    assert server.received[0].octets > 32_000


def test_a_server_that_just_closes_after_reading_has_got_the_batch(log_server, store, line, recorder) -> None:
    server = log_server()
    server.manners = "abrupt"
    line()
    count = recorder.record()

    assert Shipper(store, section_for(log_server, server.port)).ship() == count
    assert len(server.received) == count


@pytest.mark.parametrize("reads", [0, 700])
def test_a_batch_that_was_cut_off_is_sent_again_and_none_is_missing(
    log_server, store, line, recorder, reads: int
) -> None:
    server, clock = log_server(), Seconds()
    shipper = Shipper(store, section_for(log_server, server.port), monotonic=clock)
    line()
    count = recorder.record()
    server.manners, server.reads = "reset", reads

    assert shipper.ship() == 0
    assert len(store.audit.unsent()) == count

    server.manners = "polite"
    assert shipper.ship() == 0, "too soon after the failure"
    clock.now += 60.0
    assert shipper.ship() == count
    assert server.sequence == list(range(1, count + 1))


def test_records_wait_while_the_server_is_down_and_arrive_when_it_is_back(
    log_server, store, line, receive_series, recorder
) -> None:
    port, clock = free_port(), Seconds()
    shipper = Shipper(store, section_for(log_server, port), monotonic=clock)
    line()
    recorder.record()
    for _ in range(5):
        assert shipper.ship() == 0
        clock.now += 60.0
    receive_series(1, study="1.9")
    recorder.record()

    server = log_server(port=port)
    shipper.ship()

    assert server.sequence == list(range(1, store.audit.state().head_seq + 1))


def test_what_was_sent_before_a_restart_is_not_sent_again(
    log_server, store, line, receive_series, recorder
) -> None:
    server = log_server()
    section = section_for(log_server, server.port)
    line()
    before = recorder.record()
    Shipper(store, section).ship()
    receive_series(1, study="1.9")
    recorder.record()

    assert Shipper(store, section).ship() == 1
    assert server.sequence == [*range(1, before + 1), before + 1]


def test_a_silent_server_is_given_up_at_the_timeout(log_server, store, line, recorder) -> None:
    server = log_server()
    server.manners = "silent"
    section = section_for(log_server, server.port)
    line()
    recorder.record()
    quick = section.syslog.model_copy(update={"timeout": section.syslog.timeout / 10})

    with pytest.raises(AuditNotSentError, match="in time"):
        SyslogTarget(quick, hostname="node").deliver(store.audit.unsent())


def test_a_server_of_another_authority_gets_nothing(log_server, authority, store, line, recorder) -> None:
    server = log_server()
    elsewhere = authority("elsewhere")
    line()
    recorder.record()

    with pytest.raises(AuditNotSentError, match="not believed"):
        SyslogTarget(section_for(log_server, server.port, ca=elsewhere.ca).syslog, hostname="node").deliver(
            store.audit.unsent()
        )
    assert server.received == []


def test_a_server_that_does_not_believe_us_confirms_nothing(
    log_server, authority, store, line, recorder
) -> None:
    server = log_server()
    foreign = authority("elsewhere").issue("us", key="ec")
    line()
    recorder.record()
    section = section_for(log_server, server.port, certificate=foreign.certificate, key=foreign.key)

    assert Shipper(store, section).ship() == 0
    assert store.audit.state().sent_seq == 0


def test_a_frame_counts_octets_not_characters() -> None:
    record = link(NewAuditRecord(1, _moment(), "110100", 0, "<é/>"), seq=1, previous=GENESIS)

    message = format_record(record, "node")

    assert frame(message) == str(len(message)).encode() + b" " + message
    assert message.endswith(b"\xef\xbb\xbf<\xc3\xa9/>")
    assert message.startswith(b"<85>1 2031-05-06T07:08:09.000010Z node dicom-node - DICOM+RFC3881 [meta ")


def _moment() -> datetime:
    return datetime(2031, 5, 6, 7, 8, 9, 10, tzinfo=UTC)
