"""The C-STORE sink against real acceptors: verdicts, a second negotiation, two associations."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage
from pynetdicom import AE, build_context, evt

from config.sections import Peer
from dicom_node.errors import PeerError, Reason
from dicom_node.imaging.phantom_series import write_ct_series
from dicom_node.network.stored_file import outgoing
from dicom_node.sinks.dimse import Answer, Parcel, deliver, probe
from dicom_node.sinks.outcome import Verdict
from engine.phantom import head_phantom


@pytest.fixture(scope="module")
def parcels(tmp_path_factory: pytest.TempPathFactory) -> list[Parcel]:
    folder = tmp_path_factory.mktemp("scan")
    paths = write_ct_series(head_phantom(shape=(20, 32, 32), spacing_mm=(3.0, 6.0, 6.0)), folder)
    return [Parcel(number, outgoing(path)) for number, path in enumerate(paths)]


class Archive:
    """An acceptor that counts associations and answers as it is told."""

    def __init__(self, answer: Callable[[int], int], sop_class: str) -> None:
        self.associations = 0
        self.stored: list[str] = []
        self.open_now = self.most_open = 0
        self._answer = answer
        self._lock = threading.Lock()
        entity = AE(ae_title="ARCHIVE")
        self.server = entity.start_server(
            ("127.0.0.1", 0),
            block=False,
            contexts=[build_context(sop_class, [ExplicitVRLittleEndian])],
            evt_handlers=[
                (evt.EVT_ACCEPTED, self._opened),
                (evt.EVT_RELEASED, self._closed),
                (evt.EVT_C_STORE, self._store),
            ],
        )

    def peer(self, **changes: Any) -> Peer:
        port = self.server.server_address[1]
        values = {"name": "archive", "ae_title": "ARCHIVE", "host": "127.0.0.1", "port": port}
        return Peer.model_validate({**values, "calling_ae_title": "ENHANCE", **changes})

    def _opened(self, _event: Any) -> None:
        with self._lock:
            self.associations += 1
            self.open_now += 1
            self.most_open = max(self.most_open, self.open_now)

    def _closed(self, _event: Any) -> None:
        with self._lock:
            self.open_now -= 1

    def _store(self, event: Any) -> int:
        with self._lock:
            self.stored.append(str(event.request.AffectedSOPInstanceUID))
            number = len(self.stored)
        return self._answer(number)


@pytest.fixture
def start() -> Iterator[Callable[..., Archive]]:
    running: list[Archive] = []

    def begin(answer: Callable[[int], int] = lambda _n: 0x0000, sop_class: str = CTImageStorage) -> Archive:
        running.append(Archive(answer, sop_class))
        return running[-1]

    yield begin
    for archive in running:
        archive.server.shutdown()


def run(peer: Peer, parcels: list[Parcel], go_on: Callable[[], bool] = lambda: True) -> list[Answer]:
    answers: list[Answer] = []
    deliver(peer, parcels, answers.append, go_on=go_on)
    return answers


def test_every_instance_is_answered_for_over_two_associations(start, parcels: list[Parcel]) -> None:
    archive = start()

    answers = run(archive.peer(max_associations=2), parcels)

    assert sorted(answer.delivery_id for answer in answers) == list(range(20))
    assert {answer.verdict for answer in answers} == {Verdict.DELIVERED}
    assert len(archive.stored) == len(set(archive.stored)) == 20
    assert archive.associations == 2


def test_one_refused_instance_costs_the_others_nothing(start, parcels: list[Parcel]) -> None:
    answers = run(start(lambda number: 0xC000 if number == 3 else 0).peer(), parcels)

    refused = [answer for answer in answers if answer.verdict is Verdict.REFUSED]
    assert [(answer.delivery_id, answer.status) for answer in refused] == [(2, 0xC000)]
    assert len(answers) == 20


def test_out_of_resources_ends_the_association_and_the_rest_is_not_sent(start, parcels: list[Parcel]) -> None:
    archive = start(lambda number: 0xA700 if number == 3 else 0)

    answers = run(archive.peer(), parcels)

    assert [answer.verdict for answer in answers[-1:]] == [Verdict.BUSY]
    assert (len(answers), len(archive.stored)) == (3, 3)


def test_a_class_refused_after_all_is_negotiated_once_more_and_then_refused(
    start, parcels: list[Parcel]
) -> None:
    archive = start(lambda number: 0x0122 if number in (1, 2, 21) else 0)

    answers = {answer.delivery_id: answer for answer in run(archive.peer(), parcels)}

    assert archive.associations == 2
    assert len(archive.stored) == 22
    assert (answers[0].verdict, answers[0].status) == (Verdict.REFUSED, 0x0122)
    assert answers[1].verdict is Verdict.DELIVERED


def test_a_peer_that_takes_none_of_it_refuses_each_with_the_reason(start, parcels: list[Parcel]) -> None:
    answers = run(start(sop_class=MRImageStorage).peer(), parcels)

    assert {(answer.verdict, answer.status, answer.reason) for answer in answers} == {
        (Verdict.REFUSED, None, Reason.NO_CONTEXT)
    }
    assert len(answers) == 20


def test_a_stop_is_obeyed_between_two_instances(start, parcels: list[Parcel]) -> None:
    archive = start()

    answers = run(archive.peer(), parcels, go_on=lambda: len(archive.stored) < 4)

    assert len(answers) == len(archive.stored) == 4


def test_a_lost_association_leaves_the_rest_unanswered(start, parcels: list[Parcel], tmp_path: Path) -> None:
    archive = start(lambda number: archive.server.active_associations[0].abort() or 0 if number == 3 else 0)
    answers: list[Answer] = []

    with pytest.raises(PeerError):
        deliver(archive.peer(), parcels, answers.append, go_on=lambda: True)

    assert [answer.delivery_id for answer in answers] == [0, 1]


def test_a_peer_without_verification_answers_a_probe_by_saying_so(start) -> None:
    archive = start()
    probe(archive.peer())

    with pytest.raises(PeerError):
        probe(archive.peer(port=1))


def test_what_arrives_is_what_was_stored(start, parcels: list[Parcel]) -> None:
    archive = start()
    run(archive.peer(), parcels[:2])
    assert archive.stored == [str(dcmread(parcel.item.path).SOPInstanceUID) for parcel in parcels[:2]]
