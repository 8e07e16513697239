"""Every event becomes a message that the schema of PS3.15 A.5.1 accepts, with the right code and no patient."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from lxml import etree

from config.settings import Settings
from dicom_node.audit.message import xml_text
from dicom_node.audit.recorder import Recorder
from dicom_node.observability import events
from storage.audit_chain import AuditRecord
from storage.store import Store
from storage.trail import TrailEvent

PERSON = {"actor": "web:anna", "host": "192.0.2.50"}


@pytest.fixture
def recorded(store: Store, settings: Settings) -> Callable[[], list[AuditRecord]]:
    """Record everything and return the records, oldest first."""

    def record() -> list[AuditRecord]:
        Recorder(store, settings).record()
        return store.audit.list()[::-1]

    return record


def tree_of(record: AuditRecord) -> etree._Element:
    return etree.fromstring(record.message)


def participants(record: AuditRecord) -> dict[str, str]:
    """User by role (its code, or - without one)."""
    found = {}
    for element in tree_of(record).findall("ActiveParticipant"):
        role = element.find("RoleIDCode")
        found["-" if role is None else role.get("csd-code")] = element.get("UserID")
    return found


def test_a_series_through_the_line_is_told_from_arrival_to_delivery(line, recorded, faults_of) -> None:
    line()

    records = recorded()

    assert [(record.kind, record.outcome) for record in records] == [
        ("110104", 0),  # received
        ("110103", 0),  # derived
        ("110102", 0),
        ("110104", 4),  # the first try came to nothing
        ("110102", 0),
        ("110104", 0),  # delivered
    ]
    assert [fault for record in records for fault in faults_of(record.message)] == []
    assert participants(records[0]) == {"110153": "SCANNER", "110152": "enhance-1"}
    assert participants(records[-1]) == {"110153": "enhance-1", "110152": "PACS"}
    study = tree_of(records[0]).find("ParticipantObjectIdentification")
    assert study.get("ParticipantObjectID") == "1.2"
    assert study.find("ParticipantObjectIDTypeCode").get("csd-code") == "110180"
    assert study.find(".//SOPClass").get("NumberOfInstances") == "3"


def test_an_association_that_broke_off_is_a_minor_failure(receive_series, recorded, faults_of) -> None:
    receive_series(2, ending="aborted")

    (record,) = recorded()

    assert (record.kind, record.outcome, faults_of(record.message)) == ("110104", 4, [])
    assert "aborted" in tree_of(record).findtext(".//EventOutcomeDescription")


def test_an_association_that_stored_nothing_is_not_told(store, recorded) -> None:
    store.index.close_association(store.index.open_association("A", "B", "192.0.2.1", "run"), "released")

    assert recorded() == []


def test_two_studies_over_one_association_are_two_messages(store, receive_series, recorded) -> None:
    receive_series(1, study="1.2")
    receive_series(1, study="1.3")

    objects = [tree_of(record).find("ParticipantObjectIdentification") for record in recorded()]

    assert [element.get("ParticipantObjectID") for element in objects] == ["1.2", "1.3"]


@pytest.mark.parametrize(
    ("name", "data", "kind", "event_type", "outcome"),
    [
        (events.NODE_STARTED, {"actor": "account:node"}, "110100", "110120", 0),
        (events.NODE_STOPPED, {"actor": "account:node"}, "110100", "110121", 0),
        (events.AUDIT_READ, PERSON, "110101", None, 0),
        (events.USER_LOGGED_IN, PERSON, "110114", "110122", 0),
        (events.USER_LOGIN_FAILED, {**PERSON, "reason": "WRONG_PASSWORD"}, "110114", "110122", 4),
        (events.USER_LOGGED_OUT, PERSON, "110114", "110123", 0),
        (
            events.ASSOCIATION_REJECTED,
            {
                "calling_ae": '<"&\x1b',
                "peer_host": "2001:db8::1",
                "rejection": "CALLING_AE_UNKNOWN",
                "unreported": 3,
            },
            "110113",
            "110126",
            4,
        ),
        ("user.added", {**PERSON, "user": "bert", "role": "viewer"}, "110113", "110137", 0),
        ("token.revoked", {**PERSON, "token": 7}, "110113", "110137", 0),
        ("routes.applied", {**PERSON, "version": 3}, "110113", "110131", 0),
        ("access.denied", {**PERSON, "path": "/api/users"}, "110113", "110132", 4),
    ],
)
def test_events_of_the_node_and_of_people(
    store, recorded, faults_of, name, data, kind, event_type, outcome
) -> None:
    store.trail.append(name, data=data)

    (record,) = recorded()

    assert (record.kind, record.outcome, faults_of(record.message)) == (kind, outcome, [])
    found = tree_of(record).find(".//EventTypeCode")
    assert (None if found is None else found.get("csd-code")) == event_type
    assert tree_of(record).find("AuditSourceIdentification").attrib == {
        "AuditSourceID": "enhance-1",
        "AuditEnterpriseSiteID": "Radiology",
    }


@pytest.mark.parametrize(
    ("name", "kind", "action", "life_cycle"),
    [
        (TrailEvent.SERIES_DISCARDED, "110103", "U", "6"),
        (TrailEvent.JOB_RESUBMITTED, "110103", "U", "6"),
        (events.INSTANCES_VIEWED, "110103", "R", "6"),
        (events.INSTANCES_EXPORTED, "110106", "R", "10"),
        (events.INSTANCES_DELETED, "110105", "D", "15"),
        (TrailEvent.DELIVERY_ORDERED, "110103", "U", "6"),
    ],
)
def test_what_a_person_does_with_a_series_names_person_and_study(
    store, receive_series, recorded, faults_of, name, kind, action, life_cycle
) -> None:
    series = receive_series(1)
    store.trail.append(name, series_id=series, data=PERSON)

    record = recorded()[-1]

    assert (record.kind, faults_of(record.message)) == (kind, [])
    assert tree_of(record).find("EventIdentification").get("EventActionCode") == action
    subject = tree_of(record).find("ParticipantObjectIdentification")
    assert subject.get("ParticipantObjectID") == "1.2"
    assert subject.get("ParticipantObjectDataLifeCycle") == life_cycle
    assert tree_of(record).find("ActiveParticipant").get("UserID") == "web:anna"


@pytest.mark.parametrize("name", [events.INSTANCES_DELETED, "series.purged"])
def test_what_the_node_deletes_by_itself_is_told_as_its_own_act(store, recorded, faults_of, name) -> None:
    store.trail.append(name, data={"study_instance_uid": "1.2.9"})

    (record,) = recorded()

    assert (record.kind, faults_of(record.message)) == ("110105", [])
    assert tree_of(record).find("ActiveParticipant").get("UserIsRequestor") == "true"


def test_what_the_node_decides_for_itself_about_a_job_is_no_persons_act(
    store, receive_series, recorded
) -> None:
    series = receive_series(1)
    before = len(recorded())
    store.trail.append(TrailEvent.JOB_CANCELED, series_id=series, data={"reason": "SUPERSEDED"})

    assert len(recorded()) == before


def test_text_that_xml_does_not_know_is_made_harmless() -> None:
    assert xml_text("A\x00\x1b\r\nB\ufffe\U0001f600") == "A????B?\U0001f600"
