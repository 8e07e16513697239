"""`dicom-node doctor`: prints an examination; everything it says comes from `dicom_node.doctor`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from dicom_node.cli.render import console, print_json, printable
from dicom_node.cli.session import DEFAULT_CONFIG, ConfigOption, JsonOption
from dicom_node.observability.logs import configure

_COLOURS = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def doctor(
    config: ConfigOption = DEFAULT_CONFIG,
    store: Annotated[
        bool, typer.Option("--store", help="Send a test object to each peer and ask for it back.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Examine disk, database, ports, peers, model, device and clock; exit status 1 when there is a problem."""
    from dicom_node.doctor.entries import Entry
    from dicom_node.doctor.examine import examine
    from dicom_node.doctor.findings import Finding, Level, has_problems

    def show(finding: Finding) -> None:
        head = Text(f"{finding.level:<8}", style=_COLOURS[finding.level])
        console.print(head + Text(printable(f" {finding.check}: {finding.subject}")), soft_wrap=True)
        for label, words in (("", finding.seen), ("", finding.meaning), ("Fix: ", finding.fix)):
            if words:
                console.print(Text(printable(f"         {label}{words}")), soft_wrap=True)

    def show_entry(entry: Entry) -> None:
        console.print(Text(f"\n{entry.title}", style="bold"), soft_wrap=True)
        for name, value in entry.lines:
            console.print(Text(printable(f"  {name + ':':<20}{value}")), soft_wrap=True)

    configure(level="CRITICAL", fmt="console")
    if json:
        result = examine(config, store=store)
        print_json(result)
    else:
        result = examine(config, store=store, heard=show)
        for entry in result.entries:
            show_entry(entry)
        counts = [sum(found.level is level for found in result.findings) for level in Level]
        console.print(f"\n{counts[0]} ok, {counts[1]} warnings, {counts[2]} problems.")
    raise typer.Exit(1 if has_problems(result.findings) else 0)
