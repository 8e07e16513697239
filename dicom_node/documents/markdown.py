"""Headings and tables of Markdown, with nothing in a cell that could end it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; a row has as many cells as there are columns, None is an empty cell."""
    lines = [_row(columns), _row(["---"] * len(columns))]
    lines += [_row(row) for row in rows]
    return "\n".join(lines)


def document(*parts: str) -> str:
    """Return the parts with an empty line between them and one line end at the last."""
    return "\n\n".join(part.strip("\n") for part in parts if part) + "\n"


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(value: object) -> str:
    text = "" if value is None else str(value)
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
