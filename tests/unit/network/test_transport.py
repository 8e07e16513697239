"""The gate in front of an association's own thread, and sockets that do not leak."""

from __future__ import annotations

import threading
import time

import pytest

from dicom_node.network.scu import echo
from dicom_node.network.transport import ReactorGate


class Reactor(threading.Thread):
    """Passes the gate again and again and is slow to finish a round."""

    def __init__(self):
        super().__init__(daemon=True)
        self.gate = ReactorGate(self)
        self.inside = False
        self.rounds = 0
        self.done = False

    def run(self):
        while not self.done:
            self.gate.wait()
            self.inside = True
            time.sleep(0.002)
            self.rounds += 1
            self.inside = False


@pytest.fixture
def reactor():
    thread = Reactor()
    thread.start()
    yield thread
    thread.done = True
    thread.gate.set()
    thread.join(5)


def test_closed_gate_means_the_thread_is_not_in_a_round(reactor):
    for _ in range(200):
        reactor.gate.clear()
        rounds = reactor.rounds

        assert not reactor.inside
        time.sleep(0.0005)
        assert (reactor.inside, reactor.rounds) == (False, rounds)
        reactor.gate.set()


def test_open_gate_lets_the_thread_go_on(reactor):
    reactor.gate.clear()
    rounds = reactor.rounds
    reactor.gate.set()

    deadline = time.monotonic() + 5
    while reactor.rounds == rounds and time.monotonic() < deadline:
        time.sleep(0.001)

    assert reactor.rounds > rounds


def test_gate_of_a_thread_that_has_ended_closes_at_once(reactor):
    reactor.done = True
    reactor.join(5)

    begin = time.monotonic()
    reactor.gate.clear()

    assert time.monotonic() - begin < 1
    assert not reactor.gate.is_set()


def test_thread_may_close_its_own_gate():
    finished = threading.Event()

    class Own(Reactor):
        def run(self):
            self.gate.clear()
            finished.set()

    Own().start()

    assert finished.wait(5)


def test_many_associations_leave_no_thread_behind(start_scp, peer_of, memory):
    scp = start_scp()
    echo(peer_of(scp.address))
    memory.wait_for(lambda: len(memory.endings) == 1)
    before = threading.active_count()

    for _ in range(20):
        echo(peer_of(scp.address))
    memory.wait_for(lambda: len(memory.endings) == 21)

    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before
