"""Every pair of state and event, written out by hand once more: a change of a table has to be made twice."""

from __future__ import annotations

from itertools import product

import pytest

from storage.errors import IllegalTransitionError
from storage.states import (
    DeliveryEvent,
    DeliveryState,
    JobEvent,
    JobState,
    SeriesEvent,
    SeriesState,
    advance,
)

SERIES = """
    RECEIVING stored RECEIVING
    STABLE stored RECEIVING
    SKIPPED stored RECEIVING
    HELD stored RECEIVING
    RECEIVING close STABLE
    RECEIVING skip SKIPPED
    RECEIVING hold HELD
    HELD release RECEIVING
    HELD discard SKIPPED
    HELD resent RECEIVING
    HELD listed RECEIVING
    HELD repaired RECEIVING
    STABLE reopen RECEIVING
    SKIPPED reopen RECEIVING
"""
JOBS = """
    PENDING claim RUNNING
    RETRY claim RUNNING
    RUNNING done SUCCEEDED
    RUNNING retry RETRY
    RUNNING fail FAILED
    RUNNING expire RETRY
    RUNNING abandon FAILED
    PENDING cancel CANCELED
    RETRY cancel CANCELED
    RUNNING cancel CANCELED
    RETRY due PENDING
    FAILED resubmit PENDING
    CANCELED resubmit PENDING
    SUCCEEDED reopen PENDING
    FAILED reopen PENDING
"""
DELIVERIES = """
    PENDING deliver DELIVERED
    PENDING refuse REFUSED
    PENDING defer PENDING
    REFUSED retry PENDING
    DELIVERED resend PENDING
"""


def _allowed(table: str) -> dict[tuple[str, str], str]:
    rows = (line.split() for line in table.strip().splitlines())
    return {(state, event): following for state, event, following in rows}


def _walk(table, states, events):
    allowed = _allowed(table)
    return [
        pytest.param(state, event, allowed.get((state.value, event.value)), id=f"{state}-{event}")
        for state, event in product(states, events)
    ]


EVERY_PAIR = [
    *_walk(SERIES, SeriesState, SeriesEvent),
    *_walk(JOBS, JobState, JobEvent),
    *_walk(DELIVERIES, DeliveryState, DeliveryEvent),
]


@pytest.mark.parametrize(("state", "event", "following"), EVERY_PAIR)
def test_a_state_and_an_event_lead_where_the_table_says_or_are_refused(state, event, following):
    if following is None:
        with pytest.raises(IllegalTransitionError) as refused:
            advance(state, event)
        assert (refused.value.state, refused.value.event) == (state, event)
    else:
        assert advance(state, event) == following


def test_an_event_of_another_kind_is_refused():
    with pytest.raises(IllegalTransitionError):
        advance(JobState.PENDING, SeriesEvent.CLOSE)
