"""The requestor: order, answers, the one conversion, and every way a peer can fail."""

from __future__ import annotations

import socket
import threading

import pytest
from pydicom import dcmread
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
    RLELossless,
)

from dicom_node.errors import (
    AssociationLostError,
    AssociationRejectedError,
    PeerUnreachableError,
    UnreadableInstanceError,
)
from dicom_node.network.scu import Outgoing, echo, outgoing, send

BOTH = [ExplicitVRLittleEndian, ImplicitVRLittleEndian]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_instances_are_answered_in_the_order_given(start_peer, peer_of, make_file):
    files = [make_file(number) for number in (3, 1, 2)]
    answers = []

    report = send(peer_of(start_peer(BOTH, lambda _e: 0x0000)), files, lambda *result: answers.append(result))

    assert answers == [(item.sop_instance_uid, 0x0000, "") for item in files]
    assert (report.answered, report.succeeded) == (3, 3)


def test_answer_is_reported_before_the_next_instance_is_sent(start_peer, peer_of, make_file):
    events = []
    address = start_peer(BOTH, lambda event: events.append("stored") or 0x0000)

    send(peer_of(address), [make_file(1), make_file(2)], lambda *_: events.append("reported"))

    assert events == ["stored", "reported", "stored", "reported"]


def test_listener_can_stop_the_sending(start_peer, peer_of, make_file):
    stored = []
    address = start_peer(BOTH, lambda event: stored.append(1) or 0xA700)

    report = send(peer_of(address), [make_file(1), make_file(2)], lambda _uid, status, _c: status != 0xA700)

    assert len(stored) == 1
    assert (report.answered, report.succeeded) == (1, 0)


@pytest.mark.parametrize("status", [0xB000, 0x0111, 0xA900, 0xC123, 0x0124])
def test_status_is_reported_as_the_peer_gave_it(start_peer, peer_of, make_file, status):
    answers = []

    send(
        peer_of(start_peer(BOTH, lambda _e: status)), [make_file()], lambda *result: answers.append(result[1])
    )

    assert answers == [status]


def test_file_goes_out_byte_for_byte(start_peer, peer_of, make_file):
    item = make_file()
    seen = []
    address = start_peer(BOTH[:1], lambda event: seen.append(event.encoded_dataset(include_meta=False)) or 0)

    send(peer_of(address), [item], lambda *_: None)

    assert item.path.read_bytes().endswith(seen[0])


def test_explicit_is_converted_for_a_peer_that_accepts_implicit_only(start_peer, peer_of, make_file):
    item = make_file(PatientComments="kept")
    seen = []
    address = start_peer(BOTH[1:], lambda event: seen.append((event.context, event.dataset)) or 0x0000)

    report = send(peer_of(address), [item], lambda *_: None)

    context, dataset = seen[0]
    assert context.transfer_syntax == ImplicitVRLittleEndian
    assert dataset == dcmread(item.path)
    assert report.succeeded == 1


def test_compressed_file_is_offered_in_its_own_syntax(start_peer, peer_of, make_file):
    item = make_file(PixelData=b"\xfe\xff\x00\xe0\x00\x00\x00\x00\xfe\xff\x00\xe0\x00\x00\x00\x00")
    item = Outgoing(item.path, item.sop_class_uid, item.sop_instance_uid, RLELossless)
    answers = []

    with pytest.raises(AssociationRejectedError) as caught:
        send(peer_of(start_peer(BOTH, lambda _e: 0)), [item], lambda *result: answers.append(result))

    assert caught.value.permanent
    assert answers == []


def test_instance_without_a_context_is_refused_and_the_others_go_on(start_peer, peer_of, make_file):
    files = [make_file(1, sop_class=MRImageStorage), make_file(2)]
    answers = []

    send(peer_of(start_peer(BOTH, lambda _e: 0x0000)), files, lambda *result: answers.append(result[1:]))

    assert answers == [(0x0122, "NO_CONTEXT"), (0x0000, "")]


def test_closed_port_is_unreachable(peer_of):
    with pytest.raises(PeerUnreachableError):
        echo(peer_of(("127.0.0.1", free_port())))


def test_unknown_host_name_is_unreachable(peer_of):
    with pytest.raises(PeerUnreachableError):
        echo(peer_of(("no-such-host.invalid", 104)))


def test_name_without_a_dot_is_resolved(start_scp, peer_of):
    address = start_scp().address

    assert echo(peer_of(("localhost", address[1]))).status == 0x0000


@pytest.mark.parametrize(
    ("limits", "permanent"),
    [({"require_calling_aet": ["OTHER"]}, True), ({"maximum_associations": 1}, False)],
)
def test_rejection_is_permanent_or_not_as_the_peer_said(start_peer, peer_of, make_file, limits, permanent):
    address = start_peer(BOTH, lambda _e: 0x0000, **limits)
    # The connection without a request takes the only place there is.
    with socket.create_connection(address), pytest.raises(AssociationRejectedError) as caught:
        send(peer_of(address), [make_file()], lambda *_: None)

    assert caught.value.permanent is permanent


def test_silent_peer_is_lost_after_the_dimse_timeout(start_peer, peer_of, make_file):
    hang = threading.Event()
    address = start_peer(BOTH, lambda _e: hang.wait(10) and 0x0000)
    peer = peer_of(address, timeouts={"association": "5 s", "dimse": "0.3 s", "network": "5 s"})
    answers = []

    with pytest.raises(AssociationLostError):
        send(peer, [make_file()], lambda *result: answers.append(result))
    hang.set()

    assert answers == []


def test_what_was_answered_before_an_abort_stands(start_peer, peer_of, make_file):
    def abort_on_second(event):
        if event.request.AffectedSOPInstanceUID.endswith(".2"):
            event.assoc.abort()
        return 0x0000

    answers = []

    with pytest.raises(AssociationLostError):
        send(
            peer_of(start_peer(BOTH, abort_on_second)),
            [make_file(number) for number in (1, 2, 3)],
            lambda uid, *_: answers.append(uid),
        )

    assert answers == ["1.2.826.0.1.1"]


def test_peer_that_accepts_the_connection_and_says_nothing_is_rejected_for_now(peer_of):
    with socket.create_server(("127.0.0.1", 0)) as server:
        peer = peer_of(
            server.getsockname(), timeouts={"association": "0.3 s", "dimse": "1 s", "network": "1 s"}
        )

        with pytest.raises(AssociationRejectedError) as caught:
            echo(peer)

    assert not caught.value.permanent


def test_error_of_the_listener_aborts_and_comes_back(start_scp, memory, peer_of, make_file):
    def fail(*_result):
        raise KeyError("database")

    with pytest.raises(KeyError):
        send(peer_of(start_scp().address), [make_file()], fail)

    assert memory.wait_for(lambda: memory.endings and memory.endings[0][1].value == "aborted")


def test_calling_title_has_to_come_from_somewhere(start_scp, memory, peer_of):
    peer = peer_of(start_scp().address, calling_ae_title=None)

    with pytest.raises(ValueError, match="calling AE title"):
        echo(peer)

    assert echo(peer, calling_ae_title="OURS").status == 0x0000
    assert memory.requests[0].calling_ae == "OURS"


def test_nothing_to_send_needs_no_peer(peer_of):
    assert send(peer_of(("127.0.0.1", 1)), [], lambda *_: None).answered == 0


def test_file_is_described_by_its_file_meta(make_file):
    item = make_file()

    assert outgoing(item.path) == item


@pytest.mark.parametrize("content", [b"", b"no DICOM here" * 50, b"\x00" * 128 + b"DICM"])
def test_file_without_file_meta_cannot_be_sent(tmp_path, content):
    path = tmp_path / "x"
    path.write_bytes(content)

    with pytest.raises(UnreadableInstanceError):
        outgoing(path)


def test_missing_file_is_unreadable_and_not_a_lost_association(start_peer, peer_of, tmp_path):
    item = Outgoing(tmp_path / "gone", CTImageStorage, "1.2", ExplicitVRLittleEndian)

    with pytest.raises(UnreadableInstanceError):
        send(peer_of(start_peer(BOTH, lambda _e: 0)), [item], lambda *_: None)
