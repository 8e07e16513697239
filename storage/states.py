"""States and what may happen in them, as tables; pure.

A pair that a table does not hold is impossible: `advance` raises for it, and no caller writes a state by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar, overload

from storage.errors import IllegalTransitionError


class SeriesState(StrEnum):
    """Where a received series stands."""

    RECEIVING = "RECEIVING"  # instances may still arrive
    STABLE = "STABLE"  # frozen generation, a job was made of it
    SKIPPED = "SKIPPED"  # left alone on purpose, with a reason
    HELD = "HELD"  # a person has to decide


class SeriesEvent(StrEnum):
    """What can happen to a series."""

    STORED = "stored"
    CLOSE = "close"
    SKIP = "skip"
    HOLD = "hold"
    RELEASE = "release"
    DISCARD = "discard"
    RESENT = "resent"  # held as interrupted, and the sender has come back and released
    LISTED = "listed"  # held for want of proof, and its sender has listed what it sent, or the rest has come
    REPAIRED = "repaired"  # held for damaged files, and they have come again
    REOPEN = "reopen"  # an operator wants a closed series looked at again


class LatePolicy(StrEnum):
    """What an instance does that arrives when the derived series exists already. It is stored in every case."""

    HOLD = "hold"  # stop what is not sent yet; a person decides about the new generation
    SUPERSEDE = "supersede"  # stop what is not sent yet; the new generation is enhanced and sent as well
    IGNORE = "ignore"  # the derived series stands; the instance waits for an operator's `reopen`


class JobKind(StrEnum):
    """What a job does."""

    ENHANCE = "ENHANCE"
    DELIVER = "DELIVER"


class JobState(StrEnum):
    """Who owns a job; CANCELED is spelled as in DICOM UPS (PS3.4 Annex CC)."""

    PENDING = "PENDING"  # waits for its first attempt
    RUNNING = "RUNNING"  # claimed under a lease and a fencing token
    RETRY = "RETRY"  # waits for a further attempt, due at `not_before`
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


class JobEvent(StrEnum):
    """What can happen to a job."""

    CLAIM = "claim"
    DONE = "done"
    RETRY = "retry"  # transient error, attempts left
    FAIL = "fail"  # permanent error, or attempts exhausted
    EXPIRE = "expire"  # lease expired, attempts left
    ABANDON = "abandon"  # lease expired, attempts exhausted
    CANCEL = "cancel"
    DUE = "due"  # an operator wants the next attempt now
    RESUBMIT = "resubmit"
    REOPEN = "reopen"  # a destination did not keep what it had taken


class DeliveryState(StrEnum):
    """Where one instance stands at one destination."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"  # the destination answered with success (or a warning that keeps the object)
    REFUSED = "REFUSED"  # the destination refused for good


class DeliveryEvent(StrEnum):
    """What can happen to one instance at one destination."""

    DELIVER = "deliver"
    REFUSE = "refuse"
    DEFER = "defer"  # no final answer: tried, to be tried again
    RETRY = "retry"  # an operator wants a refused instance sent again
    RESEND = "resend"  # the destination did not keep it


class Stage(StrEnum):
    """How far an attempt has come; the state says who owns the job."""

    READ = "READ"
    ENHANCE = "ENHANCE"
    GUARD = "GUARD"
    DERIVE = "DERIVE"
    VERIFY = "VERIFY"
    COMMIT = "COMMIT"
    SEND = "SEND"


SERIES_TRANSITIONS: Mapping[tuple[SeriesState, SeriesEvent], SeriesState] = {
    (SeriesState.RECEIVING, SeriesEvent.STORED): SeriesState.RECEIVING,
    (SeriesState.STABLE, SeriesEvent.STORED): SeriesState.RECEIVING,
    (SeriesState.SKIPPED, SeriesEvent.STORED): SeriesState.RECEIVING,
    (SeriesState.HELD, SeriesEvent.STORED): SeriesState.RECEIVING,
    (SeriesState.RECEIVING, SeriesEvent.CLOSE): SeriesState.STABLE,
    (SeriesState.RECEIVING, SeriesEvent.SKIP): SeriesState.SKIPPED,
    (SeriesState.RECEIVING, SeriesEvent.HOLD): SeriesState.HELD,
    (SeriesState.HELD, SeriesEvent.RELEASE): SeriesState.RECEIVING,
    (SeriesState.HELD, SeriesEvent.DISCARD): SeriesState.SKIPPED,
    (SeriesState.HELD, SeriesEvent.RESENT): SeriesState.RECEIVING,
    (SeriesState.HELD, SeriesEvent.LISTED): SeriesState.RECEIVING,
    (SeriesState.HELD, SeriesEvent.REPAIRED): SeriesState.RECEIVING,
    (SeriesState.STABLE, SeriesEvent.REOPEN): SeriesState.RECEIVING,
    (SeriesState.SKIPPED, SeriesEvent.REOPEN): SeriesState.RECEIVING,
}

JOB_TRANSITIONS: Mapping[tuple[JobState, JobEvent], JobState] = {
    (JobState.PENDING, JobEvent.CLAIM): JobState.RUNNING,
    (JobState.RETRY, JobEvent.CLAIM): JobState.RUNNING,
    (JobState.RUNNING, JobEvent.DONE): JobState.SUCCEEDED,
    (JobState.RUNNING, JobEvent.RETRY): JobState.RETRY,
    (JobState.RUNNING, JobEvent.FAIL): JobState.FAILED,
    (JobState.RUNNING, JobEvent.EXPIRE): JobState.RETRY,
    (JobState.RUNNING, JobEvent.ABANDON): JobState.FAILED,
    (JobState.PENDING, JobEvent.CANCEL): JobState.CANCELED,
    (JobState.RETRY, JobEvent.CANCEL): JobState.CANCELED,
    (JobState.RUNNING, JobEvent.CANCEL): JobState.CANCELED,
    (JobState.RETRY, JobEvent.DUE): JobState.PENDING,
    (JobState.FAILED, JobEvent.RESUBMIT): JobState.PENDING,
    (JobState.CANCELED, JobEvent.RESUBMIT): JobState.PENDING,
    (JobState.SUCCEEDED, JobEvent.REOPEN): JobState.PENDING,
    (JobState.FAILED, JobEvent.REOPEN): JobState.PENDING,
}

DELIVERY_TRANSITIONS: Mapping[tuple[DeliveryState, DeliveryEvent], DeliveryState] = {
    (DeliveryState.PENDING, DeliveryEvent.DELIVER): DeliveryState.DELIVERED,
    (DeliveryState.PENDING, DeliveryEvent.REFUSE): DeliveryState.REFUSED,
    (DeliveryState.PENDING, DeliveryEvent.DEFER): DeliveryState.PENDING,
    (DeliveryState.REFUSED, DeliveryEvent.RETRY): DeliveryState.PENDING,
    (DeliveryState.DELIVERED, DeliveryEvent.RESEND): DeliveryState.PENDING,
}

OPEN_JOB_STATES = (JobState.PENDING, JobState.RETRY, JobState.RUNNING)
WAITING_JOB_STATES = (JobState.PENDING, JobState.RETRY)


S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=StrEnum)


def following(table: Mapping[tuple[S, E], S], state: S, event: E) -> S:
    """The state after the event, by a table. Raises `IllegalTransitionError` for a pair that it does not hold."""
    found = table.get((state, event))
    if found is None:
        raise IllegalTransitionError(state, event)
    return found


@overload
def advance(state: SeriesState, event: SeriesEvent) -> SeriesState: ...
@overload
def advance(state: JobState, event: JobEvent) -> JobState: ...
@overload
def advance(state: DeliveryState, event: DeliveryEvent) -> DeliveryState: ...
def advance(
    state: SeriesState | JobState | DeliveryState, event: SeriesEvent | JobEvent | DeliveryEvent
) -> SeriesState | JobState | DeliveryState:
    """The state after the event, by the tables above. Raises `IllegalTransitionError` for any other pair."""
    if isinstance(state, SeriesState) and isinstance(event, SeriesEvent):
        return following(SERIES_TRANSITIONS, state, event)
    if isinstance(state, JobState) and isinstance(event, JobEvent):
        return following(JOB_TRANSITIONS, state, event)
    if isinstance(state, DeliveryState) and isinstance(event, DeliveryEvent):
        return following(DELIVERY_TRANSITIONS, state, event)
    raise IllegalTransitionError(state, event)
