"""Destinations: holds, circuits that open and close, and what was measured; all of it in the database."""

from __future__ import annotations

from datetime import timedelta
from itertools import product

import pytest

from storage.errors import IllegalTransitionError
from storage.link_states import (
    CIRCUIT_TRANSITIONS,
    COMMITMENT_TRANSITIONS,
    KEEP_TRANSITIONS,
    CircuitEvent,
    CircuitState,
    CommitmentEvent,
    CommitmentState,
    KeepEvent,
    KeepState,
    advance_circuit,
    advance_commitment,
    advance_keeping,
)

WAIT = timedelta(seconds=10)


def fail(scene, *, opens_at=3, **how):
    return scene.store.destinations.failed(
        "pacs", "refused", wait=lambda n: n * WAIT, opens_at=opens_at, **how
    )


@pytest.mark.parametrize(("state", "event"), [*product(CircuitState, CircuitEvent)])
def test_a_circuit_moves_by_its_table_or_not_at_all(state, event):
    if (state, event) in CIRCUIT_TRANSITIONS:
        assert advance_circuit(state, event) is CIRCUIT_TRANSITIONS[(state, event)]
    else:
        with pytest.raises(IllegalTransitionError):
            advance_circuit(state, event)


@pytest.mark.parametrize(("state", "event"), [*product(CommitmentState, CommitmentEvent)])
def test_a_commitment_moves_by_its_table_or_not_at_all(state, event):
    if (state, event) in COMMITMENT_TRANSITIONS:
        assert advance_commitment(state, event) is COMMITMENT_TRANSITIONS[(state, event)]
    else:
        with pytest.raises(IllegalTransitionError):
            advance_commitment(state, event)


@pytest.mark.parametrize(("state", "event"), [*product(KeepState, KeepEvent)])
def test_a_request_of_a_sender_moves_by_its_table_or_not_at_all(state, event):
    if (state, event) in KEEP_TRANSITIONS:
        assert advance_keeping(state, event) is KEEP_TRANSITIONS[(state, event)]
    else:
        with pytest.raises(IllegalTransitionError):
            advance_keeping(state, event)


def test_a_failure_holds_the_destination_for_a_time_that_grows(scene):
    scene.commit()

    first, second = fail(scene), fail(scene)

    assert (first.failures, first.not_before) == (1, scene.clock.at + WAIT)
    assert (second.failures, second.not_before) == (2, scene.clock.at + 2 * WAIT)
    assert second.circuit is CircuitState.CLOSED
    assert scene.claim_delivery() is None
    scene.clock.move(seconds=20)
    assert scene.claim_delivery() is not None


def test_too_many_failures_open_the_circuit_and_nothing_is_claimed_until_somebody_asked(scene):
    scene.commit()
    for _ in range(3):
        status = fail(scene)
    assert status.circuit is CircuitState.OPEN
    scene.clock.move(days=1)
    assert scene.claim_delivery() is None

    assert scene.store.destinations.probing("pacs", WAIT)
    assert scene.store.destinations.status("pacs").circuit is CircuitState.HALF_OPEN
    assert scene.claim_delivery() is None
    scene.store.destinations.works("pacs")

    assert scene.claim_delivery() is not None
    names = [event.name for event in scene.store.trail.list()]
    assert (names.count("destination.opened"), names.count("destination.cleared")) == (1, 1)


def test_only_one_asks_at_a_time_and_a_dead_asker_keeps_others_off_for_a_while_only(scene):
    fail(scene, for_good=True)
    assert not scene.store.destinations.probing("pacs", WAIT)
    scene.clock.move(seconds=10)

    assert scene.store.destinations.probing("pacs", WAIT)
    assert not scene.store.destinations.probing("pacs", WAIT)
    scene.clock.move(seconds=10)
    assert scene.store.destinations.probing("pacs", WAIT)


def test_a_probe_that_fails_opens_the_circuit_again(scene):
    fail(scene, opens_at=1)
    scene.clock.move(seconds=10)
    scene.store.destinations.probing("pacs", WAIT)

    status = fail(scene)

    assert (status.circuit, status.failures) == (CircuitState.OPEN, 2)


def test_a_trouble_for_a_person_opens_the_circuit_at_once(scene):
    assert fail(scene, for_good=True).circuit is CircuitState.OPEN


def test_what_waited_for_too_long_may_be_claimed_to_be_given_up(scene):
    (job,) = scene.commit()
    fail(scene, for_good=True)

    def outdated(days: float):
        return scene.store.jobs.claim(
            job.kind, "sender", WAIT, destination="pacs", only_before=scene.clock.at - timedelta(days=days)
        )

    scene.clock.move(days=14)
    assert outdated(15) is None
    assert outdated(14).id == job.id


def test_a_destination_that_works_forgets_its_failures_and_keeps_its_pace(scene):
    scene.store.destinations.measured("pacs", bytes_per_s=1e6, answer_s=0.25)
    fail(scene, for_good=True)

    scene.store.destinations.works("pacs")
    scene.store.destinations.works("pacs")

    (status,) = scene.store.destinations.list()
    assert (status.failures, status.not_before, status.last_error) == (0, None, None)
    assert (status.circuit, status.bytes_per_s, status.answer_s) == (CircuitState.CLOSED, 1e6, 0.25)
