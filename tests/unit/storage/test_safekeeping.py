"""What senders asked us to keep: taken once, judged by what is here, promised against retention, told until heard."""

from __future__ import annotations

from datetime import timedelta

import pytest

from storage.link_states import KeepState
from storage.retention import Ages
from storage.safekeeping_records import KeepTerms, NewKeepRequest
from storage.states import SeriesState
from storage.store import open_store
from tests.unit.storage.conftest import CT_IMAGE

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
REPORT = "1.2.840.10008.5.1.4.1.1.88.67"
TERMS = KeepTerms(timedelta(0), None, (CT_IMAGE, MR_IMAGE))
DAY = Ages(delivered=timedelta(days=1), skipped=timedelta(days=1))


def request(*uids: str, transaction: str = "2.25.1", caller: str = "SCANNER", sop_class: str = CT_IMAGE):
    return NewKeepRequest(transaction, caller, "ENHANCE", tuple((sop_class, uid) for uid in uids))


def ask(scene, *uids: str, terms: KeepTerms = TERMS, taken: bool = True, **how):
    """Take a request, judge it and report, whether or not the report is taken; what the sender is told."""
    assert scene.store.safekeeping.take(request(*uids, **how), most_open=9) == "taken"
    due = scene.store.safekeeping.take_due(how.get("caller", "SCANNER"))
    if due.state is KeepState.WAITING:
        assert scene.store.safekeeping.judge(due.id, terms)
    if taken:
        scene.store.safekeeping.reported(due.id)
    return scene.store.safekeeping.judgement(due.id)


def reasons(judgement) -> dict[str, int]:
    return {uid: reason for _, uid, reason in judgement.failed}


def damage(scene, added) -> None:
    path = added.instance.path
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")


def test_what_is_stored_is_promised_and_what_is_not_is_told_with_its_reason(scene):
    scene.add("1.1")

    told = ask(scene, "1.1", "1.2")

    assert told.promised == ((CT_IMAGE, "1.1"),)
    assert reasons(told) == {"1.2": 0x0112}


def test_a_class_that_cannot_arrive_and_a_class_that_is_another_are_told_apart(scene):
    scene.add("1.1")

    assert reasons(ask(scene, "1.1", sop_class=MR_IMAGE)) == {"1.1": 0x0119}
    assert reasons(ask(scene, "1.9", sop_class=REPORT, transaction="2.25.2")) == {"1.9": 0x0122}


def test_a_file_that_lost_its_digest_is_never_promised(scene):
    damage(scene, scene.add("1.1"))
    scene.add("1.2")

    told = ask(scene, "1.1", "1.2")

    assert reasons(told) == {"1.1": 0x0110}
    assert [uid for _, uid in told.promised] == ["1.2"]
    assert scene.store.alarms.active()[0].code == "damaged_file"


def test_a_uid_with_two_contents_is_never_promised(scene):
    scene.add("1.1", content="a")
    scene.add("1.1", content="b")

    assert reasons(ask(scene, "1.1")) == {"1.1": 0x0110}


def test_missing_instances_are_waited_for_before_the_sender_is_told(scene):
    scene.add("1.1")
    terms = KeepTerms(timedelta(seconds=30), None, (CT_IMAGE,))
    scene.store.safekeeping.take(request("1.1", "1.2"), most_open=9)
    due = scene.store.safekeeping.take_due("SCANNER")

    assert not scene.store.safekeeping.judge(due.id, terms)
    assert scene.store.safekeeping.take_due("SCANNER") is None
    scene.add("1.2")
    scene.clock.move(seconds=6)
    assert scene.store.safekeeping.judge(scene.store.safekeeping.take_due("SCANNER").id, terms)

    assert reasons(scene.store.safekeeping.judgement(due.id)) == {}


def test_what_was_deleted_is_not_promised_and_what_is_promised_is_not_deleted(scene):
    series = scene.add("1.1", series="1").series
    scene.close(series.id, event="skip")
    other = scene.add("2.1", series="2").series
    scene.close(other.id, event="skip")
    ask(scene, "2.1")
    scene.clock.move(days=2)

    done = scene.store.retention.run(DAY)

    assert [one.series_id for one in done] == [series.id]
    assert reasons(ask(scene, "1.1", "2.1", transaction="2.25.2")) == {"1.1": 0x0112}


def test_a_promise_for_a_time_ends_with_it(scene):
    series = scene.add("1.1").series
    scene.close(series.id, event="skip")
    ask(scene, "1.1", terms=KeepTerms(timedelta(0), timedelta(days=7), (CT_IMAGE,)))

    scene.clock.move(days=6)
    assert scene.store.retention.run(DAY) == ()
    scene.clock.move(days=2)
    assert len(scene.store.retention.run(DAY)) == 1


def test_a_request_survives_a_restart_and_the_end_of_whoever_was_answering_it(scene, database_url):
    scene.add("1.1")
    scene.store.safekeeping.take(request("1.1"), most_open=9)
    assert scene.store.safekeeping.take_due("SCANNER") is not None
    assert scene.store.safekeeping.take_due("SCANNER") is None
    scene.clock.move(minutes=6)

    with open_store(database_url, scene.store.spool.directory, now=scene.clock) as again:
        due = again.safekeeping.take_due("SCANNER")
        assert again.safekeeping.judge(due.id, TERMS)
        assert again.safekeeping.judgement(due.id).promised == ((CT_IMAGE, "1.1"),)


def test_the_same_request_again_is_reported_again_and_judged_no_second_time(scene):
    ask(scene, "1.1")
    due = scene.store.safekeeping.list()[0]
    scene.add("1.1")

    assert scene.store.safekeeping.take(request("1.1"), most_open=1) == "repeated"

    again = scene.store.safekeeping.take_due("SCANNER")
    assert (again.id, again.state) == (due.id, KeepState.JUDGED)
    assert reasons(scene.store.safekeeping.judgement(again.id)) == {"1.1": 0x0112}


def test_another_list_under_a_transaction_in_use_fails_as_a_whole_and_leaves_the_first_alone(scene):
    scene.add("1.1")
    first = ask(scene, "1.1")

    assert reasons(ask(scene, "1.1", "1.2", caller="OTHER")) == {"1.1": 0x0131, "1.2": 0x0131}
    assert scene.store.safekeeping.judgement(1) == first
    assert scene.store.safekeeping.sent_list(1).proves


def test_a_sender_may_have_so_many_open_requests_and_no_more(scene):
    take = scene.store.safekeeping.take
    assert take(request("1.1", transaction="2.25.1"), most_open=1) == "taken"
    assert take(request("1.1", transaction="2.25.2"), most_open=1) == "too many"
    assert take(request("1.1", transaction="2.25.3", caller="OTHER"), most_open=1) == "taken"


def test_a_report_that_is_not_taken_is_tried_until_its_time_is_over(scene):
    ask(scene, "1.1", taken=False)
    number, longest = scene.store.safekeeping.list()[0].id, timedelta(hours=1)

    assert scene.store.safekeeping.defer(number, timedelta(minutes=5), "No.", longest=longest)
    assert scene.store.safekeeping.take_due("SCANNER") is None
    scene.clock.move(hours=2)
    assert scene.store.safekeeping.take_due("SCANNER") is not None
    assert not scene.store.safekeeping.defer(number, timedelta(minutes=5), "No.", longest=longest)

    (given_up,) = scene.store.safekeeping.list()
    assert (given_up.state, given_up.failures) == (KeepState.GIVEN_UP, 2)


# --- the lists as evidence


def listed(scene, series: str):
    return scene.store.safekeeping.sent_list(scene.store.index.get_series(series).id)


def test_a_list_of_exactly_what_a_series_holds_proves_it(scene):
    for uid in ("1.1", "1.2"):
        scene.add(uid)
    assert listed(scene, "1.2.3") is None

    ask(scene, "1.1", "1.2")

    assert listed(scene, "1.2.3").proves


def test_an_instance_that_no_list_names_keeps_the_series_from_being_proven(scene):
    for uid in ("1.1", "1.2"):
        scene.add(uid)
    ask(scene, "1.1")

    assert (listed(scene, "1.2.3").unlisted, listed(scene, "1.2.3").proves) == (1, False)
    ask(scene, "1.2", transaction="2.25.2")
    assert listed(scene, "1.2.3").proves


def test_what_never_came_is_missing_from_the_only_series_it_can_belong_to(scene):
    scene.add("1.1")
    ask(scene, "1.1", "1.2", "1.3")

    found = listed(scene, "1.2.3")

    assert (found.listed, found.missing, found.unplaced) == (1, ("1.2", "1.3"), 0)


def test_what_may_be_missing_from_either_of_two_series_proves_nothing_of_both(scene):
    scene.add("1.1", series="1")
    scene.add("2.1", series="2")
    ask(scene, "1.1", "2.1", "1.2")

    for series in ("1", "2"):
        found = listed(scene, series)
        assert (found.missing, found.unplaced, found.proves) == ((), 1, False)
    scene.add("1.2", series="1")
    assert listed(scene, "1").proves
    assert listed(scene, "2").proves


def test_an_object_of_another_class_is_no_slice_of_the_series(scene):
    scene.add("1.1")
    pairs = ((CT_IMAGE, "1.1"), (REPORT, "1.9"))
    scene.store.safekeeping.take(NewKeepRequest("2.25.1", "SCANNER", "ENHANCE", pairs), most_open=9)

    assert listed(scene, "1.2.3").proves


@pytest.mark.parametrize("reason", ["LISTED_MISSING", "UNPROVEN", "INTERRUPTED"])
def test_a_series_held_for_want_of_proof_opens_when_the_list_proves_it(scene, reason):
    series = scene.add("1.1", series="1").series
    scene.close(series.id, event="hold", reason=reason)
    ask(scene, "1.1", "2.1")
    assert scene.store.safekeeping.look_again() == 0

    scene.add("2.1", series="2")

    assert scene.store.safekeeping.look_again() == 1
    assert scene.store.index.get_series(series.id).state is SeriesState.RECEIVING


def test_a_series_held_for_another_reason_stays_held(scene):
    series = scene.add("1.1", series="1").series
    scene.close(series.id, event="hold", reason="UID_CONFLICT")
    ask(scene, "1.1")

    assert scene.store.safekeeping.look_again() == 0
