"""Associations are rows from acceptance to their end."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from dicom_node.intake.admission import Admission
from dicom_node.intake.associations import AssociationLedger
from dicom_node.intake.receiver import Receiver
from dicom_node.network.received import AssociationInfo, AssociationRequest, IntakeClosedError
from dicom_node.network.status import Ending, Rejection

REQUEST = AssociationRequest("SCANNER", "ENHANCE", "127.0.0.1")


def store_one(store, association_id, make_dataset, encoded, make_received, number=1):
    association = AssociationInfo(association_id, "SCANNER", "ENHANCE", "127.0.0.1")
    data = encoded(make_dataset(number))
    Receiver(store).receive(make_received(data, number=number, association=association))


def test_series_is_not_closable_while_its_association_is_open(store, make_dataset, encoded, make_received):
    ledger = AssociationLedger(store, Admission(()), run_id="run")
    number = ledger.opened(REQUEST)
    store_one(store, number, make_dataset, encoded, make_received)
    before = store.index.closable_series()

    ledger.closed(AssociationInfo(number, "SCANNER", "ENHANCE", "127.0.0.1"), Ending.RELEASED)

    assert before == []
    assert len(store.index.closable_series()) == 1


@pytest.mark.parametrize(
    ("ending", "interrupted"), [(Ending.RELEASED, False), (Ending.ABORTED, True), (Ending.LOST, True)]
)
def test_every_ending_but_release_interrupts_the_series(
    store, make_dataset, encoded, make_received, ending, interrupted
):
    ledger = AssociationLedger(store, Admission(()), run_id="run")
    number = ledger.opened(REQUEST)
    store_one(store, number, make_dataset, encoded, make_received)

    ledger.closed(AssociationInfo(number, "SCANNER", "ENHANCE", "127.0.0.1"), ending)

    assert store.index.get_series(1).interrupted is interrupted


def test_new_run_closes_what_the_last_one_left_open(store, make_dataset, encoded, make_received):
    number = AssociationLedger(store, Admission(()), run_id="crashed").opened(REQUEST)
    store_one(store, number, make_dataset, encoded, make_received)

    AssociationLedger(store, Admission(()), run_id="next")

    (series,) = store.index.closable_series()
    assert series.interrupted


def test_nothing_is_opened_while_there_is_no_room(store):
    ledger = AssociationLedger(store, Admission(()), run_id="run", has_room=lambda: False)

    with pytest.raises(IntakeClosedError):
        ledger.opened(REQUEST)


def test_rejection_is_logged_with_its_name(store):
    ledger = AssociationLedger(store, Admission(()), run_id="run")

    with capture_logs() as lines:
        ledger.rejected(REQUEST, Rejection.CALLED_AE_UNKNOWN)

    assert lines[0]["event"] == "association.rejected"
    assert lines[0]["rejection"] == "CALLED_AE_UNKNOWN"
