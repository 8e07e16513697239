"""What a filter form asked for: unknown or empty values are as if they had not been chosen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TypeVar
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from storage.filters import DeliveryFilter, JobFilter, SeriesFilter
from storage.states import DeliveryState, JobKind, JobState, SeriesState

E = TypeVar("E", bound=StrEnum)
_LONGEST = 64
_LARGEST_ID = 2**63 - 1


@dataclass(frozen=True)
class Asked:
    """The query of a list page."""

    query: QueryParams

    def text(self, name: str) -> str | None:
        """One value as typed, without the blanks around it; None when empty."""
        return self.query.get(name, "").strip()[:_LONGEST] or None

    def number(self, name: str) -> int | None:
        """One value as a row number."""
        value = self.query.get(name, "")
        fits = value.isascii() and value.isdecimal() and len(value) < 20
        return int(value) if fits and int(value) <= _LARGEST_ID else None

    def several(self, name: str) -> tuple[str, ...]:
        """Every value given, at most twenty."""
        return tuple(value[:_LONGEST] for value in self.query.getlist(name) if value)[:20]

    def states(self, name: str, kind: type[E]) -> tuple[E, ...]:
        """Every value that is one of `kind`."""
        known = {member.value: member for member in kind}
        return tuple(known[value] for value in self.several(name) if value in known)

    def day(self, name: str, *, end: bool = False) -> datetime | None:
        """A date in UTC: its beginning, or the beginning of the next."""
        try:
            at = datetime.strptime(self.query.get(name, ""), "%Y-%m-%d").replace(tzinfo=UTC)
            return at + timedelta(days=1) if end else at
        except (ValueError, OverflowError):
            return None

    def link(self, **changes: str | int | None) -> str:
        """The same query with some values changed, or removed with None."""
        pairs = [(key, value) for key, value in self.query.multi_items() if key not in changes and value]
        pairs += [(key, str(value)) for key, value in changes.items() if value is not None]
        return f"?{urlencode(pairs)}" if pairs else "?"


def job_filter(asked: Asked) -> JobFilter:
    """Which jobs the form asks for."""
    return JobFilter(
        kinds=asked.states("kind", JobKind),
        states=asked.states("state", JobState),
        modalities=asked.several("modality"),
        reasons=asked.several("reason"),
        calling_ae=asked.text("calling_ae"),
        destination=asked.text("destination"),
        series_id=asked.number("series_id"),
        created_from=asked.day("from"),
        created_before=asked.day("to", end=True),
        text=asked.text("text"),
    )


def series_filter(asked: Asked) -> SeriesFilter:
    """Which series the form asks for."""
    return SeriesFilter(
        states=asked.states("state", SeriesState),
        modalities=asked.several("modality"),
        reasons=asked.several("reason"),
        calling_ae=asked.text("calling_ae"),
        route=asked.text("route"),
        received_from=asked.day("from"),
        received_before=asked.day("to", end=True),
        text=asked.text("text"),
    )


def delivery_filter(asked: Asked, *, job_id: int | None = None) -> DeliveryFilter:
    """Which deliveries the form asks for."""
    wanted = DeliveryFilter(
        states=asked.states("state", DeliveryState),
        destination=asked.text("destination"),
        text=asked.text("text"),
    )
    return wanted if job_id is None else replace(wanted, job_id=job_id)


def known_words(figures: Mapping[str, Mapping[str, int]], chosen: Iterable[str] = ()) -> list[str]:
    """The names that occur or were chosen, in alphabetical order, for a list to choose from."""
    return sorted({*list(figures)[:200], *chosen} - {""})
