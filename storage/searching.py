"""Searches by the beginning of a text, answered in a bounded time however many rows begin with it.

Two ways lead to one page of a list. When few rows match, an index names them all and they are sorted; when many do,
that set would be the whole table, so the list is walked from its end and each row is looked at until the page is
full. Which way it is, is asked of the index first, and that look ends after `FEW` entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, func, literal, or_, select, union
from sqlalchemy.orm import Session

from storage.prefix import searched, starts_with
from storage.tables import DeliveryRow, EventRow, JobRow, SeriesRow

FEW = 10_000

_OF_SERIES = (SeriesRow.series_instance_uid, SeriesRow.study_instance_uid, SeriesRow.calling_ae)
_OF_JOB = (JobRow.destination, JobRow.key)


class Searching:
    """The condition of each list for a text, in the way that suits how many rows there are."""

    def __init__(self, session: Session, dialect: str) -> None:
        self._session = session
        self._dialect = dialect

    def series(self, text: str) -> ColumnElement[bool]:
        """Series whose UIDs, sender or number begin with the text."""
        return series_walked(text) if self._many(_OF_SERIES, text) else series_looked_up(text, self._dialect)

    def jobs(self, text: str) -> ColumnElement[bool]:
        """Jobs whose key, destination or number, or whose series, begins with the text."""
        many = self._many((*_OF_SERIES, *_OF_JOB), text)
        return jobs_walked(text) if many else jobs_looked_up(text, self._dialect)

    def deliveries(self, text: str) -> ColumnElement[bool]:
        """Deliveries of instances whose UID begins with the text."""
        return self._of_one(DeliveryRow.sop_instance_uid, text)

    def events(self, text: str) -> ColumnElement[bool]:
        """Events whose name begins with the text."""
        return self._of_one(EventRow.name, text)

    def _of_one(self, column: Any, text: str) -> ColumnElement[bool]:
        return (
            _walks(column, text) if self._many((column,), text) else starts_with(column, text, self._dialect)
        )

    def _many(self, columns: Sequence[Any], text: str) -> bool:
        """Whether more than `FEW` rows match in one of the columns; reads that many entries of each index at most."""
        return any(
            self._session.scalar(
                select(literal(1)).where(starts_with(column, text, self._dialect)).offset(FEW).limit(1)
            )
            for column in columns
        )


def series_looked_up(text: str, dialect: str) -> ColumnElement[bool]:
    """The series, each from an index."""
    ways = [starts_with(column, text, dialect) for column in _OF_SERIES]
    return or_(*ways, *_numbered(SeriesRow.id, text))


def jobs_looked_up(text: str, dialect: str) -> ColumnElement[bool]:
    """The jobs, each from an index.

    A union and no OR: PostgreSQL reads the whole table where an OR holds a subquery.
    """
    ways: list[ColumnElement[bool]] = [
        JobRow.series_id.in_(select(SeriesRow.id).where(series_looked_up(text, dialect))),
        *(starts_with(column, text, dialect) for column in _OF_JOB),
        *_numbered(JobRow.id, text),
    ]
    return JobRow.id.in_(union(*(select(JobRow.id).where(way) for way in ways)))


def series_walked(text: str) -> ColumnElement[bool]:
    """The same series, asked of each row in turn."""
    return or_(*(_walks(column, text) for column in _OF_SERIES), *_numbered(SeriesRow.id, text))


def jobs_walked(text: str) -> ColumnElement[bool]:
    """The same jobs, asked of each row in turn."""
    # A value and no EXISTS: of that PostgreSQL would make a set first, by reading every series.
    of_series = select(series_walked(text)).where(SeriesRow.id == JobRow.series_id).scalar_subquery()
    return or_(*(_walks(column, text) for column in _OF_JOB), *_numbered(JobRow.id, text), of_series)


def _numbered(column: Any, text: str) -> list[ColumnElement[bool]]:
    """The row with this number, if the text is one."""
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        return []
    return [column == int(text)]


def _walks(column: Any, text: str) -> ColumnElement[bool]:
    """The column begins with the text, in words for which no index is taken."""
    low = searched(text)
    return func.substr(column, 1, len(low)) == low
