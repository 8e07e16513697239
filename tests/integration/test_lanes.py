"""The sender against real peers: a slow one delays no other, a dead one is probed before anything is sent."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from config.sections import Peer
from config.settings import Settings
from dicom_node.network.scu import outgoing, send
from dicom_node.network.sender_pool import SenderPool
from dicom_node.pipeline.delivery import DeliverySender
from storage.link_states import CircuitState
from storage.states import DeliveryState, JobState
from storage.store import Store


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def order(
    store: Store, start_node: Callable[..., Any], write_series: Callable[..., list[Path]]
) -> Callable[..., int]:
    """Receive a series, once, and order it to a destination; the job's number."""
    received: list[int] = []

    def run(destination: str) -> int:
        if not received:
            host, port = start_node().address
            us = {"name": "us", "ae_title": "ENHANCE", "host": host, "port": port, "calling_ae_title": "CT"}
            send(Peer.model_validate(us), [outgoing(p) for p in write_series(slices=3)], lambda *_: None)
            received.append(store.index.list_series()[0].id)
        return store.deliveries.send_series(received[0], destination, "test").id

    return run


def sender_of(store: Store, ports: dict[str, int], **delivery: Any) -> DeliverySender:
    limits = {"association": "2 s", "dimse": "30 s", "network": "30 s"}
    peers = [
        {"name": name, "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": port, "timeouts": limits}
        for name, port in ports.items()
    ]
    settings = Settings.model_validate({"node": {"port": 0}, "peers": peers, "delivery": delivery})
    return DeliverySender(store, settings, name="sender", now=lambda: datetime.now(UTC))


def await_(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_one_silent_destination_delays_no_other(
    store: Store, order: Callable[..., int], start_storescp: Callable[..., Any], silent: int
) -> None:
    port, folder = start_storescp()
    stuck, good = order("silent"), order("archive")
    sender = sender_of(store, {"silent": silent, "archive": port})

    sender.dispatch()

    await_(lambda: store.jobs.get(good).state is JobState.SUCCEEDED)
    assert len(list(folder.iterdir())) == 3
    await_(lambda: store.jobs.get(stuck).state is JobState.RETRY)
    assert store.jobs.get(stuck).reason == "ASSOCIATION_REJECTED"
    sender.stop(10)


def test_a_dead_destination_is_probed_and_drains_when_it_answers_again(
    store: Store, order: Callable[..., int], start_storescp: Callable[..., Any]
) -> None:
    port, folder = start_storescp()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        dead = probe.getsockname()[1]
    job = order("archive")
    quick = {"backoff_first": "100 ms", "backoff_longest": "200 ms", "circuit_opens_at": 2}
    broken = sender_of(store, {"archive": dead}, **quick)

    def opened() -> bool:
        broken.drain("archive")
        return store.destinations.status("archive").circuit is CircuitState.OPEN

    await_(opened)
    attempts = store.jobs.get(job).attempts

    def probed() -> bool:
        broken.drain("archive")
        return store.destinations.status("archive").failures >= 4

    await_(probed)
    assert store.jobs.get(job).attempts == attempts == 2

    mended = sender_of(store, {"archive": port}, **quick)

    def delivered() -> bool:
        mended.drain("archive")
        return store.jobs.get(job).state is JobState.SUCCEEDED

    await_(delivered)
    status = store.destinations.status("archive")
    assert (status.circuit, status.failures) == (CircuitState.CLOSED, 0)
    assert status.bytes_per_s is not None
    assert len(list(folder.iterdir())) == 3


def test_a_flipped_bit_keeps_one_instance_here_and_the_others_go_out(
    store: Store, order: Callable[..., int], start_storescp: Callable[..., Any]
) -> None:
    port, folder = start_storescp()
    job = order("archive")
    (_, damaged), *_ = store.deliveries.for_job(job)
    content = bytearray(damaged.path.read_bytes())
    content[-1] ^= 1
    damaged.path.write_bytes(content)

    sender_of(store, {"archive": port}).drain("archive")

    ended = store.jobs.get(job)
    assert (ended.state, ended.reason) == (JobState.FAILED, "SOURCE_CHANGED")
    rows = {row.sop_instance_uid: row for row, _ in store.deliveries.for_job(job)}
    assert rows[damaged.sop_instance_uid].state is DeliveryState.REFUSED
    assert sorted(row.state for row in rows.values()).count(DeliveryState.DELIVERED) == 2
    assert len(list(folder.iterdir())) == 2


def test_several_associations_in_processes_of_their_own(
    start_storescp: Callable[..., Any], write_series: Callable[..., list[Path]]
) -> None:
    port, folder = start_storescp("--fork")
    values = {"name": "archive", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": port}
    peer = Peer.model_validate({**values, "calling_ae_title": "ENHANCE"})
    items, answers = [outgoing(path) for path in write_series(slices=9)], []

    with SenderPool(2) as pool:
        first = pool.send(peer, items, answers.append)
        second = pool.send(peer.model_copy(update={"port": 1}), items, answers.append)

    assert [report.trouble for report in first] == [None, None]
    assert sorted(answer.position for answer in answers) == list(range(9))
    assert {answer.status for answer in answers} == {0}
    assert len(list(folder.iterdir())) == 9
    assert all("No connection" in (report.trouble or "") for report in second)
