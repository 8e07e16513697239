"""Whether and when something is tried again: pure decisions, no action.

Which failures are worth another try is decided in this file and nowhere else.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from dicom_node.errors import Reason

PERMANENT: frozenset[Reason] = frozenset(
    {
        # The same bytes and the same code give the same answer: another attempt only costs time.
        Reason.DECODE_ERROR,
        Reason.OUT_OF_RANGE,
        Reason.ENGINE_REFUSED,
        Reason.UNSAFE_OUTPUT,
        Reason.VERIFY_FAILED,
        Reason.SOURCE_CHANGED,
        Reason.UNREADABLE,
        Reason.NO_GEOMETRY,
        Reason.BAD_RESCALE,
        Reason.UNSUPPORTED_PIXELS,
        Reason.MULTI_FRAME,
        Reason.TOO_LARGE,
        Reason.MIXED_GEOMETRY,
        Reason.IRREGULAR_SPACING,
        Reason.TOO_FEW_SLICES,
        Reason.MISSING_SLICE,
        Reason.DUPLICATE_POSITION,
        Reason.UNVALIDATED_CONTRAST,
        # A person has to change the configuration or look at the destination.
        Reason.REFUSED_BY_PEER,
        Reason.PARTLY_DELIVERED,
        Reason.NO_CONTEXT,
        Reason.NO_RETURN_PEER,
        Reason.UNKNOWN_PEER,
        Reason.GAVE_UP,
    }
)

SURROUNDINGS: frozenset[Reason] = frozenset({Reason.NO_SPACE, Reason.STORAGE_FAILED})
"""No series is to blame for these: its attempts are kept for what it may be to blame for."""


@dataclass(frozen=True)
class RetryPolicy:
    """How long to wait (full jitter below a doubling delay) and when to stop."""

    first: timedelta
    longest: timedelta
    attempts: int | None = None
    give_up_after: timedelta | None = None


def backoff(failures: int, policy: RetryPolicy, rng: random.Random) -> timedelta:
    """Delay before the next try after `failures` consecutive failures (>= 1).

    Anywhere below a ceiling that doubles from `first` to `longest`, so that what failed together does not
    come back together; never under a fifth of `first`, so that nothing is asked in a hot loop.
    """
    exponent = min(max(failures, 1) - 1, 32)
    ceiling = min(policy.longest, policy.first * 2.0**exponent)
    return max(ceiling * rng.random(), policy.first / 5)


def decide(
    reason: Reason,
    *,
    attempts: int,
    created_at: datetime,
    now: datetime,
    policy: RetryPolicy,
    rng: random.Random,
    mended: bool = False,
) -> datetime | None:
    """Return when to try again, or None when the failure is final.

    `attempts` counts the attempt that just failed. `mended`: what it failed of is known to be gone. What the
    surroundings are to blame for is tried as long as it takes, and ever less often: after about as long again as
    it has been waited for.
    """
    if reason in PERMANENT and not mended:
        return None
    if reason in SURROUNDINGS:
        waited = min(policy.longest, max(policy.first, now - created_at))
        return now + waited * rng.uniform(0.5, 1.0)
    if policy.attempts is not None and attempts >= policy.attempts:
        return None
    if policy.give_up_after is not None and now - created_at >= policy.give_up_after:
        return None
    return now + backoff(attempts, policy, rng)
