"""States of what lies between us and a destination, as tables; pure: its circuit, and what it promised to keep."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from storage.states import following


class CircuitState(StrEnum):
    """Whether anything is sent to a destination."""

    CLOSED = "CLOSED"  # in use; single failures only make the next try wait
    OPEN = "OPEN"  # nothing is sent until its time has come
    HALF_OPEN = "HALF_OPEN"  # a C-ECHO asks whether it works again


class CircuitEvent(StrEnum):
    """What a destination shows of itself."""

    FAIL = "fail"  # one failure, not yet too many
    TRIP = "trip"  # one too many, or one that only a person can mend
    PROBE = "probe"
    WORK = "work"


class CommitmentState(StrEnum):
    """Where one request for storage commitment stands (PS3.4 J.3)."""

    WAITING = "WAITING"  # to be asked, at `not_before`
    ASKED = "ASKED"  # the answer is due at `not_before`
    ANSWERED = "ANSWERED"  # the report came
    EXPIRED = "EXPIRED"  # no report in time; one that still comes counts


class CommitmentEvent(StrEnum):
    """What can happen to a request for storage commitment."""

    ASK = "ask"
    DEFER = "defer"  # the destination could not be asked
    REPORT = "report"
    EXPIRE = "expire"


class KeepState(StrEnum):
    """Where one request of a sender stands that asks us to keep what it sent (PS3.4 J.3)."""

    WAITING = "WAITING"  # to be judged, at `not_before`
    JUDGED = "JUDGED"  # what is promised is fixed; the report is due at `not_before`
    REPORTED = "REPORTED"  # the sender took the report
    GIVEN_UP = "GIVEN_UP"  # the report could not be made in time; what was promised is kept all the same


class KeepEvent(StrEnum):
    """What can happen to a request of a sender."""

    POSTPONE = "postpone"  # instances may still arrive
    JUDGE = "judge"
    REPORT = "report"
    DEFER = "defer"  # the report was not taken
    GIVE_UP = "give_up"
    REPEAT = "repeat"  # the sender sent the same request again


class Promise(StrEnum):
    """What a destination has said about keeping one delivered instance; no value: it is not asked."""

    WANTED = "WANTED"
    COMMITTED = "COMMITTED"
    FAILED = "FAILED"  # it does not keep the instance, or never said


CIRCUIT_TRANSITIONS: Mapping[tuple[CircuitState, CircuitEvent], CircuitState] = {
    (CircuitState.CLOSED, CircuitEvent.FAIL): CircuitState.CLOSED,
    (CircuitState.CLOSED, CircuitEvent.TRIP): CircuitState.OPEN,
    (CircuitState.CLOSED, CircuitEvent.WORK): CircuitState.CLOSED,
    (CircuitState.OPEN, CircuitEvent.TRIP): CircuitState.OPEN,
    (CircuitState.OPEN, CircuitEvent.PROBE): CircuitState.HALF_OPEN,
    (CircuitState.OPEN, CircuitEvent.WORK): CircuitState.CLOSED,
    # A prober that died leaves it half open; the next one probes again.
    (CircuitState.HALF_OPEN, CircuitEvent.PROBE): CircuitState.HALF_OPEN,
    (CircuitState.HALF_OPEN, CircuitEvent.TRIP): CircuitState.OPEN,
    (CircuitState.HALF_OPEN, CircuitEvent.WORK): CircuitState.CLOSED,
}

COMMITMENT_TRANSITIONS: Mapping[tuple[CommitmentState, CommitmentEvent], CommitmentState] = {
    (CommitmentState.WAITING, CommitmentEvent.ASK): CommitmentState.ASKED,
    (CommitmentState.ASKED, CommitmentEvent.DEFER): CommitmentState.WAITING,
    (CommitmentState.ASKED, CommitmentEvent.REPORT): CommitmentState.ANSWERED,
    (CommitmentState.ASKED, CommitmentEvent.EXPIRE): CommitmentState.EXPIRED,
    (CommitmentState.WAITING, CommitmentEvent.EXPIRE): CommitmentState.EXPIRED,  # never could be asked
    # The report may overtake the answer to the request, or come when nobody waits any more.
    (CommitmentState.WAITING, CommitmentEvent.REPORT): CommitmentState.ANSWERED,
    (CommitmentState.EXPIRED, CommitmentEvent.REPORT): CommitmentState.ANSWERED,
    (CommitmentState.ANSWERED, CommitmentEvent.REPORT): CommitmentState.ANSWERED,
}

KEEP_TRANSITIONS: Mapping[tuple[KeepState, KeepEvent], KeepState] = {
    (KeepState.WAITING, KeepEvent.POSTPONE): KeepState.WAITING,
    (KeepState.WAITING, KeepEvent.JUDGE): KeepState.JUDGED,
    (KeepState.WAITING, KeepEvent.REPEAT): KeepState.WAITING,
    (KeepState.JUDGED, KeepEvent.REPORT): KeepState.REPORTED,
    (KeepState.JUDGED, KeepEvent.DEFER): KeepState.JUDGED,
    (KeepState.JUDGED, KeepEvent.GIVE_UP): KeepState.GIVEN_UP,
    # What was judged stays judged; the sender may not have heard it.
    (KeepState.JUDGED, KeepEvent.REPEAT): KeepState.JUDGED,
    (KeepState.REPORTED, KeepEvent.REPEAT): KeepState.JUDGED,
    (KeepState.GIVEN_UP, KeepEvent.REPEAT): KeepState.JUDGED,
}

OPEN_COMMITMENT_STATES = (CommitmentState.WAITING, CommitmentState.ASKED)
OPEN_KEEP_STATES = (KeepState.WAITING, KeepState.JUDGED)


def advance_circuit(state: CircuitState, event: CircuitEvent) -> CircuitState:
    """The state after the event. Raises `IllegalTransitionError` for a pair that the table does not hold."""
    return following(CIRCUIT_TRANSITIONS, state, event)


def advance_commitment(state: CommitmentState, event: CommitmentEvent) -> CommitmentState:
    """The state after the event. Raises `IllegalTransitionError` for a pair that the table does not hold."""
    return following(COMMITMENT_TRANSITIONS, state, event)


def advance_keeping(state: KeepState, event: KeepEvent) -> KeepState:
    """The state after the event. Raises `IllegalTransitionError` for a pair that the table does not hold."""
    return following(KEEP_TRANSITIONS, state, event)
