"""Peers that break the protocol, wittingly or not: each is answered and gone, and a real sender is served meanwhile.

Raw sockets, since no library builds such PDUs.
"""

from __future__ import annotations

import struct
import threading
import time

import pytest
from structlog.testing import capture_logs

from dicom_node.network.scu import echo
from dicom_node.network.status import Ending

QUICK = {"association_timeout_s": 1.0, "pdu_deadline_s": 1.0, "max_per_host": 200}
INVALID, UNEXPECTED, UNRECOGNIZED = (bytes([0, 0, 2, reason]) for reason in (6, 2, 1))


def served(peer_of, scp):
    begin = time.monotonic()
    assert echo(peer_of(scp.address)).status == 0
    return time.monotonic() - begin < 5  # seconds; 2 on a quiet machine


def threads():
    return sum(thread.name == "association" for thread in threading.enumerate())


def back_to_base(scp, seconds=10.0):
    deadline = time.monotonic() + seconds
    while (threads() or scp.open_associations) and time.monotonic() < deadline:
        time.sleep(0.01)
    return threads() == 0 and scp.open_associations == 0 and scp._gate.waiting == 0


# --- too many, too slow


def test_200_silent_connections_cost_nobody_else_anything(start_scp, connect, peer_of):
    scp = start_scp(**QUICK | {"max_per_host": 20})
    silent = [connect(scp) for _ in range(200)]

    assert served(peer_of, scp)
    assert scp._gate.waiting <= 25
    assert all(one.closed_within(5) for one in silent)
    assert back_to_base(scp)


def test_half_a_header_and_silence_ends_at_the_deadline(start_scp, connect, peer_of):
    scp = start_scp(**QUICK)
    halves = [connect(scp, b"\x01\x00\x00") for _ in range(50)]

    assert served(peer_of, scp)
    assert all(one.closed_within(5) for one in halves)
    assert back_to_base(scp)


def test_dripping_request_ends_at_the_deadline(start_scp, connect, ul, peer_of):
    scp = start_scp(**QUICK)
    dripping = connect(scp)
    for byte in ul.request()[:200]:
        dripping.say(bytes([byte]))
        if dripping.closed_within(0.05):
            break
    else:
        pytest.fail("200 drips were taken")

    assert served(peer_of, scp)
    assert back_to_base(scp)


def test_dripping_data_ends_at_the_deadline_of_the_pdu(start_scp, associated, ul, memory):
    scp = start_scp(**QUICK)
    one = associated(scp)
    one.say(b"\x04\x00\x00\x00\x01\x00")
    for _ in range(200):
        one.say(b"\x00")
        if one.closed_within(0.05):
            break

    assert memory.wait_for(lambda: memory.endings == [(1, Ending.ABORTED)])
    assert back_to_base(scp)


def test_message_slower_than_the_slowest_rate_is_aborted(start_scp, associated, ul, memory):
    scp = start_scp(message_s=0.5, slowest_rate=1_000_000)
    one = associated(scp)
    one.say(ul.pdu(4, ul.pdv(1, 3, ul.store())))
    for _ in range(100):
        one.say(ul.pdu(4, ul.pdv(1, 0, bytes(100))))
        if one.closed_within(0.05):
            break

    assert memory.wait_for(lambda: memory.endings == [(1, Ending.ABORTED)])
    assert memory.instances == []


def test_announced_data_set_that_never_comes_is_not_waited_for_for_ever(start_scp, associated, ul, memory):
    scp = start_scp(message_s=0.3)
    one = associated(scp)
    one.say(ul.pdu(4, ul.pdv(1, 3, ul.store())))

    assert one.hear() == (7, b"\x00\x00\x00\x00")
    assert memory.wait_for(lambda: memory.endings == [(1, Ending.ABORTED)])


def test_idle_association_is_aborted(start_scp, associated, memory):
    scp = start_scp(network_timeout_s=0.3)
    one = associated(scp)

    assert one.hear()[0] == 7
    assert memory.wait_for(lambda: memory.endings == [(1, Ending.ABORTED)])


def test_association_ends_after_its_lifetime(start_scp, associated, memory):
    one = associated(start_scp(lifetime_s=0.3))

    assert one.hear()[0] == 7
    assert memory.wait_for(lambda: memory.endings == [(1, Ending.ABORTED)])


def test_one_title_is_held_to_its_share(start_scp, connect, associated, ul):
    scp = start_scp(max_per_ae=3)
    for _ in range(3):
        associated(scp)

    assert connect(scp, ul.request()).hear() == (3, b"\x00\x02\x03\x02")
    assert connect(scp, ul.request(calling=b"OTHER")).hear()[0] == 2


def test_one_address_is_held_to_its_share(start_scp, connect, associated, ul):
    scp = start_scp(max_per_host=3)
    for number in range(3):
        associated(scp, calling=b"AE%d" % number)

    assert connect(scp, ul.request(calling=b"NEXT")).hear() == (3, b"\x00\x02\x03\x02")


def test_fifty_associations_are_kept_and_the_next_is_rejected_at_once(start_scp, connect, associated, ul):
    scp = start_scp(max_per_ae=60, max_per_host=60)
    for _ in range(50):
        associated(scp)
    begin = time.monotonic()

    assert connect(scp, ul.request()).hear() == (3, b"\x00\x02\x03\x02")
    assert time.monotonic() - begin < 1


# --- before the association


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (b"\x01\x00\xff\xff\xff\xf0", INVALID),
        (struct.pack(">BxL", 1, (1 << 20) + 1), INVALID),
        (b"\x09\x00\x00\x00\x00\x04....", UNRECOGNIZED),
        (b"\x04\x00\x00\x00\x00\x04....", UNEXPECTED),
        (b"\x05\x00\x00\x00\x00\x04....", UNEXPECTED),
        (b"GET / HTTP/1.1\r\n\r\n", UNRECOGNIZED),
        (b"SSH-2.0-OpenSSH_9.2\r\n", UNRECOGNIZED),
        (b"\x0bMSH|^~\\&|ADT|\x1c\r", UNRECOGNIZED),
    ],
)
def test_what_is_no_request_is_aborted_by_its_header(start_scp, connect, memory, said, answer):
    scp = start_scp()
    one = connect(scp, said)

    assert one.hear() == (7, answer)
    assert one.closed_within(3)
    assert back_to_base(scp)
    assert memory.requests == []


def test_requests_that_are_none_are_aborted(start_scp, connect, ul, memory):
    scp = start_scp()
    many = [ul.context(number, ul.ct) for number in range(1, 256, 2)]
    bad = {
        "duplicate id": ul.request(ul.context(1), ul.context(1)),
        "even id": ul.request(ul.context(2)),
        "no context": ul.request(ul.item(0x99, b"")),
        "129 contexts": ul.request(*many, ul.context(1)),
        "item overruns": ul.request(ul.item(0x20, b"\x01\0\0\0", length=5000)),
        "inner item overruns": ul.request(ul.item(0x20, b"\x01\0\0\0" + ul.item(0x30, b"1.2", length=99))),
        "context without syntax": ul.request(ul.item(0x20, b"\x01\0\0\0" + ul.item(0x30, ul.ct))),
        "many user items": ul.request(user=ul.item(0x51, b"\0\0\0\0") * 8000),
        "short": ul.pdu(1, bytes(20)),
        "binary syntax": ul.request(ul.context(1, b"\xff\xfe\xfd")),
    }
    with capture_logs():
        answers = {name: connect(scp, said).hear() for name, said in bad.items()}

    assert answers == dict.fromkeys(bad, (7, INVALID))
    assert memory.requests == []


def test_unknown_items_are_passed_over(start_scp, connect, ul):
    odd = ul.request(ul.item(0x99, b"abc"), ul.context(1), user=ul.user + ul.item(0xAA, b"xyz"))

    assert connect(start_scp(), odd).hear()[0] == 2


def test_all_128_contexts_are_taken(start_scp, connect, ul):
    many = ul.request(*(ul.context(number) for number in range(1, 256, 2)))

    assert connect(start_scp(), many).hear()[0] == 2


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"application": b"1.2.3"}, b"\x00\x01\x01\x02"),
        ({"version": 2}, b"\x00\x01\x02\x02"),
        ({"calling": b"../../etc"}, None),
        ({"calling": b"A\\B"}, b"\x00\x01\x01\x03"),
        ({"calling": b"A\x00B"}, b"\x00\x01\x01\x03"),
        ({"calling": b"A\r\nB"}, b"\x00\x01\x01\x03"),
        ({"calling": b"\x1b[31mRED"}, b"\x00\x01\x01\x03"),
        ({"calling": b" " * 16}, b"\x00\x01\x01\x03"),
        ({"calling": b"\xc3\xa4"}, b"\x00\x01\x01\x03"),
        ({"called": b"A\x00B"}, b"\x00\x01\x01\x07"),
    ],
)
def test_wrong_names_are_rejected_before_they_are_used(start_scp, connect, ul, memory, changes, answer):
    memory.admitted = lambda request: request.calling_ae == "SCANNER"
    heard = connect(start_scp(), ul.request(**changes)).hear()

    assert heard == (3, answer or b"\x00\x01\x01\x03")
    assert memory.requests == []


def test_user_identity_is_passed_over_and_never_logged(start_scp, connect, ul, capfd):
    identity = ul.item(0x58, b"\x02\x01" + struct.pack(">H", 4) + b"user" + struct.pack(">H", 6) + b"SECRET")
    saml = ul.item(0x58, b"\x04\x01" + struct.pack(">H", 60000) + b"SECRET".ljust(60000) + b"\0\0")
    scp = start_scp()

    for user in (identity, saml):
        kind, body = connect(scp, ul.request(user=ul.user + user)).hear()
        assert kind == 2
        assert b"\x59\x00" not in body[68:]
    assert "SECRET" not in "".join(capfd.readouterr())


# --- within the association


def test_pdu_longer_than_advertised_is_an_invalid_parameter(start_scp, associated, memory):
    one = associated(start_scp(max_pdu=16384))
    one.say(struct.pack(">BxL", 4, 16385))

    assert one.hear() == (7, INVALID)
    assert memory.wait_for(lambda: memory.endings == [(1, Ending.ABORTED)])


def test_second_request_is_unexpected(start_scp, associated, ul):
    one = associated(start_scp())
    one.say(ul.request())

    assert one.hear() == (7, UNEXPECTED)


def test_broken_fragments_are_aborted(start_scp, associated, ul, memory):
    scp = start_scp(max_per_ae=30)
    bad = {
        "length 0": ul.pdv(1, 3, b"", length=0),
        "length 1": ul.pdv(1, 3, b"", length=1),
        "overrun": ul.pdv(1, 3, b"x", length=9999),
        "cut off": b"\x00\x00\x00",
        "unknown context": ul.pdv(77, 3, ul.store()),
        "data first": ul.pdv(1, 2, b"data"),
        "two contexts": ul.pdv(1, 1, ul.store()[:20]) + ul.pdv(3, 3, ul.store()),
        "second command": ul.pdv(1, 3, ul.store()) + ul.pdv(1, 3, ul.store()),
        "long command": ul.pdv(1, 1, bytes(20000)),
        "no elements": ul.pdv(1, 3, b"\x00\x00\x00"),
        "element overruns": ul.pdv(1, 3, struct.pack("<HHL", 0, 0, 99)),
        "no message id": ul.pdv(1, 3, ul.store(x0110=None)),
    }
    for name, fragment in bad.items():
        one = associated(scp)
        one.say(ul.pdu(4, fragment))
        assert one.hear()[0] == 7, name
    assert memory.instances == []
    assert back_to_base(scp)


def test_message_of_tiny_fragments_is_aborted_soon(start_scp, associated, ul, memory):
    one = associated(start_scp())
    one.say(ul.pdu(4, ul.pdv(1, 3, ul.store())))
    begin = time.thread_time()
    for _ in range(100):
        one.say(ul.pdu(4, ul.pdv(1, 0, b"x") * 10_000))

    assert one.closed_within(5)
    assert time.thread_time() - begin < 2
    assert memory.wait_for(lambda: memory.endings == [(1, Ending.ABORTED)])


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"group_length": 4}, 0x0110),
        ({"x1000": None}, 0x0110),
        ({"x0002": None}, 0x0110),
        ({"x0100": b"\x77\x00"}, 0x0211),
        ({"x0100": b"\x20\x00"}, 0x0211),
        ({"x1000": b"../../etc/passwd"}, 0x0117),
        ({"x1000": b"1.2\x003\x00"}, 0x0117),
        ({"x1000": b"1." * 40 + b"1\0"}, 0x0117),
        ({"x1000": b"....."}, 0x0117),
        ({"x1000": b"1.2.ABC\0"}, 0x0117),
        ({"x0002": b"1.2.840.10008.5.1.4.1.1.4\0"}, 0x0122),
        ({"x0800": b"\x01\x01"}, 0xC000),
    ],
)
def test_wrong_commands_are_refused_and_the_association_goes_on(
    start_scp, associated, ul, memory, changes, status
):
    one = associated(start_scp())
    wrong = ul.pdu(4, ul.pdv(1, 3, ul.store(**changes)))
    data = b"" if "x0800" in changes else ul.pdu(4, ul.pdv(1, 2, bytes(512)))
    one.say(wrong + data)

    assert one.status() == status
    assert memory.instances == []
    one.say(ul.pdu(4, ul.pdv(1, 3, ul.store())) + ul.pdu(4, ul.pdv(1, 2, bytes(512))))
    assert one.status() == 0


def test_services_that_are_not_ours_get_no_context(start_scp, connect, ul):
    find = ul.request(ul.context(1), ul.context(3, b"1.2.840.10008.5.1.4.1.2.2.1"))
    kind, body = connect(start_scp(), find).hear()

    assert kind == 2
    results = [body[at + 6] for at in range(len(body)) if body[at : at + 2] == b"\x21\x00"]
    assert results == [0, 3]


def test_peer_that_hangs_up_in_the_middle_leaves_nothing(start_scp, associated, ul, memory):
    scp = start_scp()
    one = associated(scp)
    one.say(ul.pdu(4, ul.pdv(1, 3, ul.store())) + ul.pdu(4, ul.pdv(1, 0, bytes(5000))))
    one.raw.close()

    assert memory.wait_for(lambda: memory.endings == [(1, Ending.LOST)])
    assert memory.instances == []
    assert back_to_base(scp)


def test_release_within_a_message_is_unexpected(start_scp, associated, ul):
    one = associated(start_scp())
    one.say(ul.pdu(4, ul.pdv(1, 3, ul.store())) + ul.pdu(5, bytes(4)))

    assert one.hear() == (7, UNEXPECTED)


@pytest.mark.parametrize("sizes", [[1024], [2, 30, 4, 400, 588], [1024 - 2, 2]])
def test_fragments_of_any_size_come_together(start_scp, associated, ul, memory, sizes):
    one, data = associated(start_scp()), bytes(range(256)) * 4
    command, start, said = ul.store(), 0, b""
    said += ul.pdu(4, ul.pdv(1, 1, command[:11])) + ul.pdu(4, ul.pdv(1, 3, command[11:]))
    for size in sizes:
        last = start + size == len(data)
        said += ul.pdu(4, ul.pdv(1, 2 if last else 0, data[start : start + size]))
        start += size
    for at in range(0, len(said), 100):
        one.say(said[at : at + 100])

    assert one.status() == 0
    assert bytes(memory.instances[0].data) == data


def test_response_respects_the_smallest_pdu_of_the_peer(start_scp, associated, ul):
    user = ul.item(0x51, struct.pack(">L", 64)) + ul.item(0x52, b"1.2.3")
    one = associated(start_scp(), user=user)
    one.say(ul.pdu(4, ul.pdv(1, 3, ul.store())) + ul.pdu(4, ul.pdv(1, 2, bytes(512))))
    bodies = [one.hear()[1]]
    while not bodies[-1][5] & 2:
        bodies.append(one.hear()[1])

    assert max(map(len, bodies)) <= 64
    assert b"\x00\x00\x00\x09\x02\x00\x00\x00\x00\x00" in b"".join(body[6:] for body in bodies)


def test_fifty_idle_associations_cost_next_to_nothing(start_scp, associated):
    scp = start_scp(max_per_ae=50, max_per_host=50)
    for _ in range(50):
        associated(scp)
    shares = []
    for _ in range(4):  # what ends of earlier tests in this process also costs, once
        before, begin = time.process_time(), time.monotonic()
        threading.Event().wait(2.0)
        shares.append((time.process_time() - before) / (time.monotonic() - begin))
        if shares[-1] < 0.1:
            break

    assert min(shares) < 0.1
