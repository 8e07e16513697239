"""Storage commitment with us as the provider: a scripted scanner stores, asks, and listens for the report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pynetdicom import AE, build_context, evt

from config.settings import Settings
from dicom_node.doctor.findings import Level
from dicom_node.doctor.keeping import check_safekeeping
from dicom_node.intake.receiver import build_scp
from dicom_node.intake.safekeeping import KeepRequests
from dicom_node.network.commitment import COMMITMENT, WELL_KNOWN, report_service
from dicom_node.network.safekeeping import request_service
from dicom_node.pipeline.commitment import CommitmentReports
from dicom_node.pipeline.safekeeping import Keeper
from storage.link_states import KeepState
from storage.store import Store

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"


class Scanner:
    """Stores images and asks for their safekeeping over one association; takes reports on its own port."""

    def __init__(self, *, hears: bool = True) -> None:
        self.reports: list[tuple[str, int, Dataset]] = []
        self.status = 0x0000
        entity = AE(ae_title="SCANNER")
        roles = {"scu_role": True, "scp_role": True} if hears else {}
        entity.add_supported_context(COMMITMENT, **roles)
        self._server = entity.start_server(
            ("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._hear)]
        )
        self.port = self._server.server_address[1]

    def stop(self) -> None:
        self._server.shutdown()

    def _hear(self, event: Any) -> tuple[int, None]:
        caller = event.assoc.requestor.ae_title
        self.reports.append((caller, event.event_type, event.event_information))
        return self.status, None

    def ask(
        self,
        port: int,
        listed: list[tuple[str, str]],
        *,
        store: list[Path] = (),  # type: ignore[assignment]
        title: str = "SCANNER",
        transaction: str = "2.25.7",
        action: int = 1,
        instance: str = WELL_KNOWN,
    ) -> int:
        """Store files, ask to keep instances; the status of the answer."""
        entity = AE(ae_title=title)
        entity.requested_contexts = [
            build_context(CT_IMAGE, "1.2.840.10008.1.2.1"),
            build_context(COMMITMENT),
        ]
        assoc = entity.associate("127.0.0.1", port, ae_title="ENHANCE")
        assert assoc.is_established
        try:
            for path in store:
                assert assoc.send_c_store(path).Status == 0x0000
            answer, _ = assoc.send_n_action(_request(transaction, listed), action, COMMITMENT, instance)
            return int(answer.Status)
        finally:
            assoc.release()


def _request(transaction: str, listed: list[tuple[str, str]]) -> Dataset:
    information, items = Dataset(), []
    for sop_class, uid in listed:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        items.append(item)
    information.TransactionUID, information.ReferencedSOPSequence = transaction, items
    return information


class Node:
    """Receiver and keeper on one store."""

    def __init__(self, store: Store, scanner: Scanner, **safekeeping: Any) -> None:
        asked = {"wait_for": "0 s", **safekeeping}
        peer = {"name": "ct", "ae_title": "SCANNER", "host": "127.0.0.1", "port": scanner.port}
        settings = Settings.model_validate(
            {
                "node": {"port": 0},
                "peers": [{**peer, "safekeeping": asked}],
                "delivery": {"backoff_first": "100 ms", "backoff_longest": "200 ms"},
            }
        )
        services = (
            report_service(CommitmentReports(store, settings).heard),
            request_service(KeepRequests(store, settings).hear),
        )
        self.store, self.settings = store, settings
        self.scp = build_scp(store, settings, run_id="run", services=services)
        self.scp.start()
        self.port = self.scp.address[1]
        self.keeper = Keeper(store, settings)


@pytest.fixture
def start(store: Store) -> Iterator[Callable[..., tuple[Scanner, Node]]]:
    running: list[tuple[Scanner, Node]] = []

    def begin(*, hears: bool = True, **safekeeping: Any) -> tuple[Scanner, Node]:
        scanner = Scanner(hears=hears)
        running.append((scanner, Node(store, scanner, **safekeeping)))
        return running[-1]

    yield begin
    for scanner, node in running:
        node.keeper.stop(5.0)
        node.scp.stop()
        scanner.stop()


def pairs(paths: list[Path]) -> list[tuple[str, str]]:
    headers = [dcmread(path, stop_before_pixels=True) for path in paths]
    return [(str(one.SOPClassUID), str(one.SOPInstanceUID)) for one in headers]


def test_what_was_stored_is_promised_on_an_association_of_ours(start: Any, write_series: Any) -> None:
    scanner, node = start()
    paths = write_series(slices=3)

    assert scanner.ask(node.port, pairs(paths), store=paths) == 0x0000
    node.keeper.attend("ct")

    ((caller, kind, told),) = scanner.reports
    assert (caller, kind, told.TransactionUID) == ("ENHANCE", 1, "2.25.7")
    assert [
        (i.ReferencedSOPClassUID, i.ReferencedSOPInstanceUID) for i in told.ReferencedSOPSequence
    ] == pairs(paths)
    assert "FailedSOPSequence" not in told
    (kept,) = node.store.safekeeping.list()
    assert kept.state is KeepState.REPORTED


def test_what_never_came_is_named_with_its_reason(start: Any, write_series: Any) -> None:
    scanner, node = start()
    paths = write_series(slices=3)

    scanner.ask(node.port, pairs(paths), store=paths[:2])
    node.keeper.attend("ct")

    ((_, kind, told),) = scanner.reports
    (lost,) = told.FailedSOPSequence
    assert (kind, lost.ReferencedSOPInstanceUID, lost.FailureReason) == (2, pairs(paths)[2][1], 0x0112)
    assert len(told.ReferencedSOPSequence) == 2


def test_a_report_that_is_not_taken_is_told_again(start: Any, write_series: Any) -> None:
    scanner, node = start()
    scanner.status = 0x0110
    scanner.ask(node.port, pairs(write_series(slices=2)))
    node.keeper.attend("ct")
    (waiting,) = node.store.safekeeping.list()
    scanner.status = 0x0000

    deadline = time.monotonic() + 20
    while len(scanner.reports) < 2:
        assert time.monotonic() < deadline
        node.keeper.sweep()
        time.sleep(0.05)

    assert (waiting.state, waiting.failures) == (KeepState.JUDGED, 1)
    assert "0x0110" in (waiting.message or "")


def test_a_scanner_that_lets_nobody_report_is_told_of_in_words(start: Any) -> None:
    scanner, node = start(hears=False)
    scanner.ask(node.port, [(CT_IMAGE, "1.2.3")])

    node.keeper.attend("ct")

    (waiting,) = node.store.safekeeping.list()
    assert scanner.reports == []
    assert "SCP role" in (waiting.message or "")


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ({"title": "STRANGER"}, 0x0124),
        ({"action": 2}, 0x0123),
        ({"instance": "1.2.3"}, 0x0112),
        ({"transaction": ""}, 0x0115),
        ({"listed": []}, 0x0115),
        ({"listed": [(CT_IMAGE, f"1.2.{n}") for n in range(4)]}, 0x0213),
    ],
)
def test_a_request_that_cannot_be_taken_is_told_so_at_once(start: Any, how: Any, status: int) -> None:
    scanner, node = start(most_instances=3)

    assert scanner.ask(node.port, **{"listed": [(CT_IMAGE, "1.2.3")], **how}) == status
    assert node.store.safekeeping.list() == []


def test_a_flood_of_requests_is_bounded(start: Any) -> None:
    scanner, node = start(most_open=2)

    answers = [
        scanner.ask(node.port, [(CT_IMAGE, "1.2.3")], transaction=f"2.25.{number}") for number in range(3)
    ]

    assert answers == [0x0000, 0x0000, 0x0213]


def test_the_largest_request_passes_and_is_reported_whole(start: Any) -> None:
    scanner, node = start(most_instances=6000)
    long = "1.2.826.0.1.3680043.10.543.12345678901234567890123456789.999"
    listed = [(CT_IMAGE, f"{long}{number:04}") for number in range(6000)]

    assert scanner.ask(node.port, listed) == 0x0000
    node.keeper.attend("ct")

    ((_, _, told),) = scanner.reports
    assert len(told.FailedSOPSequence) == 6000


@pytest.mark.parametrize(("hears", "level"), [(True, Level.OK), (False, Level.PROBLEM)])
def test_the_doctor_sees_whether_the_scanner_takes_reports(start: Any, hears: bool, level: Level) -> None:
    _, node = start(hears=hears)
    peer = node.settings.peer("ct")
    assert peer is not None

    (finding,) = check_safekeeping(node.settings, peer)

    assert finding.level is level


def test_the_doctor_warns_of_promises_without_end_where_series_are_to_be_deleted(start: Any) -> None:
    _, node = start()
    deleting = node.settings.model_copy(
        update={"retention": node.settings.retention.model_copy(update={"enabled": True})}
    )
    peer = node.settings.peer("ct")
    assert peer is not None

    _, warning = check_safekeeping(deleting, peer)

    assert (warning.level, "keep_for" in warning.fix) == (Level.WARNING, True)
