"""A recorded conversation with bytes flipped at random: no crash, no hang, nothing left behind.

The short form runs with the others. The long one, `pytest -m drill tests/unit/network/test_mutations.py`, sends
DICOM_NODE_MUTATIONS conversations (100,000) from the seed in DICOM_NODE_SEED.
"""

from __future__ import annotations

import os
import random
import socket
import threading
import time

import pytest

from dicom_node.network.scu import echo


@pytest.fixture
def conversation(ul):
    """Request, echo, two C-STOREs in several fragments, release."""
    echo_rq = ul.command(
        (0x0002, b"1.2.840.10008.1.1\0"), (0x0100, b"\x30\0"), (0x0110, b"\x01\0"), (0x0800, b"\x01\x01")
    )
    said = [ul.request(), ul.pdu(4, ul.pdv(3, 3, echo_rq))]
    for number in (1, 2):
        command = ul.store(b"1.2.826.0.1.%d\0" % number)
        said.append(ul.pdu(4, ul.pdv(1, 3, command)))
        said += [ul.pdu(4, ul.pdv(1, 0, bytes(300))), ul.pdu(4, ul.pdv(1, 2, bytes(200)))]
    return b"".join([*said, ul.pdu(5, bytes(4))])


def flipped(data, dice):
    """One byte in a hundred, at least one, changed."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, max(1, len(data) // 100))):
        changed[dice.randrange(len(changed))] = dice.randrange(256)
    return bytes(changed)


def say(address, data):
    """Send it all and read until the other side has hung up; False when it never does."""
    with socket.create_connection(address, timeout=30) as raw:
        try:
            raw.sendall(data)
            raw.shutdown(socket.SHUT_WR)
            while raw.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
    return True


def replay(scp, conversation, *, seed, runs):
    """Send mutated conversations; the seeds of those that were never hung up on."""
    return [
        number
        for number in range(runs)
        if not say(scp.address, flipped(conversation, random.Random(f"{seed}/{number}")))
    ]


def associations():
    return sum(thread.name == "association" for thread in threading.enumerate())


def handles():
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_mutated_conversations_end_and_leave_nothing(start_scp, conversation, peer_of, memory):
    scp = start_scp(max_per_host=100)
    assert say(scp.address, conversation)
    assert len(memory.instances) == 2
    before = handles()

    assert replay(scp, conversation, seed=1, runs=150) == []

    deadline = time.monotonic() + 20
    while (associations() or scp.open_associations) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (associations(), scp.open_associations, scp._gate.waiting) == (0, 0, 0)
    assert handles() <= before + 2
    assert len(memory.endings) == len(memory.requests)
    assert echo(peer_of(scp.address)).status == 0


@pytest.mark.drill
@pytest.mark.timeout(0)
def test_a_hundred_thousand_mutations_end_and_leave_nothing(start_scp, conversation, peer_of):
    runs, seed = int(os.environ.get("DICOM_NODE_MUTATIONS", "100000")), os.environ.get("DICOM_NODE_SEED", "1")
    scp = start_scp(max_per_host=100)

    assert replay(scp, conversation, seed=seed, runs=runs) == []
    assert echo(peer_of(scp.address)).status == 0
