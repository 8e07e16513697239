"""Storage commitment end to end: our sender and our SCP, and a scripted PACS that reports as it is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pynetdicom import AE, StoragePresentationContexts, build_role, evt

from config.settings import Settings
from dicom_node.intake.receiver import build_scp
from dicom_node.network.commitment import COMMITMENT, report_service
from dicom_node.network.scu import outgoing, send
from dicom_node.pipeline.commitment import CommitmentReports, CommitmentRequester
from dicom_node.pipeline.delivery import DeliverySender
from storage.link_states import CommitmentState, Promise
from storage.store import Store

WELL_KNOWN = "1.2.840.10008.1.20.1.1"


class Pacs:
    """Stores what it is sent, takes requests for commitment, and reports on command."""

    def __init__(self, *, same_association: bool = False, status: int = 0x0000) -> None:
        self.requests: list[Dataset] = []
        self.stored: list[str] = []
        self.kept_back: dict[str, int] = {}
        self._same_association = same_association
        self._status = status
        entity = AE(ae_title="PACS")
        entity.supported_contexts = StoragePresentationContexts
        entity.add_supported_context(COMMITMENT)
        handlers = [(evt.EVT_C_STORE, self._store), (evt.EVT_N_ACTION, self._ask)]
        self.server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)

    def _store(self, event: Any) -> int:
        self.stored.append(str(event.request.AffectedSOPInstanceUID))
        return 0x0000

    def _ask(self, event: Any) -> tuple[int, None]:
        self.requests.append(event.action_information)
        if self._same_association:
            work = threading.Thread(target=self._tell, args=(event.assoc, self.requests[-1]), daemon=True)
            work.start()
        return self._status, None

    def _tell(self, assoc: Any, request: Dataset) -> int:
        """Send the report for a request over an association."""
        report, kept, lost = Dataset(), [], []
        for item in request.ReferencedSOPSequence:
            reason = self.kept_back.pop(item.ReferencedSOPInstanceUID, None)
            if reason is not None:
                item.FailureReason = reason
            (kept if reason is None else lost).append(item)
        report.TransactionUID = request.TransactionUID
        report.ReferencedSOPSequence = kept
        if lost:
            report.FailedSOPSequence = lost
        answer, _ = assoc.send_n_event_report(report, 2 if lost else 1, COMMITMENT, WELL_KNOWN)
        return int(answer.Status)

    def report(self, port: int, request: Dataset) -> int:
        """Call the node and report; the status it answers."""
        entity = AE(ae_title="PACS")
        entity.add_requested_context(COMMITMENT)
        roles = [build_role(COMMITMENT, scp_role=True)]
        assoc = entity.associate("127.0.0.1", port, ae_title="ENHANCE", ext_neg=roles)
        assert assoc.is_established
        try:
            return self._tell(assoc, request)
        finally:
            assoc.release()


class Line:
    """A receiver and a sender on one store, and a series that is ordered to the PACS."""

    def __init__(self, store: Store, settings: Settings, paths: list[Any]) -> None:
        self.store = store
        self.settings = settings
        self.reports = CommitmentReports(store, settings)
        self.scp = build_scp(store, settings, run_id="run", services=(report_service(self.reports.heard),))
        self.scp.start()
        self.port = self.scp.address[1]
        sender = {"name": "us", "ae_title": "ENHANCE", "host": "127.0.0.1", "port": self.port}
        us = settings.peers[0].model_validate({**sender, "calling_ae_title": "PACS"})
        send(us, [outgoing(path) for path in paths], lambda *_: None)
        (series,) = store.index.list_series()
        self.job = store.deliveries.send_series(series.id, "pacs", "test")
        self.sender = DeliverySender(store, settings, name="sender", now=lambda: datetime.now(UTC))
        self.requester = self.new_requester()

    def new_requester(self) -> CommitmentRequester:
        return CommitmentRequester(self.store, self.settings, now=lambda: datetime.now(UTC))

    def deliver_and_ask(self) -> None:
        self.sender.drain("pacs")
        self.requester.attend("pacs")

    def promises(self) -> list[Promise | None]:
        return [row.commitment for row, _ in self.store.deliveries.for_job(self.job.id)]


@pytest.fixture
def start(store: Store, write_series: Callable[..., Any]) -> Iterator[Callable[..., tuple[Pacs, Line]]]:
    running: list[tuple[Pacs, Line]] = []

    def begin(commitment: dict[str, Any] | None = None, **pacs: Any) -> tuple[Pacs, Line]:
        archive = Pacs(**pacs)
        peer = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1"}
        peer |= {"port": archive.server.server_address[1]}
        peer |= {"commitment": {"linger": "0 s", **(commitment or {})}}
        settings = Settings.model_validate(
            {
                "node": {"port": 0},
                "peers": [peer],
                "storage": {"watermarks": {"soft": "99 %", "hard": "100 %", "reserve": "1 MB"}},
            }
        )
        running.append((archive, Line(store, settings, write_series(slices=3))))
        return running[-1]

    yield begin
    for archive, line in running:
        line.scp.stop()
        archive.server.shutdown()


def await_(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_a_report_on_an_association_of_the_peer_commits_what_was_delivered(start: Any) -> None:
    pacs, line = start()
    line.deliver_and_ask()
    assert line.promises() == [Promise.WANTED] * 3

    assert pacs.report(line.port, pacs.requests[0]) == 0x0000

    assert line.promises() == [Promise.COMMITTED] * 3
    assert line.store.commitments.list()[0].state is CommitmentState.ANSWERED


def test_a_report_on_the_same_association_is_waited_for(start: Any) -> None:
    _, line = start({"linger": "20 s"}, same_association=True)

    line.deliver_and_ask()

    assert line.promises() == [Promise.COMMITTED] * 3


def test_what_the_peer_lost_is_sent_again_and_committed_then(start: Any) -> None:
    pacs, line = start()
    line.deliver_and_ask()
    lost = pacs.stored[1]
    pacs.kept_back[lost] = 0x0112
    assert pacs.report(line.port, pacs.requests[0]) == 0x0000

    line.deliver_and_ask()
    assert pacs.report(line.port, pacs.requests[1]) == 0x0000

    assert pacs.stored.count(lost) == 2
    assert len(pacs.stored) == 4
    assert [item.ReferencedSOPInstanceUID for item in pacs.requests[1].ReferencedSOPSequence] == [lost]
    assert line.promises() == [Promise.COMMITTED] * 3


def test_a_failure_for_good_is_kept_with_its_reason(start: Any) -> None:
    pacs, line = start()
    line.deliver_and_ask()
    pacs.kept_back[pacs.stored[0]] = 0x0122

    pacs.report(line.port, pacs.requests[0])

    rows = [row for row, _ in line.store.deliveries.for_job(line.job.id)]
    assert sorted((row.commitment, row.commitment_reason or 0) for row in rows) == [
        (Promise.COMMITTED, 0),
        (Promise.COMMITTED, 0),
        (Promise.FAILED, 0x0122),
    ]


def test_a_report_that_never_comes_is_asked_for_again_and_a_late_one_still_counts(start: Any) -> None:
    pacs, line = start({"answer_within": "1 s", "asks": 2})
    line.deliver_and_ask()

    def asked_twice() -> bool:
        line.requester.attend("pacs")
        return len(pacs.requests) == 2

    await_(asked_twice)
    assert pacs.requests[0].TransactionUID != pacs.requests[1].TransactionUID

    def given_up() -> bool:
        line.requester.attend("pacs")
        return line.promises() == [Promise.FAILED] * 3

    await_(given_up)
    assert len(pacs.requests) == 2
    assert pacs.report(line.port, pacs.requests[0]) == 0x0000
    assert line.promises() == [Promise.COMMITTED] * 3


def test_a_peer_that_does_not_take_the_request_is_asked_later(start: Any) -> None:
    pacs, line = start(status=0x0213)

    line.deliver_and_ask()
    line.requester.attend("pacs")

    (request,) = line.store.commitments.list()
    assert (request.state, len(pacs.requests)) == (CommitmentState.WAITING, 1)
    assert "0x0213" in (request.message or "")
    assert line.store.destinations.status("pacs").failures == 0


def test_a_report_that_is_not_ours_or_no_report_at_all_is_told_so(start: Any) -> None:
    pacs, line = start()
    line.deliver_and_ask()
    foreign = Dataset()
    foreign.TransactionUID, foreign.ReferencedSOPSequence = "1.2.3", []

    assert pacs.report(line.port, foreign) == 0x0115
    assert line.promises() == [Promise.WANTED] * 3
