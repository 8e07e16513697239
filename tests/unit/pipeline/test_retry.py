"""Retry decisions are pure: the same failure, clock and dice give the same answer."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import pytest

from dicom_node.errors import Reason
from dicom_node.pipeline.retry import PERMANENT, SURROUNDINGS, RetryPolicy, backoff, decide

NOW = datetime(2026, 1, 2, tzinfo=UTC)
POLICY = RetryPolicy(first=timedelta(seconds=5), longest=timedelta(minutes=15))


def ask(
    reason: Reason,
    policy: RetryPolicy = POLICY,
    *,
    attempts: int = 1,
    age: timedelta = timedelta(),
    mended: bool = False,
) -> datetime | None:
    return decide(
        reason,
        attempts=attempts,
        created_at=NOW - age,
        now=NOW,
        policy=policy,
        rng=random.Random(1),
        mended=mended,
    )


@pytest.mark.parametrize("failures", range(1, 40))
def test_the_wait_is_anywhere_below_a_doubling_ceiling_and_never_hot(failures: int) -> None:
    ceiling = min(900.0, 5.0 * 2 ** (failures - 1))
    rng = random.Random(failures)
    waits = [backoff(failures, POLICY, rng).total_seconds() for _ in range(200)]
    assert 1.0 <= min(waits) < 0.2 * ceiling + 1.0
    assert 0.8 * ceiling < max(waits) <= ceiling


@pytest.mark.parametrize("reason", sorted(PERMANENT))
def test_a_permanent_reason_is_never_tried_again(reason: Reason) -> None:
    assert ask(reason) is None


def test_what_has_been_mended_since_is_tried_until_the_attempts_run_out() -> None:
    policy = RetryPolicy(first=timedelta(seconds=1), longest=timedelta(seconds=1), attempts=3)
    assert ask(Reason.SOURCE_CHANGED, policy, attempts=2, mended=True) is not None
    assert ask(Reason.SOURCE_CHANGED, policy, attempts=3, mended=True) is None


@pytest.mark.parametrize(
    "reason", [Reason.WORKER_DIED, Reason.TIME_LIMIT, Reason.NO_SPACE, Reason.PEER_UNREACHABLE]
)
def test_a_passing_trouble_is_tried_again_later(reason: Reason) -> None:
    again = ask(reason)
    assert again is not None
    assert NOW < again <= NOW + timedelta(seconds=5)


def test_attempts_run_out() -> None:
    policy = RetryPolicy(first=timedelta(seconds=1), longest=timedelta(seconds=1), attempts=3)
    assert ask(Reason.WORKER_DIED, policy, attempts=2) is not None
    assert ask(Reason.WORKER_DIED, policy, attempts=3) is None


@pytest.mark.parametrize("reason", sorted(SURROUNDINGS))
def test_what_no_series_is_to_blame_for_is_tried_for_ever_and_ever_less_often(reason: Reason) -> None:
    policy = RetryPolicy(first=timedelta(seconds=5), longest=timedelta(minutes=15), attempts=3)
    for age_s, most_s in ((0, 5), (60, 60), (86_400, 900)):
        again = ask(reason, policy, attempts=7, age=timedelta(seconds=age_s))
        assert again is not None
        assert timedelta(seconds=most_s / 2) <= again - NOW <= timedelta(seconds=most_s)


def test_age_ends_what_attempts_do_not() -> None:
    policy = RetryPolicy(
        first=timedelta(seconds=1), longest=timedelta(seconds=1), give_up_after=timedelta(days=14)
    )
    assert ask(Reason.PEER_UNREACHABLE, policy, attempts=5000, age=timedelta(days=13)) is not None
    assert ask(Reason.PEER_UNREACHABLE, policy, attempts=5000, age=timedelta(days=14)) is None
