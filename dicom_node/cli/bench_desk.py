"""`dicom-node bench desk`: what lists and searches cost with many rows, SQLite and PostgreSQL side by side."""

from __future__ import annotations

import tempfile
from operator import itemgetter
from pathlib import Path
from typing import Annotated

import typer

from dicom_node.cli.render import Column, console, print_json, print_table


def desk(
    jobs: Annotated[int, typer.Option(min=10, help="How many jobs to make up.")] = 100_000,
    instances: Annotated[int, typer.Option(min=10, help="How many instances to make up.")] = 1_000_000,
    repeats: Annotated[int, typer.Option(min=5, help="How often each question is asked.")] = 40,
    postgresql: Annotated[
        str | None,
        typer.Option(help="URL of an EMPTY PostgreSQL database; it stays filled afterwards."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Fill databases with made-up rows and print what lists, searches and figures take, in milliseconds."""
    from dicom_node.demo.desk_load import measure

    found = {}
    with tempfile.TemporaryDirectory(prefix="dicom-node-load-") as scratch:
        urls = {"SQLite": f"sqlite:///{scratch}/node.db"}
        if postgresql is not None:
            urls["PostgreSQL"] = postgresql.replace("postgresql://", "postgresql+psycopg://", 1)
        for name, url in urls.items():
            found[name] = measure(
                url,
                Path(scratch) / name,
                jobs=jobs,
                instances=instances,
                repeats=repeats,
                heard=_silent if json else _say,
            )
    questions = next(iter(found.values())).keys()
    rows = [
        {"question": question}
        | {f"{name} median": timings[question].median_ms for name, timings in found.items()}
        | {f"{name} p95": timings[question].p95_ms for name, timings in found.items()}
        for question in questions
    ]
    if json:
        print_json(rows)
        return
    columns: list[Column] = [("question", itemgetter("question"))]
    for name in found:
        columns += [
            (f"{name} median ms", itemgetter(f"{name} median")),
            (f"{name} p95 ms", itemgetter(f"{name} p95")),
        ]
    print_table(f"{jobs} jobs, {instances} instances", rows, columns)


def _say(words: str) -> None:
    console.print(words, style="dim")


def _silent(_words: str) -> None:
    """Nothing but JSON is printed."""
