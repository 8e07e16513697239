"""Turns: a sender's share of the work does not grow with its associations, and a lone sender never waits."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import ExitStack
from typing import Any

import pytest

from dicom_node.network.received import ReceivedInstance
from dicom_node.network.scu import send
from dicom_node.network.shares import Shares
from dicom_node.network.status import STORED


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Disk:
    """Keeps each object for a moment, and counts how many of which AE it is at work on meanwhile."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._at_work: Counter[str] = Counter()
        self.beside_lone: list[int] = []

    def keep(self, received: ReceivedInstance) -> object:
        title = received.association.calling_ae
        with self._lock:
            self._at_work[title] += 1
            if title == "LONE":
                self.beside_lone.append(self._at_work["FLOOD"])
        time.sleep(0.005)
        with self._lock:
            self._at_work[title] -= 1
        return STORED


def test_one_association_beside_nine_of_another_ae_has_its_share(
    memory: Any, start_scp: Any, peer_of: Any, make_file: Any
) -> None:
    disk, stop = Disk(), threading.Event()
    memory.answer = disk.keep
    peer = peer_of(start_scp().address)
    file = make_file()

    def flood() -> None:
        while not stop.is_set():
            send(peer.model_copy(update={"calling_ae_title": "FLOOD"}), [file] * 20, lambda *_: None)

    threads = [threading.Thread(target=flood) for _ in range(9)]
    for thread in threads:
        thread.start()
    assert memory.wait_for(lambda: len(memory.instances) > 20)
    send(peer.model_copy(update={"calling_ae_title": "LONE"}), [file] * 30, lambda *_: None)
    stop.set()
    for thread in threads:
        thread.join()

    assert len(disk.beside_lone) == 30
    # What the others had begun before it came is finished first.
    assert max(disk.beside_lone[5:]) <= 3


def test_a_lone_sender_never_waits() -> None:
    shares = Shares()
    with ExitStack() as held:
        for _ in range(50):
            held.enter_context(shares.turn("ONE"))


def test_an_ae_always_has_one_turn_whatever_the_others_hold() -> None:
    shares = Shares()
    with ExitStack() as held:
        for _ in range(50):
            held.enter_context(shares.turn("ONE"))
        for number in range(9):
            held.enter_context(shares.turn(f"OTHER{number}"))


def test_beside_another_ae_one_more_waits_until_a_turn_ends() -> None:
    shares, came = Shares(), threading.Event()

    def wait_for_turn() -> None:
        with shares.turn("ONE"):
            came.set()

    with shares.turn("OTHER"), ExitStack() as held:
        for _ in range(3):
            held.enter_context(shares.turn("ONE"))
        thread = threading.Thread(target=wait_for_turn)
        thread.start()
        assert not came.wait(0.1)
        held.close()
        assert came.wait(10)
        thread.join()


def test_an_ae_that_stopped_sending_holds_nobody_up() -> None:
    clock = Clock()
    shares = Shares(clock)
    with shares.turn("OTHER"):
        pass
    clock.now += 2.0
    with ExitStack() as held:
        for _ in range(50):
            held.enter_context(shares.turn("ONE"))


def test_a_turn_ends_with_an_error_too() -> None:
    shares = Shares()
    for _ in range(10):
        with pytest.raises(ValueError, match="broken"), shares.turn("ONE"), shares.turn("OTHER"):
            raise ValueError("broken")
    with shares.turn("OTHER"), ExitStack() as held:
        for _ in range(3):
            held.enter_context(shares.turn("ONE"))
