"""`dicom-node bench send`: how fast this node sends, beside DCMTK's dcmsend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from dicom_node.cli.render import complain, console, print_table

if TYPE_CHECKING:
    from dicom_node.demo.send_bench import Runs, SendRow


def send(
    *,
    kind: Annotated[
        list[str] | None, typer.Option(help="ct: 300 of 512x512; mr: 1000 of 256x256; repeatable.")
    ] = None,
    associations: Annotated[str, typer.Option(help="Numbers of associations at once.")] = "1,4",
    repeats: Annotated[int, typer.Option(min=1, help="Runs that count, after one that does not.")] = 5,
    output: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all figures.")] = None,
) -> None:
    """Send the same objects by this node and by dcmsend, in turns, into one storescp on this machine."""
    from dicom_node.demo.send_bench import KINDS, measure

    kinds = kind or list(KINDS)
    counts = [int(word) for word in associations.split(",") if word.strip().isdecimal()]
    if not counts or min(counts) < 1 or set(kinds) - set(KINDS):
        complain("Expected --kind ct or mr, and --associations such as 1,4.")
        raise typer.Exit(2)
    rows = measure(kinds, counts, repeats=repeats, tell=_tell)
    _show(rows)
    if output is not None:
        try:
            output.write_text(json.dumps([row.as_json() for row in rows], indent=1) + "\n", encoding="utf-8")
        except OSError as exc:
            complain(f"{output}: {exc.strerror}")
            raise typer.Exit(2) from None


def _tell(line: str) -> None:
    console.print(Text(line, style="dim"), soft_wrap=True)


def _show(rows: list[SendRow]) -> None:
    print_table(
        "Sending, instances a second: median (slowest-fastest)",
        rows,
        [
            ("kind", lambda row: row.kind),
            ("associations", lambda row: row.associations),
            ("ours", lambda row: _rates(row, row.ours)),
            ("dcmsend", lambda row: _rates(row, row.dcmsend)),
            ("ratio", lambda row: f"{row.ratio:.2f}"),
            ("CPU ms", lambda row: f"{row.cpu_ms(row.ours):.2f}"),
            ("dcmsend", lambda row: f"{row.cpu_ms(row.dcmsend):.2f}"),
        ],
    )
    console.print(Text("CPU ms: of the sender, an instance; ours with the SHA-256 of every file."))


def _rates(row: SendRow, runs: Runs) -> str:
    rates = sorted(row.rates(runs))
    return f"{rates[len(rates) // 2]:.0f} ({rates[0]:.0f}-{rates[-1]:.0f})"
