"""Several receiver processes behind one port: shared limits, one death costs one process, nothing is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from datetime import timedelta

import pytest
import yaml
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import build_context

from config.sections import Peer
from config.settings import load_settings
from dicom_node.errors import PeerError
from dicom_node.intake.processes import build_dispatcher, process_count
from dicom_node.network.scu import echo
from dicom_node.network.stored_file import outgoing
from dicom_node.network.transmission import transmit
from dicom_node.network.transport import RequestorEntity
from dicom_node.operations import open_node_store


def until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


@pytest.fixture
def spread(tmp_path):
    """Two processes behind one port, with their store."""
    config = tmp_path / "node.yaml"
    written = {
        "node": {"port": 0, "max_associations": 3},
        "storage": {"directory": "data", "watermarks": {"soft": "98 %", "hard": "99 %"}},
    }
    config.write_text(yaml.safe_dump(written))
    settings = load_settings(config)
    with open_node_store(settings) as store:
        dispatcher = build_dispatcher(
            store, settings, config, 2, new_run_id=lambda: f"node/{uuid.uuid4().hex}"
        )
        dispatcher.start()
        assert until(lambda: len(dispatcher.pids) == 2)
        yield dispatcher, store
        dispatcher.stop(timedelta(seconds=1))


def peer_at(dispatcher, calling="SCANNER"):
    return Peer(
        name="node",
        ae_title="ENHANCE",
        host="127.0.0.1",
        port=dispatcher.address[1],
        calling_ae_title=calling,
    )


def associated(dispatcher):
    entity = RequestorEntity(ae_title="HOLDER")
    contexts = [build_context(CTImageStorage, ExplicitVRLittleEndian)]
    return entity.associate(*dispatcher.address, contexts=contexts, ae_title="ENHANCE")


@pytest.mark.parametrize(("cores", "count"), [(1, 1), (2, 1), (4, 2), (8, 4), (64, 4)])
def test_there_is_a_process_for_each_two_cores(cores, count):
    assert process_count("auto", cores) == count
    assert process_count(7, cores) == 7


def test_the_parent_shares_out_limits_and_outlives_a_process(spread, write_series):
    dispatcher, store = spread
    files = [outgoing(path) for path in write_series(slices=12)]
    statuses: list[int | None] = []
    senders = [
        threading.Thread(
            target=transmit,
            args=(peer_at(dispatcher), files[number::2], lambda answer: statuses.append(answer.status)),
        )
        for number in range(2)
    ]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join(60)
    assert statuses == [0] * 12
    (series,) = store.index.list_series()
    assert series.instance_count == 12

    held = [associated(dispatcher) for _ in range(3)]
    assert all(one.is_established for one in held)
    with pytest.raises(PeerError, match="local limit"):
        echo(peer_at(dispatcher))

    assert until(lambda: sum(len(worker.tickets) for worker in dispatcher._workers) == 3)
    victim = max(dispatcher._workers, key=lambda worker: len(worker.tickets))
    spared = 3 - len(victim.tickets)
    os.kill(victim.process.pid, signal.SIGKILL)

    assert until(lambda: sum(one.is_established for one in held) == spared)
    assert echo(peer_at(dispatcher)).status == 0
    assert until(lambda: len(dispatcher.pids) == 2)
    for one in held:
        one.abort()
    for _ in range(4):
        assert until(lambda: sum(len(worker.tickets) for worker in dispatcher._workers) == 0)
        assert echo(peer_at(dispatcher)).status == 0
