"""What is deleted and when, and how often stored files are read again."""

from __future__ import annotations

import re
from datetime import time, timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator

from config.base import Section
from config.errors import refusal
from config.quantities import DurationBetween

Age = Annotated[timedelta, DurationBetween(at_least=timedelta(hours=1), at_most=timedelta(days=36_500))]
Interval = Annotated[timedelta, DurationBetween(at_least=timedelta(minutes=1), at_most=timedelta(days=3650))]
_HOURS = re.compile(r"([01]?\d|2[0-3]):([0-5]\d) ?- ?([01]?\d|2[0-3]):([0-5]\d)")


def _hours(value: Any) -> Any:
    """`22:00-06:00` as two times of day."""
    if value is None or isinstance(value, tuple):
        return value
    found = _HOURS.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        raise refusal('expected two times of day in quotes, such as "22:00-06:00"')
    first, second, third, fourth = (int(part) for part in found.groups())
    return time(first, second), time(third, fourth)


Hours = Annotated[tuple[time, time] | None, BeforeValidator(_hours)]


class RetentionSection(Section):
    """Deletion of what every destination has. Off until it is switched on: nothing is deleted unasked.

    delivered     since the last delivery; received and derived images go together
    skipped       for series that are not enhanced; None keeps them
    under_pressure how long a delivered series is kept at least when the disk is above its soft mark
    hours         local time of day in which old series are deleted; pressure knows no hours
    """

    enabled: bool = False
    delivered: Age = timedelta(days=14)
    skipped: Age | None = None
    under_pressure: Age = timedelta(days=1)
    hours: Hours = None
    read_again: Interval = timedelta(days=7)

    def may_run_at(self, now: time) -> bool:
        """Whether this local time of day lies within the hours; the end is excluded, and may be past midnight."""
        if self.hours is None:
            return True
        first, last = self.hours
        return first <= now < last if first <= last else now >= first or now < last
