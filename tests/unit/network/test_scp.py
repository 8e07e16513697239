"""The acceptor: who gets in, what each request is answered with, how an association ends."""

from __future__ import annotations

import socket
import threading
import time
from datetime import timedelta

import pytest
from pydicom import dcmread
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    MRImageStorage,
)
from pynetdicom import build_context, evt

from dicom_node.errors import AssociationRejectedError, CannotListenError
from dicom_node.network.received import buffered
from dicom_node.network.scp import ScpSettings, StorageScp
from dicom_node.network.scu import echo, send
from dicom_node.network.status import Ending, Rejection, Status, StoreResponse
from dicom_node.network.transport import RequestorEntity


def wait_until(condition):
    deadline = time.monotonic() + 5
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def rejection_of(scp, calling="SCANNER", called="ENHANCE"):
    entity = RequestorEntity(ae_title=calling)
    host, port = scp.address
    assoc = entity.associate(host, port, contexts=[build_context("1.2.840.10008.1.1")], ae_title=called)
    if assoc.is_established:
        assoc.release()
        return None
    answer = assoc.acceptor.primitive
    return (answer.result, answer.result_source, answer.diagnostic)


def test_echo_is_answered_with_success(start_scp, peer_of):
    result = echo(peer_of(start_scp().address))

    assert result.status == 0x0000
    assert 0 < result.seconds < 5


@pytest.mark.parametrize("called", ["ENHANCE", "DENOISE"])
def test_every_title_of_ours_may_be_called(start_scp, called):
    assert rejection_of(start_scp(), called=called) is None


def test_unknown_called_title_is_rejected_for_good(start_scp, memory):
    assert rejection_of(start_scp(), called="OTHER") == (1, 1, 7)
    assert memory.wait_for(lambda: memory.rejections == [Rejection.CALLED_AE_UNKNOWN])


def test_unknown_calling_title_is_rejected_for_good(start_scp, memory):
    memory.admitted = lambda request: request.calling_ae == "SCANNER"
    scp = start_scp()

    assert rejection_of(scp, calling="INTRUDER") == (1, 1, 3)
    assert rejection_of(scp, calling="SCANNER") is None


def test_a_rejection_that_is_there_before_anybody_looks_keeps_its_reason(start_scp, memory):
    memory.admitted = lambda _request: False
    closed = threading.Event()
    # The requesting thread looks only after the reading thread has taken the rejection and closed the connection.
    handlers = [(evt.EVT_CONN_CLOSE, lambda _: closed.set()), (evt.EVT_REQUESTED, lambda _: closed.wait(10))]

    assoc = RequestorEntity(ae_title="INTRUDER").associate(
        *start_scp().address,
        contexts=[build_context("1.2.840.10008.1.1")],
        ae_title="ENHANCE",
        evt_handlers=handlers,
    )

    assert closed.is_set()
    assert assoc.is_rejected
    assert assoc.acceptor.primitive.diagnostic == 3


def test_association_beyond_the_limit_is_rejected_until_another_ends(start_scp, peer_of, memory):
    scp = start_scp(max_associations=1)
    entity = RequestorEntity(ae_title="SCANNER")
    first = entity.associate(*scp.address, contexts=[build_context("1.2.840.10008.1.1")], ae_title="ENHANCE")

    rejected = rejection_of(scp)
    first.release()
    memory.wait_for(lambda: bool(memory.endings))

    assert rejected == (2, 3, 2)
    assert scp.open_associations == 0
    assert echo(peer_of(scp.address)).status == 0


def test_nothing_is_accepted_that_cannot_be_recorded(start_scp, memory):
    memory.failure = OSError("no database")

    assert rejection_of(start_scp()) == (2, 3, 1)
    assert memory.endings == []


def test_data_set_arrives_byte_for_byte(start_scp, peer_of, memory, make_file):
    item = make_file()

    send(peer_of(start_scp().address), [item], lambda *_: None)

    received = memory.instances[0]
    assert item.path.read_bytes().endswith(bytes(received.data))
    assert received.sop_instance_uid == item.sop_instance_uid
    assert received.transfer_syntax_uid == ExplicitVRLittleEndian
    assert received.association.calling_ae == "SCANNER"


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (StoreResponse(Status.OUT_OF_RESOURCES, comment="STORAGE_FULL"), 0xA700),
        (StoreResponse(Status.REQUIRED_UID, offending=0x0020000D), 0xA901),
        (0xA900, 0xA900),
    ],
)
def test_answer_of_the_receive_function_reaches_the_peer(
    start_scp, peer_of, memory, make_file, answer, status
):
    memory.answer = lambda _received: answer
    answers = []

    send(peer_of(start_scp().address), [make_file()], lambda *result: answers.append(result))

    assert [result[1] for result in answers] == [status]


def test_offending_element_is_named(start_scp, memory, make_file):
    memory.answer = lambda _received: StoreResponse(
        Status.REQUIRED_UID, offending=0x0020000D, comment="BAD_UID"
    )
    entity = RequestorEntity(ae_title="SCANNER")
    contexts = [build_context(CTImageStorage, ExplicitVRLittleEndian)]
    assoc = entity.associate(*start_scp().address, contexts=contexts, ae_title="ENHANCE")

    answer = assoc.send_c_store(make_file().path)
    assoc.release()

    assert answer.Status == 0xA901
    assert answer.OffendingElement == 0x0020000D
    assert answer.ErrorComment == "BAD_UID"


def test_class_other_than_that_of_the_context_is_refused(start_scp, memory, make_file):
    entity = RequestorEntity(ae_title="SCANNER")
    contexts = [build_context(CTImageStorage, ExplicitVRLittleEndian)]
    assoc = entity.associate(*start_scp().address, contexts=contexts, ae_title="ENHANCE")
    dataset = dcmread(make_file().path)
    context = assoc.accepted_contexts[0]
    assoc._get_valid_context = lambda *_args, **_options: context
    dataset.SOPClassUID = MRImageStorage

    answer = assoc.send_c_store(dataset)
    assoc.release()

    assert answer.Status == 0x0122
    assert memory.instances == []


def test_exception_is_answered_and_its_text_stays_inside(start_scp, peer_of, memory, make_file, capfd):
    def fail(_received):
        raise ValueError("DOE^JANE")

    memory.answer = fail
    answers = []

    send(
        peer_of(start_scp().address), [make_file(1), make_file(2)], lambda *result: answers.append(result[1:])
    )

    assert answers == [(0xC001, "INTERNAL_ERROR")] * 2
    assert "DOE" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(("leave", "ending"), [("release", Ending.RELEASED), ("abort", Ending.ABORTED)])
def test_ending_is_told_apart(start_scp, memory, leave, ending):
    entity = RequestorEntity(ae_title="SCANNER")
    contexts = [build_context("1.2.840.10008.1.1")]
    assoc = entity.associate(*start_scp().address, contexts=contexts, ae_title="ENHANCE")

    getattr(assoc, leave)()

    assert memory.wait_for(lambda: memory.endings == [(1, ending)])


def test_connection_that_goes_away_is_lost(start_scp, memory):
    entity = RequestorEntity(ae_title="SCANNER")
    contexts = [build_context("1.2.840.10008.1.1")]
    assoc = entity.associate(*start_scp().address, contexts=contexts, ae_title="ENHANCE")

    assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)

    assert memory.wait_for(lambda: memory.endings == [(1, Ending.LOST)])


def test_peer_that_stops_in_the_middle_of_a_pdu_is_dropped_at_the_deadline(start_scp):
    scp = start_scp(pdu_deadline_s=0.3)
    with socket.create_connection(scp.address, timeout=5) as raw:
        raw.sendall(b"\x01\x00\x00")
        begin = time.monotonic()

        assert raw.recv(1) == b""
        assert time.monotonic() - begin < 3


def test_pdu_with_an_absurd_length_is_dropped_before_it_is_read(start_scp):
    with socket.create_connection(start_scp(pdu_deadline_s=60).address, timeout=5) as raw:
        raw.sendall(b"\x01\x00\xff\xff\xff\xf0")

        assert raw.recv(100) == b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x06"
        assert raw.recv(1) == b""


def test_stop_lets_a_running_association_finish(start_scp, memory, make_file):
    scp = start_scp()
    entity = RequestorEntity(ae_title="SCANNER")
    contexts = [build_context(CTImageStorage, ExplicitVRLittleEndian)]
    assoc = entity.associate(*scp.address, contexts=contexts, ae_title="ENHANCE")
    memory.answer = lambda _received: time.sleep(0.3) or 0x0000
    stopping = threading.Thread(target=scp.stop, args=(timedelta(seconds=10),))
    stopping.start()
    answer = assoc.send_c_store(make_file().path)
    assoc.release()
    stopping.join(10)

    assert answer.Status == 0x0000
    assert memory.endings == [(1, Ending.RELEASED)]


def test_stop_aborts_what_does_not_finish_in_time(start_scp, memory):
    scp = start_scp()
    entity = RequestorEntity(ae_title="SCANNER")
    assoc = entity.associate(*scp.address, contexts=[build_context("1.2.840.10008.1.1")], ae_title="ENHANCE")

    scp.stop(timedelta(seconds=0.1))

    assert memory.endings == [(1, Ending.ABORTED)]
    assoc.abort()


@pytest.mark.parametrize("said", [b"", b"\x01\x00\x00"])
def test_stop_closes_connections_that_never_asked(start_scp, said):
    scp = start_scp()
    with socket.create_connection(scp.address, timeout=5) as raw:
        raw.sendall(said)
        wait_until(lambda: scp._gate.waiting > 0)

        scp.stop()

        assert raw.recv(1) == b""
    assert wait_until(lambda: not [one for one in threading.enumerate() if one.name == "association"])


def test_stopped_scp_refuses_connections(start_scp):
    scp = start_scp()
    address = scp.address

    scp.stop()

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=2)


def test_compressed_data_is_taken_as_it_comes_and_explicit_vr_is_preferred(start_scp):
    entity = RequestorEntity(ae_title="SCANNER")
    contexts = [
        build_context(CTImageStorage, [ImplicitVRLittleEndian, ExplicitVRLittleEndian]),
        build_context(CTImageStorage, [JPEG2000Lossless]),
    ]
    assoc = entity.associate(*start_scp().address, contexts=contexts, ae_title="ENHANCE")

    accepted = [str(context.transfer_syntax[0]) for context in assoc.accepted_contexts]
    assoc.release()

    assert accepted == [ExplicitVRLittleEndian, JPEG2000Lossless]


def test_class_that_is_not_stored_is_refused_at_negotiation(start_scp, peer_of, make_file):
    item = make_file(sop_class="1.2.840.10008.5.1.4.1.1.128")

    with pytest.raises(AssociationRejectedError) as caught:
        send(peer_of(start_scp().address), [item], lambda *_: None)

    assert caught.value.permanent
    assert caught.value.reason == "NO_CONTEXT"


def test_nodelay_is_set_on_accepted_connections(start_scp, memory):
    scp = start_scp()
    entity = RequestorEntity(ae_title="SCANNER")
    assoc = entity.associate(*scp.address, contexts=[build_context("1.2.840.10008.1.1")], ae_title="ENHANCE")
    (slot,) = scp._open.values()

    nodelay = slot.ticket.raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assoc.release()

    assert nodelay != 0


def test_a_taken_port_is_named_in_one_clear_error(memory):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CannotListenError, match=f"127.0.0.1:{port}: Address already in use"):
            StorageScp(
                ScpSettings(ae_titles=("ENHANCE",), host="127.0.0.1", port=port),
                buffered(memory.receive),
                memory,
            ).start()
