"""An instance is acknowledged only when it is on disk and in the index, and every failure leaves nothing."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from pydicom import dcmread
from structlog.testing import capture_logs

from dicom_node.intake.receiver import Receiver
from dicom_node.network.status import STORED
from storage.database import Database
from storage.errors import DatabaseUnavailableError


def files_below(store):
    return [
        path
        for tree in ("incoming", "staging")
        for path in (store.spool.directory / tree).rglob("*")
        if path.is_file()
    ]


def stored(store):
    series = store.index.list_series()
    return [instance for one in series for instance in store.index.instances(one.id)]


def test_success_means_a_file_and_a_row(store, association, make_dataset, encoded, make_received):
    dataset = make_dataset()
    received = make_received(encoded(dataset), association=association)

    answer = Receiver(store).receive(received)

    (instance,) = stored(store)
    assert answer == STORED
    assert dcmread(instance.path) == dataset
    assert instance.path.read_bytes().endswith(bytes(received.data))
    assert instance.association_id == association.id
    assert files_below(store) == [instance.path]


def test_identical_resend_is_a_success_and_changes_nothing(
    store, association, make_dataset, encoded, make_received
):
    received = make_received(encoded(make_dataset()), association=association)
    receiver = Receiver(store)

    answers = [receiver.receive(received) for _ in range(3)]

    assert answers == [STORED] * 3
    assert len(files_below(store)) == len(stored(store)) == 1


def test_hundred_equal_requests_at_once_leave_one_row_and_one_file(
    store, association, make_dataset, encoded, make_received
):
    received = make_received(encoded(make_dataset()), association=association)
    receiver = Receiver(store)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(receiver.receive, [received] * 100))

    assert answers == [STORED] * 100
    assert len(files_below(store)) == len(stored(store)) == 1


def test_other_content_under_a_known_uid_is_kept_beside_the_first(
    store, association, make_dataset, encoded, make_received
):
    receiver = Receiver(store)
    first, second = (encoded(make_dataset(PixelData=bytes([value]) * 512)) for value in (1, 2))

    answers = [receiver.receive(make_received(data, association=association)) for data in (first, second)]

    copies = stored(store)
    assert answers == [STORED] * 2
    assert [copy.conflict for copy in copies] == [True, True]
    assert [copy.path.read_bytes()[-512:] for copy in copies] == [b"\x01" * 512, b"\x02" * 512]


@pytest.mark.parametrize(
    ("changes", "status"), [({"SeriesInstanceUID": None}, 0xA901), ({"SOPInstanceUID": "1.2.3"}, 0xA900)]
)
def test_refused_instance_leaves_nothing(
    store, association, make_dataset, encoded, make_received, changes, status
):
    answer = Receiver(store).receive(make_received(encoded(make_dataset(**changes)), association=association))

    assert answer.status == status
    assert files_below(store) == []
    assert stored(store) == []


def test_full_disk_is_answered_with_out_of_resources_and_leaves_nothing(
    store, association, make_dataset, encoded, make_received, monkeypatch
):
    def full(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    receiver = Receiver(store)
    received = make_received(encoded(make_dataset()), association=association)
    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", full)
        refused = receiver.receive(received)

    assert (refused.status, refused.comment) == (0xA700, "STORAGE_FULL")
    assert files_below(store) == []
    assert receiver.receive(received) == STORED


def test_reserve_is_not_touched(open_store_with, make_dataset, encoded, make_received, associate):
    store = open_store_with(reserve_bytes=1 << 60)

    answer = Receiver(store).receive(make_received(encoded(make_dataset()), association=associate(store)))

    assert (answer.status, answer.comment) == (0xA700, "STORAGE_FULL")


def test_failed_sync_is_never_acknowledged(
    store, association, make_dataset, encoded, make_received, monkeypatch
):
    def fail(_descriptor):
        raise OSError(errno.EIO, "Input/output error")

    receiver = Receiver(store)
    received = make_received(encoded(make_dataset()), association=association)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        answers = [receiver.receive(received) for _ in range(2)]

    assert [(answer.status, answer.comment) for answer in answers] == [(0xA700, "STORAGE_FAILED")] * 2
    assert files_below(store) == []
    assert receiver.receive(received) == STORED


def test_instance_whose_row_cannot_be_committed_is_not_acknowledged(
    store, association, make_dataset, encoded, make_received, monkeypatch
):
    def unavailable(_database):
        raise DatabaseUnavailableError("no database")

    received = make_received(encoded(make_dataset()), association=association)
    receiver = Receiver(store)
    with monkeypatch.context() as patch:
        patch.setattr(Database, "writing_plainly", unavailable)
        refused = receiver.receive(received)

    assert (refused.status, refused.comment) == (0xA700, "STORAGE_FAILED")
    assert files_below(store) == []
    assert receiver.receive(received) == STORED


def test_file_stays_when_nobody_can_say_whether_its_row_exists(
    store, association, make_dataset, encoded, make_received, monkeypatch
):
    def unavailable(_database):
        raise DatabaseUnavailableError("no database")

    with monkeypatch.context() as patch:
        patch.setattr(Database, "writing_plainly", unavailable)
        patch.setattr(Database, "reading", unavailable)
        refused = Receiver(store).receive(make_received(encoded(make_dataset()), association=association))
    kept = files_below(store)

    assert refused.status == 0xA700
    assert len(kept) == 1
    assert store.sweep_orphans(timedelta(seconds=-5)).files == 1


def test_log_names_the_instance_and_no_patient(store, association, make_dataset, encoded, make_received):
    with capture_logs() as lines:
        Receiver(store).receive(make_received(encoded(make_dataset()), association=association))
        Receiver(store).receive(
            make_received(encoded(make_dataset(SeriesInstanceUID=None)), association=association)
        )

    assert [line["event"] for line in lines] == ["instance.stored", "instance.refused"]
    assert lines[0]["sop_instance_uid"] == "1.2.826.0.1.1"
    assert lines[1]["status"] == "A901"
    assert "CANARY" not in str(lines)
