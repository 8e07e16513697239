"""Tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dicom_node.operations import plain

console = Console(highlight=False)
_errors = Console(stderr=True, highlight=False)

_COLOURS = {
    "STABLE": "green", "SUCCEEDED": "green", "DELIVERED": "green", "PASS": "green",
    "RECEIVING": "cyan", "RUNNING": "cyan", "PENDING": "cyan",
    "RETRY": "yellow", "HELD": "yellow", "SKIPPED": "dim", "CANCELED": "dim",
    "FAILED": "red", "REFUSED": "red", "FAIL": "red",
}  # fmt: skip

Column = tuple[str, Callable[[Any], object]]


def complain(headline: str, *lines: str) -> None:
    """Write an error to standard error: one headline, then one line per problem, however long."""
    _errors.print(Text(headline, style="bold red"), soft_wrap=True)
    for line in lines:
        _errors.print(Text(f"  {line}"), soft_wrap=True)


def as_text(value: object) -> Text:
    """A cell: state words in their colour, times to the second, nothing for None. Never markup."""
    if value is None:
        return Text("")
    if isinstance(value, datetime):
        local = value.astimezone()
        today = local.date() == datetime.now().astimezone().date()
        return Text(local.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M"))
    word = printable(str(value))
    return Text(word, style=_COLOURS.get(word, ""))


def printable(text: str) -> str:
    """Text from outside (AE titles, comments) with control characters made visible, so no terminal obeys it."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def print_table(title: str, records: Sequence[Any], columns: Iterable[Column]) -> None:
    """Print records as a table."""
    columns = list(columns)
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, (name, _) in enumerate(columns):
        # Only the last column may wrap: ids, states and times are read down the column.
        last = number == len(columns) - 1
        table.add_column(name, overflow="fold" if last else "ellipsis", no_wrap=not last)
    for record in records:
        table.add_row(*(as_text(get(record)) for _, get in columns))
    console.print(table)
    if not records:
        console.print(Text("  none", style="dim"))


def print_facts(facts: Mapping[str, Any], *, indent: int = 2) -> None:
    """Print nested facts as indented lines, one short line per leaf or flat mapping."""
    for name, value in plain(facts).items():
        nested = isinstance(value, dict) and any(isinstance(item, (dict, list)) for item in value.values())
        if nested:
            console.print(Text(f"{' ' * indent}{name}", style="dim"))
            print_facts(value, indent=indent + 2)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            console.print(Text(f"{' ' * indent}{name}", style="dim"))
            for item in value:
                console.print(Text(f"{' ' * (indent + 2)}{_in_words(item)}", style="dim"))
        elif value not in (None, [], {}):
            console.print(Text(f"{' ' * indent}{name}: {_in_words(value)}", style="dim"))


def _in_words(value: Any) -> str:
    """A flat value on one line, numbers to four digits."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_in_words(item)}" for key, item in value.items() if item is not None)
    if isinstance(value, list):
        return ", ".join(_in_words(item) for item in value)
    if isinstance(value, float):
        return f"{value:.4g}"
    return printable(str(value))


def print_json(value: Any) -> None:
    """Print records or plain values as JSON on standard output, without colours or wrapping."""
    print(json.dumps(plain(value), indent=2))
