"""Text that begins with what a person typed, answered from an index on both databases.

LIKE would ignore the index (SQLite compares it without regard to case, PostgreSQL by the locale), so a prefix is
a range of code points: SQLite compares text by bytes as it is, PostgreSQL with the operators of
`varchar_pattern_ops`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Index, and_

_LAST = "\U0010ffff"
LONGEST = 255


def starts_with(column: Any, text: str, dialect: str) -> ColumnElement[bool]:
    """SQL: the column begins with the text, case included. No character of the text has a meaning of its own."""
    low = searched(text)
    if dialect == "postgresql":
        return and_(
            column.op("~>=~", is_comparison=True)(low), column.op("~<~", is_comparison=True)(low + _LAST)
        )
    return and_(column >= low, column < low + _LAST)


def searched(text: str) -> str:
    """The text as it is compared: PostgreSQL knows no NUL in a text, and nothing stored has one."""
    return text.replace("\x00", "")[:LONGEST]


def prefix_index(name: str, column: str) -> Index:
    """The index that `starts_with` needs."""
    return Index(name, column, postgresql_ops={column: "varchar_pattern_ops"})
