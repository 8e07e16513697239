"""The data path of a transmission against peers that misbehave: a scripted acceptor of raw PDUs."""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ

from dicom_node.errors import AssociationLostError, Reason
from dicom_node.network.pace import SLOWEST_LINK, Pace
from dicom_node.network.store_messages import AnswerParts, MessageError, largest_fragment
from dicom_node.network.stored_file import FileBuffer, SourceChangedError, outgoing
from dicom_node.network.transmission import transmit

RELEASE_RP = b"\x06\x00\x00\x00\x00\x04" + bytes(4)
ABORT = b"\x07\x00\x00\x00\x00\x04\x00\x00\x02\x00"
RELEASE_RQ = b"\x05\x00\x00\x00\x00\x04" + bytes(4)


def response(context_id: int, message_id: int, status: int, uid: str = "", *, pieces: int = 1) -> bytes:
    """A C-STORE-RSP, in so many PDUs."""

    def element(number: int, value: bytes) -> bytes:
        return struct.pack("<HHI", 0, number, len(value)) + value

    body = element(0x0100, b"\x01\x80") + element(0x0120, struct.pack("<H", message_id))
    body += element(0x0800, b"\x01\x01") + element(0x0900, struct.pack("<H", status))
    body += element(0x0902, b"BECAUSE ")
    if uid:
        body += element(0x1000, uid.encode() + b"\x00" * (len(uid) % 2))
    command = element(0x0000, struct.pack("<I", len(body))) + body
    size = -(-len(command) // pieces)
    parts = [command[start : start + size] for start in range(0, len(command), size)]
    pdus = []
    for number, part in enumerate(parts):
        control = 1 | (2 if number == len(parts) - 1 else 0)
        pdus.append(struct.pack(">BxIIBB", 4, len(part) + 6, len(part) + 2, context_id, control) + part)
    return b"".join(pdus)


class Acceptor:
    """Accepts one association by hand, reads whole messages, and answers what the script says."""

    def __init__(self, script: Callable[[Acceptor, int, int], bytes | None], max_length: int = 16384) -> None:
        self._script = script
        self._max_length = max_length
        self.data: list[bytes] = []
        self.longest = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = self._server.getsockname()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.close()

    def _serve(self) -> None:
        raw, _ = self._server.accept()
        with raw:
            self._accept(raw)
            data, message = bytearray(), 0
            while True:
                kind, body = self._pdu(raw)
                if kind == 5:
                    raw.sendall(RELEASE_RP)
                if kind != 4:
                    return
                self.longest = max(self.longest, len(body))
                context_id, control = body[4], body[5]
                if control & 1:
                    after_tag = body.index(b"\0\0\x10\x01\2\0\0\0") + 8  # (0000,0110) Message ID
                    message = int.from_bytes(body[after_tag : after_tag + 2], "little")
                else:
                    data += body[6:]
                if control == 2:
                    self.data.append(bytes(data))
                    data.clear()
                    answer = self._script(self, context_id, message)
                    if answer is None:
                        return
                    raw.sendall(answer)

    def _accept(self, raw: socket.socket) -> None:
        _, body = self._pdu(raw)
        request = A_ASSOCIATE_RQ()
        request.decode(b"\x01\x00" + struct.pack(">I", len(body)) + body)
        primitive = request.to_primitive()
        primitive.presentation_context_definition_results_list = [
            self._accepted(context) for context in primitive.presentation_context_definition_list
        ]
        primitive.maximum_length_received = self._max_length
        primitive.result, primitive.result_source = 0, 1
        answer = A_ASSOCIATE_AC()
        answer.from_primitive(primitive)
        raw.sendall(answer.encode())

    @staticmethod
    def _accepted(context: Any) -> Any:
        context.transfer_syntax = context.transfer_syntax[:1]
        context.result = 0
        return context

    @staticmethod
    def _pdu(raw: socket.socket) -> tuple[int, bytes]:
        def exactly(count: int) -> bytes:
            found = b""
            while len(found) < count:
                piece = raw.recv(count - len(found))
                if not piece:
                    raise EOFError
                found += piece
            return found

        try:
            head = exactly(6)
            return head[0], exactly(int.from_bytes(head[2:], "big"))
        except (EOFError, OSError):
            return 0, b""


@pytest.fixture
def accept() -> Iterator[Callable[..., Acceptor]]:
    running: list[Acceptor] = []

    def start(script: Callable[[Acceptor, int, int], bytes | None], **how: Any) -> Acceptor:
        running.append(Acceptor(script, **how))
        return running[-1]

    yield start
    for acceptor in running:
        acceptor.close()


def ok(_acceptor: Acceptor, context_id: int, message: int) -> bytes:
    return response(context_id, message, 0)


def run(peer, items, **how):
    answers = []
    transmit(peer, items, answers.append, **how)
    return answers


def test_bytes_arrive_as_they_are_stored_in_pdus_that_the_peer_can_take(accept, peer_of, make_file):
    item = make_file(PixelData=bytes(range(256)) * 3000)
    acceptor = accept(ok, max_length=4096)

    answers = run(peer_of(acceptor.address), [item])

    assert [answer.status for answer in answers] == [0]
    assert item.path.read_bytes().endswith(acceptor.data[0])
    assert len(acceptor.data[0]) > 700_000
    assert acceptor.longest <= 4096


@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_an_answer_may_come_in_pieces(accept, peer_of, make_file, pieces):
    acceptor = accept(lambda _a, cx, m: response(cx, m, 0xB007, "1.2.826.0.1.1", pieces=pieces))

    (answer,) = run(peer_of(acceptor.address), [make_file()])

    assert (answer.status, answer.comment) == (0xB007, "BECAUSE")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (lambda _a, cx, m: response(cx, m + 1, 0), "another request"),
        (lambda _a, cx, m: response(cx, m, 0, "1.2.3"), "another instance"),
        (lambda _a, cx, m: response(cx + 2, m, 0), "presentation context"),
        (lambda _a, cx, m: response(cx, m, 0).replace(b" \x01\x02\0", b" \x01\xff\0"), "ends early"),
        (lambda _a, _cx, _m: b"\x02\x00\x00\x00\x00\x04" + bytes(4), "unexpected PDU"),
        (lambda _a, _cx, _m: b"\x04\x00\x7f\xff\xff\xff", "unexpected PDU"),
        (lambda _a, _cx, _m: ABORT, "aborted"),
        (lambda _a, _cx, _m: RELEASE_RQ, "ends the association"),
        (lambda _a, _cx, _m: None, "closed the connection"),
        (lambda _a, cx, m: response(cx, m, 0)[:20], "time limit"),
    ],
)
def test_what_is_no_answer_counts_as_no_answer(accept, peer_of, make_file, script, words):
    limits = {"association": "5 s", "dimse": "1 s", "network": "1 s"}
    peer, heard = peer_of(accept(script).address, timeouts=limits), []

    with pytest.raises(AssociationLostError, match=words):
        transmit(peer, [make_file(1), make_file(2)], heard.append)

    assert heard == []


def test_a_changed_file_does_not_leave_and_stops_no_other(accept, peer_of, make_file):
    items = [proven(make_file(number)) for number in (1, 2, 3)]
    content = bytearray(items[1].path.read_bytes())
    content[-1] ^= 1
    items[1].path.write_bytes(content)
    acceptor = accept(ok)

    answers = run(peer_of(acceptor.address), items)

    assert [answer.status for answer in answers] == [0, None, 0]
    assert answers[1].reason is Reason.SOURCE_CHANGED
    assert len(acceptor.data) == 2


def test_a_file_that_is_gone_stops_no_other(accept, peer_of, make_file):
    items = [make_file(1), make_file(2)]
    items[0].path.unlink()

    answers = run(peer_of(accept(ok).address), items)

    assert [(answer.status, answer.reason) for answer in answers] == [(None, Reason.UNREADABLE), (0, None)]


def test_the_listener_ends_a_transmission(accept, peer_of, make_file):
    acceptor = accept(ok)

    transmit(peer_of(acceptor.address), [make_file(1), make_file(2)], lambda _answer: False)

    assert len(acceptor.data) == 1


def test_a_slow_reader_is_not_taken_for_a_silent_one(accept, peer_of, make_file):
    # Eight MiB: more than the kernel's buffers take, so that the sender meets the reader's pauses.
    item = make_file(PixelData=bytes(8 << 20))
    pauses = threading.Event()
    acceptor = accept(ok)
    read = acceptor._pdu

    def slowly(raw):
        pauses.wait(0.002)
        return read(raw)

    acceptor._pdu = slowly

    limits = {"association": "5 s", "dimse": "1 s", "network": "1 s"}
    (answer,) = run(peer_of(acceptor.address, timeouts=limits), [item])

    assert answer.status == 0


def proven(item):
    return replace(item, digest=hashlib.sha256(item.path.read_bytes()).hexdigest())


# --- stored files


def test_a_file_larger_than_the_buffer_passes_through_it_proven(make_file):
    item = proven(make_file(PixelData=bytes(range(256)) * 400))
    buffer = FileBuffer(4096)

    length = buffer.load(item)
    passed = b"".join(bytes(piece) for piece in buffer.chunks())

    assert len(passed) == length
    assert item.path.read_bytes().endswith(passed)


@pytest.mark.parametrize("place", [0, 200, -1])
def test_one_flipped_bit_anywhere_is_seen(make_file, place):
    item = proven(make_file(PixelData=bytes(50_000)))
    content = bytearray(item.path.read_bytes())
    content[place] ^= 0x80
    item.path.write_bytes(content)

    with pytest.raises(SourceChangedError):
        FileBuffer(4096).load(item)


def test_a_digest_may_be_of_the_data_set_alone(make_file):
    item = make_file()
    buffer = FileBuffer()
    buffer.load(item)
    digest = hashlib.sha256(b"".join(bytes(piece) for piece in buffer.chunks())).hexdigest()

    assert buffer.load(replace(item, digest=digest, digest_scope="data set")) > 0


def test_file_meta_without_its_group_length_is_read_element_by_element(make_file, tmp_path):
    item = make_file()
    content = item.path.read_bytes()
    (tmp_path / "without").write_bytes(content[:132] + content[144:])
    whole, cut = FileBuffer(), FileBuffer()

    assert whole.load(item) == cut.load(replace(item, path=tmp_path / "without"))
    assert outgoing(tmp_path / "without").sop_instance_uid == item.sop_instance_uid


# --- numbers


@pytest.mark.parametrize(("limit", "fragment"), [(16384, 16378), (16383, 16376), (0, 131066), (7, 2)])
def test_fragments_are_even_and_fit_the_peer(limit, fragment):
    assert largest_fragment(limit) == fragment


def test_a_second_answer_behind_the_first_is_refused():
    body = response(1, 1, 0)[6:]

    with pytest.raises(MessageError):
        AnswerParts(1).add(memoryview(body + body))


def test_limits_grow_with_size_and_slowness_and_never_fall_below_the_floor():
    assert Pace().message_s(1000, 60.0) == Pace(bytes_per_s=1e9, answer_s=0.01).message_s(1000, 60.0) == 60.0
    assert Pace().message_s(100 * SLOWEST_LINK, 60.0) == 100.0
    assert Pace(bytes_per_s=SLOWEST_LINK).message_s(100 * SLOWEST_LINK, 60.0) == 400.0
    assert Pace(answer_s=50.0).answer_limit_s(1000, 60.0) == 200.0


def test_the_pace_follows_what_is_measured():
    pace = Pace().after(1_000_000, 0.5, 0.5)
    assert pace == Pace(1_000_000.0, 0.5)
    for _ in range(40):
        pace = pace.after(1_000_000, 4.0, 6.0)
    assert pace.bytes_per_s == pytest.approx(100_000, rel=0.01)
    assert pace.answer_s == pytest.approx(6.0, rel=0.01)


def test_an_instance_in_a_syntax_that_the_peer_lacks_is_named(start_peer, peer_of, make_file):
    files = [make_file(1, sop_class=MRImageStorage), make_file(2)]

    answers = run(peer_of(start_peer([ExplicitVRLittleEndian], lambda _e: 0)), files)

    assert [(answer.item.sop_class_uid, answer.reason) for answer in answers] == [
        (MRImageStorage, Reason.NO_CONTEXT),
        (CTImageStorage, None),
    ]
